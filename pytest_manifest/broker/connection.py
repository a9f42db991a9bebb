"""Publish over one connection to a broker, and confirm what the broker has taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from celery import Celery
from kombu import Producer, Queue
from kombu.common import Broadcast

from pytest_manifest.broker import bounded
from pytest_manifest.broker.client import connect, reply_queue_name
from pytest_manifest.broker.message_spans import publishing
from pytest_manifest.broker.messages import Outgoing
from pytest_manifest.broker.routing import Destination, queue_of, refusal, unverified_destination
from pytest_manifest.compat.kombu import is_bound, on_event, sever
from pytest_manifest.compat.older import published_together
from pytest_manifest.errors import DispatchError
from pytest_manifest.urls import StackAddress

if TYPE_CHECKING:
    from kombu import Connection

CONFIRM_TIMEOUT: Final = 30.0  # s
REPLY_QUEUE_EXPIRES: Final = 3600.0  # s without a reader, after which the broker drops the queue
# Commands that kombu keeps before it sends them by itself; a queue that expires takes five for
# one message, and a chunk must not leave in two pieces.
BATCH_LIMIT: Final = 100_000


class Confirms:
    """Wait until the broker has taken responsibility for what was published.

    Here for nothing: a transport's batch has returned only when the broker has answered.
    """

    def publishing(self) -> None:
        """Count one more message that is handed to the transport."""

    def wait(self) -> list[str]:
        """Return the task ids that the broker sent back as unroutable.

        Raises:
            Exception: the broker refused a message, or did not confirm them all in time.
        """
        return []


class RedisConfirms(Confirms):
    """Ask the server after each batch, which it has answered before it wrote it down.

    Where its disk was full then, it will not have anything from that moment on, not even a PING.
    """

    def __init__(self, channel: object) -> None:
        self._channel = channel

    def wait(self) -> list[str]:
        """Have the server answer once more."""
        with self._channel.conn_or_acquire() as client:  # type: ignore[attr-defined]  # kombu's
            client.ping()
        return []


class AmqpConfirms(Confirms):
    """RabbitMQ's publisher confirms, waited for once a chunk instead of once a message."""

    def __init__(self, channel: object, drain: Callable[[float], None]) -> None:
        self._drain = drain
        self._next = 1
        self._open: set[int] = set()
        self._refused = 0
        self._returned: list[str] = []
        on_event(channel, "basic_return", self._on_return)
        on_event(channel, "basic_ack", self._confirm)
        on_event(channel, "basic_nack", self._on_nack)
        channel.confirm_select()  # type: ignore[attr-defined]  # amqp.Channel, which is untyped

    def publishing(self) -> None:
        """Expect one more confirmation; delivery tags count from 1 in a channel."""
        self._open.add(self._next)
        self._next += 1

    def wait(self) -> list[str]:
        """Read from the connection until every message is confirmed, or refused."""
        deadline = time.monotonic() + CONFIRM_TIMEOUT
        while self._open:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the broker did not confirm within {CONFIRM_TIMEOUT:.0f} s")
            self._drain(left)
        if self._refused:
            raise DispatchError(f"the broker refused {self._refused} messages")
        returned, self._returned = self._returned, []
        return returned

    def _on_return(
        self, _error: Exception, _exchange: str, _routing_key: str, message: object
    ) -> None:
        properties = message.properties  # type: ignore[attr-defined]  # amqp.Message, untyped
        self._returned.append(str(properties.get("correlation_id")))

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused += self._confirm(tag, multiple)

    def _confirm(self, tag: int, multiple: bool) -> int:
        settled = {one for one in self._open if one <= tag} if multiple else {tag}
        self._open -= settled
        return len(settled)


class PublishConnection:
    """An open connection for publishing; of no use any more once a method has raised."""

    def __init__(self, app: Celery, address: StackAddress) -> None:
        self._connection: Connection = connect(app, address)
        try:
            self._send: Callable[..., None] = app.amqp.send_task_message
            self._open_channel()
            self._unbound: set[Destination] = set()
        except BaseException:
            self.drop()
            raise

    def prepare(
        self, outgoing: Iterable[Outgoing], reply_prefixes: Iterable[str]
    ) -> dict[str, str]:
        """Declare the queues of a batch, and the reply queues of runs.

        That is a round trip, so it proves the link as well. Returns the queues that the broker
        will not have, with a phrase that says why; what goes there must not be sent.
        """
        queues: dict[str, Queue] = {}
        targets: set[Destination] = set()
        for one in outgoing:
            queue = queue_of(one.options)
            if queue is not None:
                queues[queue.name] = queue
            target = unverified_destination(one.options)
            if target is not None:
                targets.add(target)
        refused = self.declare(queues.values())
        for prefix in reply_prefixes:
            reply_queue(prefix)(self._channel).declare()
        self._unbound = {target for target in targets if not self._is_bound(target)}
        return refused

    def declare(self, queues: Iterable[Queue]) -> dict[str, str]:
        """Declare these queues; returns those that are refused, with a phrase that says why.

        Raises:
            Exception: the broker is out of reach.
        """
        refused: dict[str, str] = {}
        for queue in queues:
            if isinstance(queue, Broadcast):
                continue
            try:
                queue(self._channel).declare()
            except Exception as error:
                phrase = refusal(error)
                if phrase is None:
                    raise
                refused[queue.name] = phrase
                self._open_channel()  # RabbitMQ has closed the other one
        return refused

    def send(self, chunk: Sequence[Outgoing]) -> list[str]:
        """Publish a chunk of what was prepared.

        On return the broker has every message but those whose task ids come back, because no
        queue is bound where they go.

        Raises:
            Exception: any of the chunk may have been delivered, or not.
        """
        unroutable = []
        with published_together(self._producer, BATCH_LIMIT):
            for one in chunk:
                if self._unbound and unverified_destination(one.options) in self._unbound:
                    unroutable.append(one.attempt.task_id)
                    continue
                # A route or task may say how its messages are sent; what we rely on comes last.
                options = {**one.options, **self._flags, "declare": [], "retry": False}
                self._confirms.publishing()  # before: a channel may wait after each message
                with publishing(options):
                    self._send(self._producer, one.attempt.entry.task, one.message, **options)
            bounded.refuse_if_abandoned()  # else what was only gathered here would leave yet
        return unroutable + self._confirms.wait()

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._connection.release()

    def drop(self) -> None:
        """Let go of a broken connection without waiting for the other side."""
        self.sever()
        with suppress(Exception):  # what is cut cannot say good-bye
            self._connection.collect(socket_timeout=1)

    def sever(self) -> None:
        """Cut the connection; whoever waits on it, in whatever thread, stops waiting."""
        sever(self._connection)

    def _is_bound(self, target: Destination) -> bool:
        # kombu's own exchanges (on Redis) silently drop what matches no binding;
        # RabbitMQ sends it back, as it is asked to, but where there is no such exchange.
        known = is_bound(self._channel, *target)
        if known is not None:
            return known
        try:
            self._channel.exchange_declare(target[0], "direct", passive=True)
        except Exception as error:
            if refusal(error) is None:
                raise
            self._open_channel()  # RabbitMQ has closed the other one
            return False
        return True

    def _open_channel(self) -> None:
        channel = self._channel = self._connection.channel()
        self._producer = Producer(channel, auto_declare=False)
        self._confirms, self._flags = Confirms(), dict[str, object]()
        if hasattr(channel, "conn_or_acquire"):
            self._confirms = RedisConfirms(channel)
        elif hasattr(channel, "confirm_select"):
            # Without it RabbitMQ drops, in silence, what no queue is bound for.
            self._flags = {"mandatory": True}
            drain = self._connection.drain_events
            self._confirms = AmqpConfirms(channel, lambda left: drain(timeout=left))


def reply_queue(prefix: str) -> Queue:
    """Describe the queue that ``rpc://`` results of the run with this RUN8 come back on."""
    return Queue(
        reply_queue_name(prefix),
        exchange="",
        routing_key=reply_queue_name(prefix),
        durable=False,
        auto_delete=False,
        expires=REPLY_QUEUE_EXPIRES,
    )
