"""Bound the time in which the processes of a worker that stops wait for the result store.

A worker that stops waits for ``STOP_SECONDS`` only, in all pools: where its store has stopped with
it, it would wait until it is killed.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pytest_manifest.process_state import ProcessState

STOP_SECONDS: Final = 15.0
"""Seconds for which a process of a worker that stops waits for its store, in all its jobs.

Long enough for a store that is restarted, and less than the 30 seconds that Kubernetes gives.
"""
_STOP: Final = struct.Struct("<d")


class _Waits:
    """The waits of this process, which runs one task at a time where its pool has several.

    ``stop``: when its worker began to stop (0: it has not); processes that are forked later share
    it.
    """

    def __init__(self) -> None:
        self.stop = mmap.mmap(-1, _STOP.size)
        self._since = 0.0
        self._waited_stopping = 0.0
        self._depth = 0

    def enter(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._since = time.monotonic()

    def leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._waited_stopping = self.waited_stopping()
            self._since = 0.0

    def waited_stopping(self) -> float:
        """Return the seconds that this process has waited since its worker began to stop."""
        began: float = _STOP.unpack(self.stop)[0]
        if not (began and self._since):
            return self._waited_stopping
        return self._waited_stopping + time.monotonic() - max(began, self._since)


_waits: Final = ProcessState(_Waits, is_of_worker=True)


@contextmanager
def waiting() -> Iterator[None]:
    """Count the time spent inside as waiting for the broker or the store."""
    waits = _waits.now
    waits.enter()
    try:
        yield
    finally:
        waits.leave()


def begin_stop(**_: object) -> None:
    """Record, in the main process, that this worker stops; its pool's processes see it."""
    _STOP.pack_into(_waits.now.stop, 0, time.monotonic())


def has_given_up() -> bool:
    """Return whether this worker stops, and has waited for its store for as long as it may."""
    return _waits.now.waited_stopping() > STOP_SECONDS
