"""Find the job that starts a task, and give the task's message that job's headers.

So its own start, end and children are told by the same machinery, in whichever worker it runs. What
Celery sends after a task's end is announced with that end: see ``announcements``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, Final

from loguru import logger

from pytest_manifest.compat.canvas import chords_of_message, is_one_message
from pytest_manifest.schema import wire
from pytest_manifest.worker import store_waits
from pytest_manifest.worker.children import Children, Document, Message
from pytest_manifest.worker.handoff import due_time
from pytest_manifest.worker.job import Delivery, outlived_execution, own_execution
from pytest_manifest.worker.receipt import encode_signed

MOST_AT_ONCE: Final = 500
"""Members of a group that one record tells of."""
ROUTING: Final = ("queue", "exchange", "routing_key")
"""Options by which a message finds its queue."""

_outside: ContextVar[Children | None] = ContextVar("manifest_children", default=None)


@contextmanager
def sending_for(children: Children | None) -> Iterator[None]:
    """Have what this process sends belong to a task that ran in another one."""
    token = _outside.set(children)
    try:
        yield
    finally:
        _outside.reset(token)


def current_children() -> Children | None:
    """Return the children of the task that the caller belongs to, where they are to be told of."""
    execution = own_execution()
    return _outside.get() if execution is None else execution.children


def warn_of_outlived(task_id: object) -> None:
    """Say, once an execution, that what it left running starts a task, which is in no tree."""
    execution = outlived_execution()
    if execution is not None and execution.children is not None:
        execution.children = None
        logger.warning(
            "task {} is started by what {} left running when it ended: no run knows of it, nor of "
            "others that this starts",
            task_id,
            execution.delivery.task_id,
        )


def wants_children(delivery: Delivery) -> bool:
    """Return whether the run asks for all that this job starts, and has a stream to tell it."""
    return delivery.root is not None and delivery.stream is not None


def children_of(
    delivery: Delivery,
    announce: Callable[[str | None, int, bytes], None],
    links: Iterable[Any] = (),
    following: Any = None,
) -> Children:
    """Return the children, none yet, of a delivery's execution; ``announce`` is its store's."""

    def send(record: Document) -> None:
        with store_waits.waiting():
            announce(delivery.stream, delivery.ttl, encode_signed(record))

    origin: Document = {
        "run": delivery.run,
        "entry": delivery.entry,
        "attempt": delivery.attempt,
        "root": delivery.root,
        "parent": delivery.task_id,
        "execution": delivery.execution,
    }
    headers = {
        wire.HEADER_RUN: delivery.run,
        wire.HEADER_ENTRY: delivery.entry,
        wire.HEADER_ATTEMPT: delivery.attempt,
        wire.HEADER_STREAM: delivery.stream,
        wire.HEADER_TTL: delivery.ttl,
        wire.HEADER_ROOT: delivery.root,
        wire.HEADER_PARENT: delivery.task_id,
    }
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
        chords_of_message(group, chord, embedded.get("chain")),
        due_time(fields.get("eta")),
    )


def tell_group(members: Iterable[Any], options: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a group's members, each told of before; many in one record.

    Members that are no single task (a chain, a chord) are told of when they are sent.
    """
    children = current_children()
    if children is None:
        yield from members
        return
    waiting = iter(members)
    while chunk := list(islice(waiting, MOST_AT_ONCE)):
        try:
            messages = list(_ahead(chunk, options))
        except Exception as error:  # each is told of when it is sent
            logger.warning("the members of a group are reported one by one: {!r}", error)
            messages = []
        if len(messages) > 1:
            children.tell_ahead(messages)
        yield from chunk


def _ahead(members: Iterable[Any], options: Mapping[str, Any]) -> Iterator[Message]:
    for sig, _, group in members:
        own: Mapping[str, Any] = sig.options
        is_job = wire.HEADER_RUN in (own.get("headers") or {})
        if is_one_message(sig) and own.get("task_id") and not is_job:
            chord = options.get("chord") or own.get("chord")
            parent = options.get("parent_id") or own.get("parent_id")
            chain = options.get("chain") or own.get("chain")
            yield Message(
                own["task_id"],
                sig.task,
                _queue_of(sig, options),
                parent,
                group,
                chord,
                chords_of_message(group, chord, chain),
                _due_of({**own, **options}),
            )


def _due_of(options: Mapping[str, Any]) -> str | None:
    """Return when a signature with these options may start; None: at once."""
    eta, countdown = options.get("eta"), options.get("countdown")
    if countdown:
        eta = datetime.now(timezone.utc) + timedelta(seconds=countdown)
    return due_time(eta.isoformat() if isinstance(eta, datetime) else eta)


def _queue_of(sig: Any, options: Mapping[str, Any]) -> str | None:
    """Return the queue that a signature goes to, as Celery will find it."""
    kind = sig.app.tasks.get(sig.task)
    given = ({name: getattr(kind, name, None) for name in ROUTING}, sig.options, options)
    chosen = {name: one[name] for one in given for name in ROUTING if one.get(name)}
    routed = sig.app.amqp.router.route(chosen, sig.task, sig.args, sig.kwargs)
    return _name_of(routed.get("queue")) or routed.get("routing_key")


def _name_of(queue: object) -> str | None:
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    return name if isinstance(name, str) else None
