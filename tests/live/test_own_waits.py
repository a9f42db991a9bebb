"""A store that is away for longer than a job may run: that is our time, and not the job's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.live.apps.worker_support import INCLUDE, STOCK, Bench, Flavour, Sent, running_worker
from tests.services import valkey_server
from tests.support import eventually

pytestmark = pytest.mark.live

LIMIT = 4.0
"""Seconds that the jobs may run; a soft limit comes a second before."""
AWAY = LIMIT + 2


@pytest.fixture(scope="module")
def bench(valkey: str) -> Iterator[Bench]:
    """A worker whose store is another server than its broker."""
    with (
        valkey_server() as store,
        running_worker(valkey, store, Flavour("waits", STOCK, INCLUDE)) as running,
    ):
        yield running


@contextmanager
def frozen(bench: Bench) -> Iterator[None]:
    """The store takes what is written to it, and says nothing, until the block ends."""
    with redis.Redis.from_url(bench.backend) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_taken(bench: Bench, sent: Sent) -> bool:
    """Whether a process of the pool has it, by what the worker says over the broker."""
    active = bench.app.control.inspect([bench.node], timeout=1.0).active() or {}
    return any(job["id"] == sent.task_id for job in active.get(bench.node, ()))


@pytest.mark.parametrize("soft", [None, LIMIT - 1])
def test_a_job_that_ended_is_not_stopped_while_its_receipt_waits(
    bench: Bench, tmp_path: Path, soft: float | None
) -> None:
    """It returned at once; its process then stands in the delivery for longer than both limits."""
    marker = tmp_path / "go"
    sent = bench.send("hold", str(marker), time_limit=LIMIT, soft_time_limit=soft)
    eventually(lambda: bench.starts(sent), within=30, what="a start")
    with frozen(bench):
        marker.touch()
        time.sleep(AWAY)
    receipt = bench.receipt(sent)
    assert (receipt.state, receipt.result) == ("succeeded", "released"), receipt.error
    bench.settle()
    assert bench.receipt(sent) == receipt


def test_a_job_whose_start_note_waits_has_its_whole_time(bench: Bench, tmp_path: Path) -> None:
    """Its limit is over before its body begins: that is not the body's time."""
    marker = tmp_path / "go"
    with frozen(bench):
        sent = bench.send("hold", str(marker), time_limit=LIMIT)
        eventually(lambda: is_taken(bench, sent), within=30, what="a process that has the job")
        time.sleep(AWAY)
    eventually(lambda: bench.starts(sent), within=30, what="a start")
    marker.touch()
    receipt = bench.receipt(sent)
    assert receipt.state == "succeeded", receipt.error


def test_a_later_soft_limit_does_not_take_the_hard_one_away(bench: Bench) -> None:
    """Celery counts the hard one from the soft one on, which here would be in some minutes."""
    sent = bench.send("hang", time_limit=0.5, soft_time_limit=300)
    assert bench.receipt(sent).state == "timed_out"


def test_a_limit_that_was_put_off_holds_after_all(bench: Bench) -> None:
    """A job that does not end is stopped, by its own time."""
    with frozen(bench):
        sent = bench.send("hang", time_limit=LIMIT)
        eventually(lambda: is_taken(bench, sent), within=30, what="a process that has the job")
        time.sleep(AWAY)
    receipt = bench.receipt(sent)
    assert receipt.state == "timed_out"
    (start,) = bench.starts(sent)
    assert start.started_at is not None
    assert receipt.finished_at is not None
    assert (receipt.finished_at - start.started_at).total_seconds() > AWAY
