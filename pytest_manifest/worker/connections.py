"""Remember where this process is connected to Celery and others, and take that back.

Have the greenlets that a task spawns belong to it, as its threads do.

A greenlet begins with an empty context, in every pool. gevent tells of each that is started;
eventlet is made to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from loguru import logger

from pytest_manifest.compat.eventlet import before_greenthreads_run
from pytest_manifest.process_state import ProcessState
from pytest_manifest.worker.job import context_of_own_execution


class Connections:
    """The connections of this process, each made once, until closed; those of ``before`` stay."""

    def __init__(self, before: Connections | None = None) -> None:
        self._made: set[str] = set() if before is None else set(before._made)
        self._ends = ExitStack()

    def make(self, name: str, connect: Callable[[], Callable[[], object]]) -> None:
        """Call ``connect``, which returns what takes it back; a second time do nothing."""
        if self.is_first(name):
            self._ends.callback(connect())

    def is_first(self, name: str) -> bool:
        """Return whether this name was not asked for before."""
        if name in self._made:
            return False
        self._made.add(name)
        return True

    def receive(self, signal: Any, receiver: Callable[..., object], name: str) -> None:
        """Connect a receiver to a signal of Celery's."""

        def connect() -> Callable[[], object]:
            signal.connect(receiver, weak=False, dispatch_uid=name)
            return lambda: signal.disconnect(dispatch_uid=name)

        self.make(name, connect)

    def close(self) -> None:
        """Take back what was connected here."""
        self._ends.close()


connections: Final = ProcessState(Connections, inherit=Connections, is_of_worker=True)


def follow_greenlets() -> None:
    """Do so for each package that has been imported by now. Doing it again changes nothing."""
    for name, follow in _WAYS:
        if name in sys.modules:
            try:
                connections.now.make(name, follow)
            except Exception as error:  # no job must fail for it
                logger.warning("what greenlets of {} start is not recorded: {!r}", name, error)


def _follow_gevent() -> Callable[[], None]:
    from gevent import Greenlet

    Greenlet.add_spawn_callback(_hand_on)
    return partial(Greenlet.remove_spawn_callback, _hand_on)


def _follow_eventlet() -> Callable[[], None]:
    return before_greenthreads_run(_hand_on)


def _hand_on(greenlet: Any) -> None:
    """Give a greenlet that has not begun the task of its spawner; one with a context keeps it."""
    context = context_of_own_execution()
    if context is not None and greenlet.gr_context is None:
        greenlet.gr_context = context


_WAYS: Final = (("gevent", _follow_gevent), ("eventlet", _follow_eventlet))
"""What is to be done for each package."""
