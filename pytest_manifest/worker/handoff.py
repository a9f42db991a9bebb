"""Pass a job on to a retry of its task, or to the task's replacement (``Task.replace``).

The execution ends and the job does not. Only the message that completes the job gets the run's
headers, so the worker that runs it sends the receipt, under the job's own task id. Celery gives
that id to the replacement, to the last task of a chain, or to the body of a chord, which any worker
may send much later: so the headers are kept in the signature.

Tell which of the tasks that a task has called went to another broker than the worker's own.

The run looks for its jobs on its own broker alone, so one that is nowhere there need not be lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Final

from celery import Signature, current_task
from loguru import logger

from pytest_manifest.compat.celery import before_replacing, first_messages
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.schema import wire
from pytest_manifest.schema.wire import parse_moment, timestamp
from pytest_manifest.worker.children import Children, Document, Message
from pytest_manifest.worker.job import Delivery, Execution, current_execution
from pytest_manifest.worker.receipt import describe, handed_on_record


def note_elsewhere(children: Children, app: Any, request: Any) -> None:
    """Note the brokers of those children that another app has sent to its own.

    Celery keeps the results of what a task calls (``request.children``), and each knows its app. So
    what is called in another thread, or over a connection that the task has opened, is not noted.
    """
    if not children.count:
        return
    try:
        children.elsewhere = dict(_elsewhere(app, request.children))
    except Exception as error:  # an app that names no broker that kombu knows
        logger.debug("where tasks were sent is not known: {!r}", error)


def _elsewhere(app: Any, results: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield task id and broker of each result of an app with another broker."""
    known = {id(app): ""}
    own = ""
    for one in _each(results):
        other = getattr(one, "app", None)
        if other is None:
            continue
        if id(other) not in known:
            own = own or _broker_of(app)
            theirs = _broker_of(other)
            known[id(other)] = "" if theirs == own else theirs
        if known[id(other)]:
            yield str(one.id), known[id(other)]


def _each(results: Iterable[Any]) -> Iterator[Any]:
    """Yield results, those of a group each by itself."""
    for one in results:
        members = getattr(one, "results", None)
        if members is None:
            yield one
        else:
            yield from _each(members)


def _broker_of(app: Any) -> str:
    """Return where an app publishes, without the password."""
    with app.connection_for_write() as connection:
        return redact_url(connection.as_uri(include_password=True))


START: Final = "start"


def announce(execution: Execution, record: bytes, what: str) -> None:
    """Put a record into the run's stream; a failure is logged, and the task goes on."""
    if execution.announce is None:
        return
    try:
        execution.announce(record)
    except Exception as error:  # the store may be back when the task ends
        if what == START:
            execution.unsent_start = record
        task_id = execution.delivery.task_id
        logger.warning("the {} of {} was not recorded: {}", what, task_id, error)


def record_handoff(execution: Execution, how: str, message: Message | None = None) -> None:
    """Record that this execution is not its job's last, before the next message is sent.

    ``message``: that message, None where the job is split.
    """
    execution.replaced = True
    more = next_message(message)
    if execution.children is not None:
        execution.children.replaces = how == "canvas"
        execution.children.tell_again()
        app, request = (getattr(current_task, name, None) for name in ("app", "request"))
        note_elsewhere(execution.children, app, request)
        told = execution.children.at_end()
        more |= {name: told[name] for name in ("unsent", "elsewhere") if name in told}
    evidence = execution.all_evidence()
    if "cost" in evidence:  # the receipt of the job's end has that of its last execution
        more["cost"] = evidence["cost"]
    announce(execution, handed_on_record(execution.delivery, how, more), "handing on")


def next_message(message: Message | None) -> Document:
    """Return what the record of an execution says of the message by which its job goes on."""
    said: Document = {} if message is None else {"next_at": message.due, "queue": message.queue}
    return {name: value for name, value in said.items() if value is not None}


def job_headers(delivery: Delivery, hop: int) -> dict[str, object]:
    """Return the headers with which a message carries a job that was handed on ``hop`` times."""
    own = {wire.HEADER_SENT_AT: delivery.sent_at, wire.HEADER_HOP: hop}
    headers = headers_below(delivery, delivery.parent) | own
    return {name: value for name, value in headers.items() if value is not None}


def headers_below(delivery: Delivery, parent: str | None) -> dict[str, object]:
    """Return the headers that a job's message has in common with those of all that it starts."""
    return {
        wire.HEADER_RUN: delivery.run,
        wire.HEADER_ENTRY: delivery.entry,
        wire.HEADER_ATTEMPT: delivery.attempt,
        wire.HEADER_STREAM: delivery.stream,
        wire.HEADER_TTL: delivery.ttl,
        wire.HEADER_ROOT: delivery.root,
        wire.HEADER_PARENT: parent,
    }


def follow_replacements() -> Callable[[], None]:
    """Give our headers to whatever replaces a task of this process; return what takes it back."""
    return before_replacing(_carry)


def _carry(task: Any, sig: Any) -> None:
    execution = current_execution()
    if execution is not None and task.request.id == execution.delivery.task_id:
        _prepare(task.request, execution, sig)


def _prepare(request: Any, execution: Execution, sig: Any) -> None:
    delivery = execution.delivery
    last = _part_of(sig, delivery.task_id) or _last_of(sig)
    # With the rpc backend the result would go to the worker's own queue.
    to = {"reply_to": request.reply_to} if request.reply_to else {}
    last.set(
        headers={**(last.options.get("headers") or {}), **job_headers(delivery, delivery.hop + 1)}
    )
    last.set(**to)
    if [first.task_id for first in first_messages(sig)] != [delivery.task_id]:
        record_handoff(execution, "canvas")
    # Else it is recorded when the message is published, like a retry.


def _part_of(sig: Any, task_id: str) -> Signature | None:
    """Return the part of a frozen signature that has this id: more of a chain may come after it."""
    if sig.subtask_type == "chord":
        return _part_of(sig.body, task_id)
    if sig.subtask_type in ("chain", "group"):
        parts = (_part_of(one, task_id) for one in reversed(sig.tasks))
        return next((one for one in parts if one is not None), None)
    return sig if sig.options.get("task_id") == task_id else None


def _last_of(sig: Any) -> Signature:
    """Return the part of a frozen signature that has its task id and yields its result."""
    while True:
        if sig.subtask_type == "chord":
            sig = sig.body
        elif sig.subtask_type in ("chain", "group") and sig.tasks:
            sig = sig.tasks[-1]
        else:
            return sig


MAX_RETRIES: Final = 10
"""Retries reported, the latest ones: all of this travels with the next message."""
MAX_MESSAGE: Final = 500


def due_time(eta: object) -> str | None:
    """Return when a retry is due, from its message's ``eta``; None: at once."""
    with suppress(ValueError):  # the worker that gets it will reject it
        if isinstance(eta, str):
            due = parse_moment(eta)
            return timestamp(due if due.tzinfo else due.replace(tzinfo=timezone.utc))
    return None


def retries_so_far(execution: Execution) -> list[Document]:
    """Return the retries so far, with the present execution, which asks for the next one."""
    error = sys.exc_info()[1]  # the error that the task is handling: Celery raises Retry later
    described: Document | None = None if error is None else {**describe(error, limit=MAX_MESSAGE)}
    return retries_with(execution.delivery, execution.started, described)


def retries_with(
    delivery: Delivery, started: datetime | None, error: Document | None
) -> list[Document]:
    """Return a delivery's retries with its own try, which ends now."""
    latest: Document = {
        "retries": delivery.retries,
        "started_at": None if started is None else timestamp(started),
        "ended_at": timestamp(datetime.now(timezone.utc)),
        "error": error,
    }
    return [*map(dict, delivery.retried), latest][-MAX_RETRIES:]
