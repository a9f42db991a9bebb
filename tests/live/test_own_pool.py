"""The pool of workers that we start: a job goes to a free process at once, the rest is Celery's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest
import redis
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.concurrency.solo import TaskPool as SoloPool

from pytest_manifest import variables
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.worker import own_pool
from tests.live.apps.worker_support import INCLUDE, ROOT, STOCK, Bench, Flavour, running_worker
from tests.services import valkey_server
from tests.support import eventually

pytestmark = pytest.mark.live

OWN = {variables.SUPERVISED: "1", "MANIFEST_LOG_FORMAT": "text", "MANIFEST_LOG_LEVEL": "INFO"}
TWO = Flavour("own-pool", STOCK, (*INCLUDE, "-c", "2"), OWN)


@pytest.fixture(scope="module")
def bench(valkey: str) -> Iterator[Bench]:
    with running_worker(valkey, valkey, TWO) as running:
        yield running


def probe(kind: str) -> tuple[dict[str, int], list[int], list[bool]]:
    command = [sys.executable, "-m", "tests.live.apps.own_pool_probe", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["waiting"], said["results"], said["kept"]


def test_a_job_is_written_to_a_free_process_at_once() -> None:
    """By Celery's it waits for a turn of the event loop, and its process meanwhile for the job.

    What such a process was given is not taken for a job that was not begun, when all that was not
    begun is given back.
    """
    ours, results, kept = probe("ours")
    celerys, same, _ = probe("celerys")
    assert kept == [True, False]
    assert results == same == [10, 1_000_000, 5_000, 20]
    assert list(ours.values()) == [0, 0, 1, 1]
    assert all(celerys.values())


def test_on_a_celery_that_is_made_otherwise_it_does_as_celerys() -> None:
    assert probe("strange") == probe("celerys")


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


@pytest.mark.parametrize("size", [3_000, 300_000])
def test_long_arguments_arrive_whole(bench: Bench, size: int) -> None:
    """Also what a pipe does not take at once."""
    sent = [bench.send("echo", str(number) * size) for number in range(1, 7)]
    for number, one in enumerate(sent, 1):
        assert bench.app.AsyncResult(one.task_id).get(timeout=30) == str(number) * size


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
    """And that alone: what it has begun it does, hands in and acknowledges, and then it ends."""
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
        assert given_back == {task_id for task_id, number in records.items() if not number}


def test_processes_that_are_replaced(valkey: str) -> None:
    """Each has two jobs and makes room for the next."""
    options = (*TWO.options, "--max-tasks-per-child=2")
    with running_worker(valkey, valkey, Flavour("replaced", STOCK, options, OWN)) as bench:
        receipts = [bench.receipt(one) for one in [bench.send("add", 1, 1) for _ in range(12)]]
    assert {one.state for one in receipts} == {"succeeded"}
    assert len({one.pid for one in receipts}) >= 6


def test_only_celerys_own_pool_is_replaced() -> None:
    """A pool of another kind, of an app's own, or that has begun already stays what it is."""

    class AppsPool(AsynPool):  # type: ignore[misc]  # celery has no types
        pass

    class AppsTaskPool(TaskPool):  # type: ignore[misc]  # celery has no types
        Pool = AppsPool

    stays: list[object] = [SoloPool(), AppsTaskPool()]
    changed, chosen, begun = TaskPool(), TaskPool(), TaskPool()
    chosen.Pool, begun._pool = AppsPool, object()
    for pool in (*stays, changed, chosen, begun):
        own_pool.take_over(pool)
    assert changed.Pool is own_pool.Pool
    assert (chosen.Pool, begun.Pool, AppsTaskPool.Pool) == (AppsPool, AsynPool, AppsPool)
    assert "Pool" not in vars(stays[1])
