"""What a session may not leave in its process: threads, children, handlers, patches, messages."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, Final
from weakref import ReferenceType

from pytest_manifest.process_state import known_states
from tests.processes import said_by_system

OURS: Final = "pytest_manifest"
PATCHED: Final = ("celery", "kombu", "threading", "concurrent", "logging", "_pytest", "allure_")
"""Packages in which functions of ours may stand while a session goes on."""
AT_IMPORT: Final = ("pytest_manifest.worker.init", "pytest_manifest.worker.process")
"""What ``-I pytest_manifest.worker`` connects; only a worker's process sends these signals."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Marks:
    """This process before a session; ``left`` then says what is there that was not."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._children = set(_children())
        self._states = [(one, one.now) for one in known_states()]
        self._patches = set(_patches())
        self._queues = _queues()
        self._receivers = set(map(id, _receivers()))

    def left(self, seconds: float) -> list[str]:
        """Name what is left; threads and children have so many seconds to end."""
        until = time.monotonic() + seconds
        return [
            *self._threads_left(until),
            *self._children_left(until),
            *(f"the handler of {one.name}" for one in SIGNALS if _is_ours(signal.getsignal(one))),
            *(f"a handler of a logger: {one!r}" for one in _handlers()),
            *(f"a function of ours in place of {one}" for one in set(_patches()) - self._patches),
            *(
                f"a receiver of a signal: {one!r}"
                for one in _receivers()
                if id(one) not in self._receivers
            ),
            *(f"a state of {one.now!r}" for one, now in self._states if one.now is not now),
            *(f"queues in memory: {one}" for one in _queues() if one not in self._queues),
            *_of_celery(),
        ]

    def _threads_left(self, until: float) -> Iterator[str]:
        for one in set(threading.enumerate()) - self._threads:
            one.join(max(0.0, until - time.monotonic()))
            if one.is_alive():
                yield f"a thread: {one!r}"

    def _children_left(self, until: float) -> Iterator[str]:
        while (left := set(_children()) - self._children) and time.monotonic() < until:
            time.sleep(0.01)
        for pid in left:
            yield f"a child: {said_by_system(pid, 'cmdline')!r}"


def _children() -> Iterator[str]:
    for thread in Path("/proc/self/task").iterdir():
        yield from said_by_system("self", f"task/{thread.name}/children").split()


def _is_ours(given: object) -> bool:
    """Whether this is a function, a method or an object of the plugin's."""
    module = getattr(given, "__module__", None) or type(given).__module__
    return isinstance(module, str) and module.partition(".")[0] == OURS


def _handlers() -> Iterator[object]:
    """Handlers of ours, of logging and of loguru, and the first one of loguru where it is gone."""
    from loguru import logger

    root = logging.getLogger()
    for one in (root, *root.manager.loggerDict.values()):
        yield from (handler for handler in getattr(one, "handlers", ()) if _is_ours(handler))
    core: Any = logger._core  # type: ignore[attr-defined]  # loguru's types leave it out
    for handler in core.handlers.values():
        sink = handler._sink
        if _is_ours(getattr(sink, "_function", None) or getattr(sink, "_stream", sink)):
            yield handler
    if not core.handlers:
        yield "loguru's own is gone"
    if logging.getLogRecordFactory() is not logging.LogRecord:
        yield logging.getLogRecordFactory()


def _patches() -> Iterator[str]:
    """Places of other packages in which a function of ours stands."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in PATCHED or module is None:
            continue
        for attribute, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and _is_ours(value):
                yield f"{name}.{attribute}"
            elif isinstance(value, type) and value.__module__ == name:
                for inner, function in list(vars(value).items()):
                    if isinstance(function, FunctionType) and _is_ours(function):
                        yield f"{name}.{attribute}.{inner}"


def _receivers() -> Iterator[object]:
    """Receivers of ours that Celery's signals have, but for those that importing ours connects."""
    from celery import signals
    from celery.utils.dispatch import Signal

    for one in vars(signals).values():
        if isinstance(one, Signal):
            for (identity, _), receiver in one.receivers:
                found = receiver() if isinstance(receiver, ReferenceType) else receiver
                if _is_ours(found) and identity not in AT_IMPORT:
                    yield found


def _queues() -> list[str]:
    from kombu.transport import memory

    return [*memory.Channel.queues, *memory.Transport.global_state.exchanges]


def _of_celery() -> Iterator[str]:
    from celery import _state
    from celery.worker import state

    for name in ("requests", "reserved_requests", "active_requests", "revoked"):
        if getattr(state, name):
            yield f"celery.worker.state.{name}"
    current = getattr(_state, "_tls").current_app  # noqa: B009 - it has no types
    if current is not None and str(current.main).startswith(OURS):
        yield f"Celery's current app {current!r}"
