"""How an execution ended, in a receipt's words."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import NotRegistered, Reject
from celery.utils.serialization import UnpickleableExceptionWrapper

from pytest_manifest.log import redact
from pytest_manifest.schema.base import State

MAX_MESSAGE = 16 * 1024
MAX_TRACEBACK = 32 * 1024
CUT = "\n[...]\n"
# A frame of the worker's own machinery, with the source and caret lines below it.
_OWN_FRAME = re.compile(
    r'^  File "[^"\n]*[/\\](?:celery[/\\]app[/\\](?:trace|autoretry)|billiard[/\\]pool)\.py", '
    r"line .*\n(?:    .*\n)*",
    re.MULTILINE,
)
_LIMITS: Final = (TimeLimitExceeded, SoftTimeLimitExceeded)


@dataclass(frozen=True, slots=True)
class Ending:
    """A state, with the value that was returned or the error that was raised."""

    state: State
    value: object = None
    error: dict[str, str | None] | None = None


def succeeded(value: object) -> Ending:
    """The task returned this."""
    return Ending("succeeded", value)


def failed(error: BaseException, traceback: str | None = None) -> Ending:
    """The task raised this; ``traceback`` is the worker's text of it."""
    # Only the limit that reaches into the task: it may well have raised another task's error.
    state: State = "timed_out" if isinstance(error, SoftTimeLimitExceeded) else "failed"
    return Ending(state, error=describe(_original(error), traceback))


def failed_outside(error: BaseException, traceback: str | None = None) -> Ending:
    """The worker's main process says this of a task that it does not run itself."""
    state: State = "failed"
    if isinstance(error, WorkerLostError):
        state = "crashed"
    elif isinstance(error, _LIMITS):
        state = "timed_out"
    elif isinstance(error, Reject):
        state = "rejected"
    return Ending(state, error=describe(error, traceback))


def revoked(reason: str) -> Ending:
    """It was revoked, or came too late; ``reason`` is Celery's word for it."""
    state: State = "expired" if reason == "expired" else "revoked"
    return Ending(state, error={"type": "TaskRevokedError", "message": reason, "traceback": None})


def turned_away(state: State, error: BaseException | None) -> Ending:
    """The worker did not take the message, or the task gave it back."""
    return Ending(state, error=None if error is None else describe(error, None))


def _original(error: BaseException) -> BaseException:
    """The exception as it was raised, where Celery wrapped it because it cannot be pickled."""
    if not isinstance(error, UnpickleableExceptionWrapper):
        return error
    raised = sys.exc_info()[1]
    return error if raised is None or type(raised).__name__ != error.exc_cls_name else raised


def describe(
    error: BaseException, traceback: str | None = None, limit: int = MAX_MESSAGE
) -> dict[str, str | None]:
    """An error in a receipt's words, its message of at most ``limit`` characters."""
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
    except Exception as broken:  # a task's own __str__ may do anything
        return f"({type(error).__name__} whose text cannot be had: {type(broken).__name__})"


def _trim(traceback: str) -> str:
    """Without the frames of the worker that called the task."""
    ours = _OWN_FRAME.sub("", traceback)
    return _shorten(ours, MAX_TRACEBACK)


def _shorten(text: str, limit: int) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return text[:half] + CUT + text[-half:]
