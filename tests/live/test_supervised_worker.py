"""A worker that the private stack starts: jobs arrive, processes are replaced, it ends."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator

import psutil
import pytest
import redis

from pytest_manifest import processes
from pytest_manifest.schema.wire import stream_key
from tests.live.apps.worker_support import INCLUDE, STOCK, Bench, Flavour, running_worker
from tests.services import valkey_server
from tests.support import eventually

pytestmark = pytest.mark.live

OWN = {processes.SUPERVISED: "1", "MANIFEST_LOG_FORMAT": "text", "MANIFEST_LOG_LEVEL": "INFO"}
PROCESSES = 2
TWO = Flavour("supervised", STOCK, (*INCLUDE, "-c", "2"), OWN)


@pytest.fixture(scope="module")
def bench(valkey: str) -> Iterator[Bench]:
    with running_worker(valkey, valkey, TWO) as running:
        yield running


@pytest.mark.ring(1)
def test_a_busy_process_gets_no_second_job(bench: Bench) -> None:
    """What is short goes to the other, and does not wait behind what is long."""
    marker = bench.directory / uuid.uuid4().hex
    held = bench.send("hold", str(marker))
    eventually(lambda: bench.starts(held), within=30, what="the long job runs")
    for sent in [bench.send("add", number, 1) for number in range(20)]:
        assert bench.receipt(sent).state == "succeeded"
    assert bench.ends(held) == []
    marker.touch()
    assert bench.receipt(held).result == "released"


@pytest.mark.ring(1)
@pytest.mark.parametrize("size", [3_000, 300_000])
def test_long_arguments_arrive_whole(bench: Bench, size: int) -> None:
    """Also what a pipe does not take at once."""
    sent = [bench.send("echo", str(number) * size) for number in range(1, 7)]
    results = [bench.app.AsyncResult(one.task_id) for one in sent]  # one collected may block others
    for number, one in enumerate(results, 1):
        assert one.get(timeout=30) == str(number) * size


def test_it_goes_on_with_a_new_process_and_a_new_connection() -> None:
    """After a job that kills its process, one that runs too long, and a broker that hung up."""
    with valkey_server() as url, running_worker(url, url, TWO) as bench:
        assert bench.ask("die").state == "crashed"
        assert bench.ask("hang", time_limit=1).state == "timed_out"
        with redis.Redis.from_url(url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        for sent in [bench.send("add", number, 1) for number in range(20)]:
            assert bench.receipt(sent).state == "succeeded"


@pytest.mark.parametrize(
    ("task", "argument", "jobs"), [("burn", 0.2, 20), ("echo", 1, 1_500)], ids=["slow", "quick"]
)
def test_a_worker_that_ends_gives_back_what_it_has_not_begun(
    valkey: str, task: str, argument: float, jobs: int
) -> None:
    """And ends what it has begun; Celery's pool also gives back what a process was just given."""
    with running_worker(valkey, valkey, TWO) as bench:
        sent = [bench.send(task, argument) for _ in range(jobs)]
        eventually(lambda: bench.ends(sent[3]), within=30, what="it is at work")
        os.kill(bench.process_id, signal.SIGTERM)
        main = psutil.Process(bench.process_id)
        ended = psutil.STATUS_ZOMBIE  # until this block lets go of it
        eventually(lambda: main.status() == ended, within=20, what="the worker ends")
        with redis.Redis.from_url(valkey) as client:
            left = [json.loads(message) for message in client.lrange(bench.queue, 0, -1)]
            records = {one.task_id: client.xlen(stream_key(one.run)) for one in sent}
        begun_and_ended, untouched = 2, 0
        assert set(records.values()) <= {begun_and_ended, untouched}
        given_back = {message["headers"]["id"] for message in left}
        waiting = {task_id for task_id, number in records.items() if not number}
        assert given_back >= waiting
        assert len(given_back - waiting) <= (PROCESSES if task == "echo" else 0)


def test_processes_that_are_replaced(valkey: str) -> None:
    """Each has two jobs and makes room for the next."""
    options = (*TWO.options, "--max-tasks-per-child=2")
    with running_worker(valkey, valkey, Flavour("replaced", STOCK, options, OWN)) as bench:
        receipts = [bench.receipt(one) for one in [bench.send("add", 1, 1) for _ in range(12)]]
    assert {one.state for one in receipts} == {"succeeded"}
    assert len({one.pid for one in receipts}) >= 6
