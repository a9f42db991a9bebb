"""Tasks that start others from threads and greenlets.

The tasks that are started are those of ``worker_trees``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from tests.live.apps.worker_trees import app, leaf, task

__all__ = ["app"]

with suppress(ImportError):  # as an app that uses it does, before its first task runs
    import gevent
    import gevent.event
    import gevent.pool

Call = Callable[[], object]


def event_of(package: str) -> Any:
    """An event for which a task can wait while greenlets run, also where nothing is patched."""
    return gevent.event.Event() if package == "gevent" else threading.Event()


def one_by_one(start: Callable[[Call], Any], calls: Sequence[Call], package: str) -> None:
    """Start each, and wait until all have been called, however they are started."""
    done = [event_of(package) for _ in calls]

    def call(one: Call, end: Any) -> None:
        one()
        end.set()

    for one, end in zip(calls, done, strict=True):
        start(partial(call, one, end))
    for end in done:
        assert end.wait(30)


def by_thread(call: Call) -> None:
    threading.Thread(target=call).start()


def by_gevent(way: str) -> Callable[[Call], Any]:
    ways: dict[str, Callable[[Call], Any]] = {
        "spawn": gevent.spawn,
        "later": partial(gevent.spawn_later, 0.01),
        "pool": gevent.pool.Pool(2).spawn,
        "map": lambda call: gevent.pool.Pool(1).map(lambda one: one(), [call]),
        "nested": lambda call: gevent.spawn(gevent.spawn, call),
    }
    return ways[way]


def starting(package: str, way: str) -> Callable[[Call], Any]:
    """What starts a call in this way of a package; ``threads`` has one way."""
    if package == "threads":
        return by_thread
    return by_gevent(way)


@task
def spawning(self: Any, package: str, way: str, count: int) -> None:
    """Start children in what the task spawns."""
    calls = [partial(leaf.delay, number) for number in range(count)]
    one_by_one(starting(package, way), calls, package)


go_on, has_gone_on = threading.Event(), threading.Event()


def outlive() -> None:
    """Start a child, but not before the task has ended that spawned this."""
    assert go_on.wait(30)
    leaf.delay("of nobody")
    has_gone_on.set()


@task
def leaving(self: Any, package: str) -> None:
    """Leave something behind that goes on."""
    go_on.clear()
    has_gone_on.clear()
    starting(package, "spawn")(outlive)


@task
def following(self: Any) -> None:
    """Be what runs while that goes on."""
    go_on.set()
    assert has_gone_on.wait(30)
