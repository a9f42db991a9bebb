"""Have the greenlets that a task spawns belong to it, as its threads do.

A greenlet begins with an empty context, in every pool. gevent tells of each that is started;
eventlet is made to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from loguru import logger

from pytest_manifest.compat.eventlet import before_greenthreads_run
from pytest_manifest.worker.connections import connections
from pytest_manifest.worker.job import context_of_own_execution


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
