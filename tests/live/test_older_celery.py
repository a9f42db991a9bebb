"""What Celery itself does otherwise on older versions, as docs/reference/versions.md has it."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import billiard
import celery
import pytest

from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.schema import Entry
from tests.live.broker_support import (
    APP,
    address,
    attempts,
    database,
    publishing,
    results_of,
    stock_worker,
)

pytestmark = pytest.mark.live

DELIVERS_AGAIN = celery.VERSION >= (5, 7) or billiard.VERSION < (4, 3)
"""Whether a late-acknowledged job that has left its process is delivered again."""


def test_a_job_that_leaves_its_process(valkey: str, tmp_path: Path) -> None:
    """From Celery 5.7 on it is a lost worker; before, with billiard 4.3, a failure as others."""
    where = address(database(valkey, 1), app=APP)
    log = tmp_path / "executions"
    sent = attempts([Entry(id="leaves", task="stock.exits_once", args=[str(log)])])
    with (
        stock_worker(where, tmp_path, pool="prefork"),
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        publisher.publish(sent, datetime.now(timezone.utc))
        ended = results_of(reader, [one.task_id for one in sent], within=60)
    executions = len(log.read_text("utf-8").splitlines())
    found = ended[sent[0].task_id].state, executions
    assert found == (("succeeded", 2) if DELIVERS_AGAIN else ("failed", 1))
