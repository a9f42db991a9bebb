"""Describe how an execution ended, in the terms of a receipt."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import Final

from celery.exceptions import (
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.serialization import UnpickleableExceptionWrapper

from pytest_manifest.compat.older import worker_lost
from pytest_manifest.redaction import redact, secrets_in, spelled, without
from pytest_manifest.schema.statuses import State

MAX_MESSAGE = 16 * 1024
MAX_TRACEBACK = 32 * 1024
CUT = "\n[...]\n"
# A frame of the worker's own machinery, with the source and caret lines below it.
_CELERY_FRAME = re.compile(
    r'^  File "[^"\n]*[/\\](?:celery[/\\]app[/\\](?:trace|autoretry)|billiard[/\\]pool)\.py", '
    r"line .*\n(?:    .*\n)*",
    re.MULTILINE,
)
_LIMITS: Final = (TimeLimitExceeded, SoftTimeLimitExceeded)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A receipt's state, with the value returned or the error raised."""

    state: State
    value: object = None
    error: dict[str, str | None] | None = None


def succeeded(value: object) -> TaskResult:
    """Describe a task that returned this value."""
    return TaskResult("succeeded", value)


def failed(error: BaseException, traceback: str | None = None) -> TaskResult:
    """Describe a task that raised this; ``traceback`` is the worker's text of it."""
    # Only the soft limit is raised inside the task; another limit's error is another task's.
    state: State = "timed_out" if isinstance(error, SoftTimeLimitExceeded) else "failed"
    return TaskResult(state, error=describe(_original(error), traceback))


def failed_in_main_process(error: BaseException, traceback: str | None = None) -> TaskResult:
    """Describe a failure that the worker's main process reports, which did not run the task."""
    state: State = "failed"
    error = worker_lost(error)
    if isinstance(error, WorkerLostError):
        state = "crashed"
    elif isinstance(error, _LIMITS):
        state = "timed_out"
    elif isinstance(error, Reject):
        state = "rejected"
    return TaskResult(state, error=describe(error, traceback))


def revoked(reason: str) -> TaskResult:
    """Describe a task that was revoked or had expired; ``reason`` is Celery's word for it."""
    state: State = "expired" if reason == "expired" else "revoked"
    return TaskResult(
        state, error={"type": "TaskRevokedError", "message": reason, "traceback": None}
    )


def refused(state: State, error: BaseException | None) -> TaskResult:
    """Describe a message that the worker refused, or that the task rejected or ignored."""
    return TaskResult(state, error=None if error is None else describe(error, None))


def without_arguments(
    end: TaskResult, log: list[str], request: object
) -> tuple[TaskResult, list[str]]:
    """Take a task's arguments under names of secrets out of what is told of its error and log."""
    fields = request.__dict__
    args, kwargs = fields.get("args"), fields.get("kwargs")
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return end, log
    secrets = spelled({*secrets_in([*args]), *secrets_in(kwargs)})
    if not secrets:
        return end, log
    if end.error is not None:
        texts = end.error.items()
        told = {name: None if one is None else without(one, secrets) for name, one in texts}
        end = replace(end, error=told)
    return end, [without(line, secrets) for line in log]


def _original(error: BaseException) -> BaseException:
    """Return the original of an exception that Celery wrapped because it cannot be pickled."""
    if not isinstance(error, UnpickleableExceptionWrapper):
        return error
    raised = sys.exc_info()[1]
    return error if raised is None or type(raised).__name__ != error.exc_cls_name else raised


def describe(
    error: BaseException, traceback: str | None = None, limit: int = MAX_MESSAGE
) -> dict[str, str | None]:
    """Return an error as a receipt has it, its message cut to ``limit`` characters."""
    name = type(error).__name__
    if isinstance(error, UnpickleableExceptionWrapper):
        name = str(error.exc_cls_name)
    text = None if traceback is None else _trim(redact(str(traceback)))
    return {"type": name, "message": _shorten(redact(_text(error)), limit), "traceback": text}


def _text(error: BaseException) -> str:
    try:
        if isinstance(error, Reject):
            return "" if error.reason is None else str(error.reason)
        if isinstance(error, TimeLimitExceeded) and error.args:
            return f"the hard time limit of {error.args[0]:g} s was exceeded"
        if isinstance(error, SoftTimeLimitExceeded):
            return "the soft time limit was exceeded"
        if isinstance(error, NotRegistered):
            return f"no task of the name {error.args[0]!r} is registered with this worker"
        return str(error)
    except Exception as broken:  # a task's own __str__ may raise anything
        return f"({type(error).__name__} whose text cannot be had: {type(broken).__name__})"


def _trim(traceback: str) -> str:
    """Remove the frames of Celery's worker, and cut a long traceback in the middle."""
    ours = _CELERY_FRAME.sub("", traceback)
    return _shorten(ours, MAX_TRACEBACK)


def _shorten(text: str, limit: int) -> str:
    """Keep the beginning and the end of a long text."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return text[:half] + CUT + text[-half:]
