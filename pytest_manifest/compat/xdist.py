"""Private parts of pytest-xdist."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, Queue
from typing import Any, Final

import pytest

LOOK: Final = 2.0
"""Seconds that one question to the queue takes at most, as xdist's own loop has it."""
_WAKE: Final[tuple[str, dict[str, object]]] = ("manifest_wake", {})

Events = Queue[Any]
"""What xdist workers have to say, for the controller's loop."""


def events_of(config: pytest.Config) -> Events | None:
    """Return the queue that the controller's loop waits at; None where xdist has none.

    Relies on the plugin ``dsession`` having ``queue`` (xdist 3.8).
    Test: ``test_compat_xdist.py::test_the_controller_s_loop_waits_at_its_queue``.
    """
    queue = getattr(config.pluginmanager.getplugin("dsession"), "queue", None)
    return queue if isinstance(queue, Queue) else None


def tick_while_waiting(
    events: Events, tick: Callable[[], float], woken: Callable[[], None]
) -> Callable[[], None]:
    """Have the controller call ``tick`` while it waits for its workers, and ``woken`` when it is
    told to: by the function that is returned, from any thread.

    ``tick`` returns the seconds until it wants to be called again. xdist offers no place to do
    something while its loop waits; a thread of our own would write while pytest does.
    Relies on the loop asking by ``queue.get(timeout=...)``, looked up each time (xdist 3.8).
    Test: ``test_compat_xdist.py::test_the_controller_s_loop_waits_at_its_queue``.
    """
    ask = events.get

    def get(block: bool = True, timeout: float | None = None) -> object:
        until = time.monotonic() + (LOOK if timeout is None else timeout)
        while True:
            left = until - time.monotonic()
            try:
                event = ask(timeout=max(0.0, min(left, tick()))) if block else ask(block=False)
            except Empty:
                if not block or (left <= 0 and timeout is not None):
                    raise
                continue
            if event != _WAKE:
                return event
            woken()

    events.get = get  # type: ignore[method-assign]  # this one's alone
    return lambda: events.put(_WAKE)
