"""A real pool of two processes on a real event loop, and what it has yet to write after which turn.

Run as a program, with ``ours``, ``celerys``, or ``strange`` for ours on a Celery that has not what
it reaches into; what it prints is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.worker import state
from kombu.asynchronous import Hub, set_event_loop

from pytest_manifest.worker import own_pool
from tests.support import eventually


def slowly(text: str) -> int:
    time.sleep(0.3)
    return len(text)


def main(kind: str) -> None:
    if kind == "strange":
        own_pool.INNER = frozenset({"gone"})  # type: ignore[misc]  # a constant, but here
    hub = Hub()
    set_event_loop(hub)
    pool = (AsynPool if kind == "celerys" else own_pool.Pool)(processes=2, threads=False)
    pool.register_with_event_loop(hub)
    jobs: list[Any] = []

    def turn(done: int) -> bool:
        hub.run_once()
        return len(pool._all_inqueues) == 2 and all(job.ready() for job in jobs[:done])

    def put(function: Any, size: int, then: Any = None) -> None:
        jobs.append(pool.apply_async(function, ("x" * size,), callback=then))

    eventually(lambda: turn(0), within=30, what="both processes are up")
    waiting: dict[str, int] = {}
    put(len, 10, lambda _result: put(len, 5_000))  # as a worker goes on when a job is done
    put(slowly, 1_000_000)
    waiting["of two for two processes"] = len(pool.outbound_buffer)
    eventually(lambda: turn(1), within=30, what="the first is done")
    waiting["for one that became free"] = len(pool.outbound_buffer)
    put(len, 20)
    waiting["with no process free"] = len(pool.outbound_buffer)
    eventually(lambda: turn(4), within=30, what="all are done")
    state.should_stop = 0  # as the signal that ends a worker does, in the middle of a turn
    put(len, 1)
    waiting["at the worker's end"] = len(pool.outbound_buffer)
    state.should_stop = None
    put(slowly, 30)
    put(len, 40)
    pool.flush()
    kept = [job._job in pool._cache for job in jobs[5:]]
    pool.terminate()
    print(
        json.dumps({"waiting": waiting, "results": [job.get() for job in jobs[:4]], "kept": kept})
    )


if __name__ == "__main__":
    main(sys.argv[1])
