"""Messages that a killed worker had taken: put back when nobody holds them, and only then."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pytest_manifest.dispatch.orphans import OrphanSearch
from pytest_manifest.dispatch.publisher import Publisher
from pytest_manifest.gather.backend_results import ResultReader
from pytest_manifest.schema import Entry
from tests.live.dispatch_support import (
    APP,
    SENT_AT,
    address,
    attempts,
    database,
    entries,
    publishing,
    stock_worker,
)
from tests.support import eventually

pytestmark = pytest.mark.live

SLEEPER = Entry(id="sleeper", task="stock.sleep", args=[120])
GREEDY = ["--prefetch-multiplier=8"]


def taken(publisher: Publisher) -> bool:
    """Whether no message waits in the queue any more."""
    return publisher.queue_lengths(["standard"]) == {"standard": 0}


def kill_worker(name: str) -> None:
    """kill -9 of the worker process of this node name, as the kernel does when memory is short."""
    found = [p for p in psutil.Process().children(recursive=True) if name in p.cmdline()]
    assert found
    for process in found:
        process.kill()


def test_what_a_killed_worker_held_is_put_back_once(valkey: str, tmp_path: Path) -> None:
    """Two looks find the held messages, and only those that are waited for; then they all run."""
    where = address(database(valkey, 3), app=APP, owned=True)
    sent = attempts([SLEEPER, *entries(2)])
    sleeper, *waiting = [attempt.task_id for attempt in sent]
    with publishing(where) as publisher:
        with stock_worker(where, tmp_path, pool="prefork", options=GREEDY) as name:
            publisher.publish(sent, SENT_AT)
            eventually(lambda: taken(publisher), what="the worker took them all")
            search = OrphanSearch(publisher, workers=1)
            search.look(set(waiting))
            assert search.restore(set(waiting)) == []
            kill_worker(name)
        with stock_worker(where, tmp_path, pool="prefork"):
            search.look(set(waiting))
            assert sorted(search.restore(set(waiting))) == sorted(waiting)
            reader = ResultReader(where)
            try:
                eventually(lambda: len(reader.read(waiting)) == 2, what="both have run")
                assert reader.read([sleeper]) == {}
            finally:
                reader.close()
            search.look(set(waiting))
            assert search.restore(set(waiting)) == []


def test_silence_proves_nothing(valkey: str, tmp_path: Path) -> None:
    """Where fewer workers answer than there are, nothing is moved: the silent one may hold it."""
    where = address(database(valkey, 4), app=APP, owned=True)
    sent = attempts([SLEEPER, *entries(1)])
    waiting = {sent[1].task_id}
    with publishing(where) as publisher:
        with stock_worker(where, tmp_path, pool="prefork", options=GREEDY) as name:
            publisher.publish(sent, SENT_AT)
            eventually(lambda: taken(publisher), what="the worker took them all")
            kill_worker(name)
        with stock_worker(where, tmp_path, pool="prefork"):
            search = OrphanSearch(publisher, workers=2)
            search.look(waiting)
            assert search.restore(waiting) == []
