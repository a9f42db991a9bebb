"""Capture what a task logs by loguru or the standard library, without changing other logging."""

from __future__ import annotations

import contextlib
import logging
import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Literal

from loguru import logger

from pytest_manifest import log, processes
from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction import hide_environment
from pytest_manifest.worker.job import current_execution

if TYPE_CHECKING:
    from loguru import Message, Record

# What Celery logs of a task is in its receipt anyway.
_NOT_THE_TASK: Final = ("celery.app.trace", "celery.worker.request", "celery.worker.strategy")
_EVERY_JOB: Final = ("celery.app.trace", "celery.worker.strategy")
_ROOTS: Final = ("", "celery.task")  # Celery keeps task loggers' records from the root logger


def sets_up_logging() -> bool:
    """Return whether a log format is set, so that this process's logging is set up here."""
    return processes.LOG_FORMAT in os.environ


def set_up_own_logging() -> None:
    """Route all that this process logs through loguru."""
    format_: Literal["text", "json"] = (
        "json" if os.environ[processes.LOG_FORMAT] == "json" else "text"
    )
    level = _level()
    log.configure(format=format_, level=level)
    log.intercept_stdlib(level)
    if os.environ.get(processes.LOG_JOBS) == "0" and logging.getLogger().level > logging.DEBUG:
        # Two lines a job (received, succeeded) cost as much as a round trip to the broker, and the
        # receipt has what they say. Failures are logged as warnings or errors.
        for name in _EVERY_JOB:
            logging.getLogger(name).setLevel(logging.WARNING)
    catch_loguru(again=True)


def catch_loguru(*, again: bool = False) -> None:
    """Add the sink that keeps tasks' lines; ``again``: also where one was added before."""
    here = _added.now
    if here.to_loguru is None or again:
        hide_environment()
        here.to_loguru = logger.add(
            _keep,
            level=_level(),
            format=_loguru_format,
            filter=_is_wanted,
            backtrace=False,
            diagnose=False,
            catch=True,
        )


def catch_stdlib() -> None:
    """Capture records of the standard library's loggers; cheap enough to call for every task."""
    if sets_up_logging():
        return  # they come by loguru
    handler = _added.now.to_logging
    for name in _ROOTS:
        target = logging.getLogger(name)
        if handler not in target.handlers and (target.parent is None or not target.propagate):
            target.addHandler(handler)


def _keep(message: Message) -> None:
    execution = current_execution()
    if execution is not None:
        record = message.record
        execution.add_log(str(message), message=record["message"], origin="loguru")


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        execution = current_execution()
        if execution is None or record.name in _NOT_THE_TASK:
            return
        try:
            execution.add_log(self.format(record), message=record.getMessage(), origin="logging")
        except Exception:  # as logging's handlers do
            self.handleError(record)


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


class _Added:
    """The handlers that a worker has added to its process's loggers."""

    def __init__(self) -> None:
        self.to_loguru: int | None = None
        self.to_logging = _Handler()
        self.to_logging.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def close(self) -> None:
        """Remove them."""
        if self.to_loguru is not None:
            with contextlib.suppress(ValueError):  # the app has removed all sinks
                logger.remove(self.to_loguru)
        for name in _ROOTS:
            logging.getLogger(name).removeHandler(self.to_logging)


_added: Final = ProcessState(_Added, is_of_worker=True)


def _level() -> str:
    return os.environ.get(processes.LOG_LEVEL, "INFO").upper()


def _is_wanted(record: Record) -> bool:
    return current_execution() is not None and record["name"] not in _NOT_THE_TASK


def _loguru_format(_record: Record) -> str:
    return "{time:HH:mm:ss.SSS!UTC} {level} {name}: {message}\n{exception}"
