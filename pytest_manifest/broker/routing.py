"""Route an entry's message, as ``.delay()`` would; tell queues that take no job.

A queue whose name is a key of the broker's own, that was declared otherwise by another client, or
that this user may not touch, will not be had by trying again: it is a matter of the entries that go
there. Taken for an outage, it would hold up all the others for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from celery import Celery, Task
from celery.app.routes import MapRoute
from celery.exceptions import QueueNotFound
from kombu import Queue

from pytest_manifest.broker.transports import Transport
from pytest_manifest.errors import DispatchError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.schema.models import Entry

Options = dict[str, object]
Destination = tuple[str, str]
"""Name of an exchange, and routing key."""

# What the message itself is made of; the rest of the options go to the transport.
MESSAGE_OPTIONS: Final = frozenset({"time_limit", "soft_time_limit", "expires", "ignore_result"})

OF_TASKS: Final = (
    *("queue", "routing_key", "exchange", "priority", "expires", "serializer", "delivery_mode"),
    *("compression", "time_limit", "soft_time_limit", "immediate", "mandatory"),
)
"""Options of a message that a task may have; a test holds them against Celery's own list."""


class AppRouting:
    """The app's routes, queues and its tasks' own options, below what the entry says itself.

    ``tasks``: the tasks whose options count, by name.
    """

    def __init__(self, app: Celery, tasks: Mapping[str, Task]) -> None:
        self._app = app
        self._tasks = tasks
        self._router = app.amqp.router
        # Tables look at the task's name only; functions may look at the arguments.
        self._by_name = all(isinstance(route, MapRoute) for route in app.amqp.routes)
        self._cache: dict[tuple[str, str | None], Options] = {}

    def __call__(self, entry: Entry) -> Options:
        """Give a fresh dict of options for ``entry``.

        Raises:
            DispatchError: the queue is unknown and the app does not create missing ones.
        """
        if not self._by_name:
            return self._with_priority(entry, self._route(entry))
        key = (entry.task, entry.queue)
        options = self._cache.get(key)
        if options is None:
            options = self._cache[key] = self._route(entry)
        return self._with_priority(entry, options)

    def _with_priority(self, entry: Entry, options: Options) -> Options:
        if entry.priority is None:
            return dict(options)
        return {**options, "priority": entry.priority}

    def _route(self, entry: Entry) -> Options:
        task = self._tasks.get(entry.task)
        # @app.task(queue=..., priority=...): as with .delay(), these win over a route, and a
        # function among the routes sees them, what the task does not say included.
        options: Options = {}
        if task is not None:
            options = {name: getattr(task, name, None) for name in OF_TASKS}
        own = {name: options.pop(name) for name in MESSAGE_OPTIONS & options.keys()}
        # One route is for all entries of a task where no function looks at them.
        priority = None if self._by_name else entry.priority
        options |= _given({"queue": entry.queue, "priority": priority})
        try:
            routed = self._router.route(options, entry.task, entry.args, entry.kwargs, task)
        except QueueNotFound as error:
            known = ", ".join(sorted(self._app.amqp.queues)) or "none"
            raise DispatchError(
                f"entry {entry.id!r} goes to a queue that the app does not have ({error}); its "
                f"task_queues are: {known}"
            ) from error
        if self._app.conf.task_default_priority is not None:
            # Registered tasks have it from their class; send_task forgets it for others.
            routed.setdefault("priority", self._app.conf.task_default_priority)
        return _given(routed) | _given(own)


def _given(options: Options) -> Options:
    return {name: value for name, value in options.items() if value is not None}


def queue_of(options: Options) -> Queue | None:
    """Give the queue in ``options``; None where a route names only an exchange."""
    queue = options.get("queue")
    return queue if isinstance(queue, Queue) else None


def queue_name(options: Options) -> str | None:
    """Name the queue in ``options``; None where a route names only an exchange."""
    queue = queue_of(options)
    return None if queue is None else str(queue.name)


def destination_of(options: Options) -> Destination:
    """Give a message's exchange and routing key, as Celery makes them of its options."""
    queue = queue_of(options)
    name, key = _name(options.get("exchange")), str(options.get("routing_key") or "")
    if queue is None or queue.exchange is None:
        return name, key
    kind = options.get("exchange_type") or queue.exchange.type
    if kind == "direct" and not (name and key):
        return "", str(queue.name)
    return name or _name(queue.exchange), key or str(queue.routing_key or "")


def _name(exchange: object) -> str:
    return str(getattr(exchange, "name", exchange) or "")


def unverified_destination(options: Options) -> Destination | None:
    """Give the destination where no queue may be bound, though the message's own is declared:
    by topics, or where a route names an exchange."""
    queue = options.get("queue")
    if "exchange" not in options and isinstance(queue, Queue) and queue.exchange.type == "direct":
        return None  # nearly always
    exchange = None if queue is None else getattr(queue, "exchange", None)
    if (options.get("exchange_type") or getattr(exchange, "type", "direct")) == "fanout":
        return None  # goes to all that listen, if any
    target = destination_of(options)
    return target if target[0] else None


AMQP_REFUSALS: Final = frozenset({"403", "404", "405", "406"})
"""Access refused, no such exchange, locked by another connection, declared otherwise."""
REDIS_REFUSALS: Final = ("WRONGTYPE", "NOPERM", "No permission")
PIDBOX: Final = "pidbox"


def refusal(error: BaseException) -> str | None:
    """Say in a phrase why the broker refuses this queue; None for any other error."""
    code = str(getattr(error, "reply_code", "") or "")
    text = str(error)
    if code in AMQP_REFUSALS or any(word in text for word in REDIS_REFUSALS):
        return f"the broker refuses it: {redact(text)}"
    return None


def reserved(name: str, app: Celery, transport: Transport) -> str | None:
    """Say in a phrase why no job may go to a queue of this name; None where one may.

    Some of these names would be accepted, and a job there would stop workers or disturb what is
    said to them.
    """
    conf = app.conf
    mailboxes = f"{conf.control_exchange or 'celery'}.{PIDBOX}"
    if name == mailboxes or name.endswith(f".{mailboxes}"):
        return "that is a mailbox by which workers are controlled"
    events = conf.event_queue_prefix or "celeryev"
    if name == events or name.startswith(f"{events}."):
        return "that is where workers report events"
    return transport.reserved(name, conf.broker_transport_options or {})
