"""The xdist controller's waiting: its loop has no tick of its own, and is no place of ours."""

from __future__ import annotations

import time
from queue import Empty, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_manifest.face.session import ManifestSession

LOOK = 2.0
"""Seconds that one question to the queue takes at most, as xdist's own loop has it."""


def tick_while_waiting(dsession: object, state: ManifestSession) -> None:
    """Call ``state.tick`` while xdist's session waits for its workers' events.

    That is where the controller's thread is when nothing is written; a thread of our own would
    write while pytest does.
    """
    queue = getattr(dsession, "queue", None)
    if not isinstance(queue, Queue):
        return  # another xdist: there is no progress between two events, and all else works
    ask = queue.get

    def get(block: bool = True, timeout: float | None = None) -> object:
        if not block:
            return ask(block=False)
        until = time.monotonic() + (LOOK if timeout is None else timeout)
        while True:
            left = until - time.monotonic()
            try:
                return ask(timeout=max(0.0, min(left, state.tick())))
            except Empty:
                if left <= 0 and timeout is not None:
                    raise

    queue.get = get  # type: ignore[method-assign]  # xdist offers no place to do something while it waits
