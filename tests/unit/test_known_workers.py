"""What is noted of the workers before anything is sent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger
from pytest_manifest.run.connections import record_known_workers
from pytest_manifest.urls import StackAddress
from tests.unit.ledger_support import INFO

GONE = "redis://:hunter2@127.0.0.1:1/0"


def test_a_broker_that_goes_away_before_the_sending_is_told_in_a_sentence(tmp_path: Path) -> None:
    """It has answered the workers' questions just before; no driver's traceback is shown."""
    address = StackAddress(GONE, GONE, None, is_private=False)
    with (
        closing(Publisher(address, stream="", ttl=0)) as publisher,
        Ledger.create(tmp_path / "run.sqlite", INFO) as ledger,
        pytest.raises(StackError, match=r"redis://:\*\*\*@127\.0\.0\.1:1/0 .*check that the bro"),
    ):
        record_known_workers(ledger, publisher, ["one@host"])
