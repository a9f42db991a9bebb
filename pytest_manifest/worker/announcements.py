"""Announce what Celery sends after a task's end is stored: the bodies of chords, and errbacks.

All else that a task starts is sent, and told of, before its end is. See ``Announcement``.

Find the job that starts a task, and give the task's message that job's headers.

So its own start, end and children are told by the same machinery, in whichever worker it runs. What
Celery sends after a task's end is announced with that end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final
from weakref import ReferenceType

from celery import Task, signals
from loguru import logger

from pytest_manifest.compat import celery
from pytest_manifest.log import log_failure
from pytest_manifest.process_state import holding
from pytest_manifest.schema import stream_records, wire
from pytest_manifest.worker import job
from pytest_manifest.worker.children import Children, Document, Expected, Message
from pytest_manifest.worker.handoff import due_time, headers_below
from pytest_manifest.worker.receipt import encode_signed

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
        announced: list[Document] = []
        expected: list[Expected] = []
        if speaks_on and goes_on(children, app.tasks.get(request.__dict__.get("task"))):
            how, task = stream_records.HOW_AFTER, str(request.__dict__.get("task"))
            key = f"{_execution(request.__dict__)}/{how}"
            announced.append({"key": key, "how": how, "count": 1, "task": task})
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
        options = chord.get("options") or {}
        # Where a member has failed, the last one to end calls the errbacks of the body.
        announced, expected = _errbacks(
            app, options.get("link_error"), f"{group}/errbacks", options.get("task_id")
        )
        yield (None if end is End.SUCCESS else announced), expected
    if end is End.SUCCESS:
        return
    # Of what never runs no chord gets its part.
    waiting = list(celery.chords_behind(chord)) if chord else []
    for later in fields.get("chain") or ():
        waiting += celery.chords_behind(later)
    if group and not chord and "args" not in fields:  # turned away unread
        yield {"key": group, "how": "chord_body", "count": 0, "is_off": True}, []
    for key, body in dict(waiting).items():
        yield _body(key, body, is_off=True)
    if end is End.FAILURE:
        yield _errbacks(app, fields.get("errbacks"), execution, fields.get("id"))


def goes_on(children: Children, task: Any) -> bool:
    """Return whether an execution of this task may start more once its end is stored.

    It may where handlers of the task, or of all tasks, are called then.
    """
    if children.goes_on is None:
        handlers = ("on_success", "on_failure", "after_return")
        children.goes_on = task is not None and (
            any(getattr(type(task), one, None) is not getattr(Task, one) for one in handlers)
            or bool(signals.task_success.receivers or signals.task_failure.receivers)
            or _has_others_after_it()
        )
    return children.goes_on


def _has_others_after_it() -> bool:
    """Return whether anybody but us, and Celery's fixup for Django, is told of a task's end."""
    for _, given in list(signals.task_postrun.receivers):
        receiver = given() if isinstance(given, ReferenceType) else given
        module = getattr(receiver, "__module__", None) or ""
        if receiver is not None and not module.startswith(SILENT):
            return True
    return False


def _body(key: str, body: Any, *, is_off: bool) -> tuple[Document | None, list[Expected]]:
    # A message that carries a job that was handed on is no child.
    due = [one for one in celery.first_messages(body) if wire.HEADER_RUN not in one.headers]
    return _announcement(key, "chord_body", due, is_off=is_off), [
        Expected(key, "chord_body", one.task_id, one.task) for one in due
    ]


def _errbacks(
    app: Any, errbacks: Any, key: str, task_id: str | None
) -> tuple[Document | None, list[Expected]]:
    given = [errbacks] if isinstance(errbacks, dict) else errbacks or ()
    due = [one for sig in celery.sent_errbacks(app, given) for one in celery.first_messages(sig)]
    return _announcement(key, "errback", due), [
        Expected(key, "errback", one.task_id, one.task, task_id) for one in due
    ]


def _announcement(
    key: str, how: str, due: list[celery.FirstMessage], *, is_off: bool = False
) -> Document | None:
    if not due:
        return None
    ids = [one.task_id for one in due if one.task_id is not None]
    document: Document = {"key": key, "how": how, "task": due[0].task, "count": len(due)}
    document["task_ids"] = [*ids]
    return {**document, "is_off": True} if is_off else document


def _execution(fields: dict[str, Any]) -> str:
    return str(fields.get(wire.HEADER_EXECUTION))


_outside: ContextVar[Children | None] = ContextVar("manifest_children", default=None)


def sending_for(children: Children | None) -> AbstractContextManager[None]:
    """Have what this process sends belong to a task that ran in another one."""
    return holding(_outside, children)


def current_children() -> Children | None:
    """Return the children of the task that the caller belongs to, where they are to be told of."""
    execution = job.own_execution()
    return _outside.get() if execution is None else execution.children


def warn_of_outlived(task_id: object) -> None:
    """Say, once an execution, that what it left running starts a task, which is in no tree."""
    execution = job.outlived_execution()
    if execution is not None and execution.children is not None:
        execution.children = None
        logger.warning(
            "task {} is started by what {} left running when it ended: no run knows of it, nor of "
            "others that this starts",
            task_id,
            execution.delivery.task_id,
        )


def wants_children(delivery: job.Delivery) -> bool:
    """Return whether the run asks for all that this job starts, and has a stream to tell it."""
    return delivery.root is not None and delivery.stream is not None


def children_of(
    delivery: job.Delivery,
    announce: Callable[[str | None, int, bytes], None],
    links: Iterable[Any] = (),
    following: Any = None,
) -> Children:
    """Return the children, none yet, of a delivery's execution; ``announce`` is its store's."""

    def send(record: Document) -> None:
        announce(delivery.stream, delivery.ttl, encode_signed(record))

    origin: Document = {
        **job.fields_of(delivery, *job.OF_ENTRY, "root", "execution"),
        "parent": delivery.task_id,
    }
    headers = headers_below(delivery, delivery.task_id)
    return Children(origin, headers, send, links, following)


def message_of(
    headers: Mapping[str, object], body: object, routing_key: object, declare: object
) -> Message:
    """Return what Celery's signal tells of a message, of protocol 1 or 2."""
    fields: Mapping[Any, Any]
    if isinstance(body, Mapping):
        fields, embedded = body, body
    else:
        fields, embedded = headers, body[2] if isinstance(body, (tuple, list)) else {}
    declared = declare[0] if isinstance(declare, list) and declare else None
    queue = _name_of(declared) or _name_of(routing_key)
    # Protocol 1 has another name for it.
    group, chord = fields.get("group") or fields.get("taskset"), embedded.get("chord")
    return Message(
        str(fields.get("id")),
        str(fields.get("task")),
        queue,
        fields.get("parent_id"),
        group,
        chord,
        celery.chords_of_message(group, chord, embedded.get("chain")),
        due_time(fields.get("eta")),
    )


def _name_of(queue: object) -> str | None:
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    return name if isinstance(name, str) else None
