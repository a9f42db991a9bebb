"""What does not fit together in a ledger, and what only seems not to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from pytest_manifest.ledger import Ledger, events
from tests.unit.ledger_support import INFO, MOMENT, receipt, verdict


@pytest.mark.parametrize(("seconds", "is_late"), [(-1, False), (1, True)])
def test_an_end_that_is_told_once_the_entry_is_sent_again_is_late(
    tmp_path: Path, seconds: int, is_late: bool
) -> None:
    """Before that, ``lost`` was wrong."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-a", "a", 1, 0), ("t-a2", "a", 2, 0, "lost")])
        ledger.attempts.mark(["t-a2"], "intent", sent_at=MOMENT)
        ledger.verdicts.end_attempt("t-a", verdict("a", "lost"))
        arrived = MOMENT + timedelta(seconds=seconds)
        with mock.patch.object(events, "utc_now", return_value=arrived):
            ledger.events.add_receipts([("t-a", None, receipt("a", source="worker"))])
        found = [one.task_id for one in ledger.promises.lost_though_ended()]
    assert found == ([] if is_late else ["t-a"])
