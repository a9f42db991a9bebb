"""Greenthreads that tasks spawn in a worker: eventlet hands nothing on to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_manifest.compat import _all_of, _put_in_place


def before_greenthreads_run(prepare: Callable[[Any], None]) -> Callable[[], None]:
    """Call ``prepare`` with each new greenthread, in the one that spawns it.

    Doing it again changes nothing. Returns what takes it back.
    Relies on ``GreenThread.__init__`` being called for each that ``spawn`` makes, and on
    ``greenthread._spawn_n`` returning a timer and what ``spawn_n`` makes (eventlet 0.41).
    Test: ``test_compat_eventlet.py::test_greenthreads_are_prepared_where_they_are_spawned``.
    """
    from eventlet import greenthread

    given_init, given_spawn = greenthread.GreenThread.__init__, greenthread._spawn_n

    def init(thread: Any, *args: object, **kwargs: object) -> None:
        given_init(thread, *args, **kwargs)
        prepare(thread)

    def spawn_n(*args: object, **kwargs: object) -> tuple[Any, Any]:
        timer, thread = given_spawn(*args, **kwargs)
        prepare(thread)
        return timer, thread

    return _all_of(
        _put_in_place(greenthread.GreenThread, "__init__", init),
        _put_in_place(greenthread, "_spawn_n", spawn_n),
    )
