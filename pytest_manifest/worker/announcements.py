"""Announce what Celery sends after a task's end is stored: the bodies of chords, and errbacks.

All else that a task starts is sent, and told of, before its end is. See ``Announcement``.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final
from weakref import ReferenceType

from celery import Task, signals

from pytest_manifest.compat.canvas import (
    FirstMessage,
    chords_behind,
    first_messages,
    sent_errbacks,
)
from pytest_manifest.log import log_failure
from pytest_manifest.schema import stream_records, wire
from pytest_manifest.worker.children import Children, Document, Expected

SILENT: Final = ("pytest_manifest.", "celery.fixups.")
"""Modules whose receivers of ``task_postrun`` start no task."""


class End(Enum):
    """The end of a task, as far as it makes a difference to what Celery does then.

    After a failure it runs errbacks. After any other end (a task that is revoked, rejected or
    ignored) it does not.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    OTHER = "other"


def announce_rest(children: Children, app: Any, request: Any, end: End, *, speaks_on: bool) -> None:
    """Set what is announced, and expected, after the end of the task of ``request``.

    ``speaks_on``: it runs in this process, where what its handlers start is followed.
    """
    try:
        announced, expected = [], []
        if speaks_on and goes_on(children, app.tasks.get(request.__dict__.get("task"))):
            announced.append(_after_handlers(request.__dict__))
        for one, messages in _after(app, request, end):
            if one is not None:
                announced.append(one)
            expected += messages
    except Exception as error:
        # The task's outcome must not change for it.
        log_failure(f"what follows {request.__dict__.get('id')} could not be announced", error)
    else:
        children.announced, children.expected = announced, expected


def _after(app: Any, request: Any, end: End) -> Iterator[tuple[Document | None, list[Expected]]]:
    """Yield announcements, each with the messages that it is about; None: nothing is due."""
    fields = request.__dict__
    group, chord, execution = fields.get("group"), fields.get("chord"), _execution(fields)
    if chord and group:
        yield _body(group, chord, is_off=end is not End.SUCCESS)
        # Where a member has failed, the last one to end calls the errbacks of the body.
        announced, expected = _errbacks(
            app, chord.get("options", {}).get("link_error"), f"{group}/errbacks", _id_of(chord)
        )
        yield (None if end is End.SUCCESS else announced), expected
    if end is End.SUCCESS:
        return
    # Of what never runs no chord gets its part.
    waiting = list(chords_behind(chord)) if chord else []
    for later in fields.get("chain") or ():
        waiting += chords_behind(later)
    if group and not chord and "args" not in fields:  # turned away unread
        yield {"key": group, "how": "chord_body", "count": 0, "is_off": True}, []
    for key, body in dict(waiting).items():
        yield _body(key, body, is_off=True)
    if end is End.FAILURE:
        yield _errbacks(app, fields.get("errbacks"), execution, fields.get("id"))


def goes_on(children: Children, task: Any) -> bool:
    """Return whether an execution of this task may start more once its end is stored."""
    if children.goes_on is None:
        children.goes_on = speaks_after_its_end(task)
    return children.goes_on


def speaks_after_its_end(task: Any) -> bool:
    """Return whether handlers of a task, or of all tasks, are called once its end is stored.

    They may start others.
    """
    if task is None:
        return False
    return (
        any(
            getattr(type(task), name, None) is not getattr(Task, name)
            for name in ("on_success", "on_failure", "after_return")
        )
        or bool(signals.task_success.receivers or signals.task_failure.receivers)
        or _has_others_after_it()
    )


def _has_others_after_it() -> bool:
    """Return whether anybody but us, and Celery's fixup for Django, is told of a task's end."""
    for _, given in list(signals.task_postrun.receivers):
        receiver = given() if isinstance(given, ReferenceType) else given
        module = getattr(receiver, "__module__", None) or ""
        if receiver is not None and not module.startswith(SILENT):
            return True
    return False


def _after_handlers(fields: dict[str, Any]) -> Document:
    key = f"{_execution(fields)}/{stream_records.HOW_AFTER}"
    task = str(fields.get("task"))
    return {"key": key, "how": stream_records.HOW_AFTER, "count": 1, "task": task}


def _body(key: str, body: Any, *, is_off: bool) -> tuple[Document | None, list[Expected]]:
    # A message that carries a job that was handed on is no child.
    due = [one for one in first_messages(body) if wire.HEADER_RUN not in one.headers]
    return _announcement(key, "chord_body", due, is_off=is_off), [
        Expected(key, "chord_body", one.task_id, one.task) for one in due
    ]


def _errbacks(
    app: Any, errbacks: Any, key: str, task_id: str | None
) -> tuple[Document | None, list[Expected]]:
    given = [errbacks] if isinstance(errbacks, dict) else errbacks or ()
    due = [one for sig in sent_errbacks(app, given) for one in first_messages(sig)]
    return _announcement(key, "errback", due), [
        Expected(key, "errback", one.task_id, one.task, task_id) for one in due
    ]


def _announcement(
    key: str, how: str, due: list[FirstMessage], *, is_off: bool = False
) -> Document | None:
    if not due:
        return None
    ids = [one.task_id for one in due if one.task_id is not None]
    document: Document = {"key": key, "how": how, "task": due[0].task, "count": len(due)}
    document["task_ids"] = [*ids]
    return {**document, "is_off": True} if is_off else document


def _execution(fields: dict[str, Any]) -> str:
    return str(fields.get(wire.HEADER_EXECUTION))


def _id_of(sig: Any) -> str | None:
    task_id: str | None = (sig.get("options") or {}).get("task_id")
    return task_id
