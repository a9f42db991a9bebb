"""Call the workers of a stack, and cast orders to them, by Celery's remote control messages.

Celery's ``app.control`` speaks to the broker that the app is configured with, asks one question
at a time, and waits its whole time-out for each unless it is told how many will answer. Here the
questions go out together, to the broker of the address, and waiting ends when enough is known.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from celery import Celery
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.transport import virtual

from pytest_manifest.broker.client import connect
from pytest_manifest.broker.routing import refusal
from pytest_manifest.broker.transports import NOT_FOUND, transport_of
from pytest_manifest.compat.kombu import publish_command, sever
from pytest_manifest.urls import StackAddress

if TYPE_CHECKING:
    from kombu import Connection, Queue
    from kombu.pidbox import Mailbox
    from kombu.transport.base import StdChannel as Channel

Arguments = Mapping[str, object]
# What each node said: method -> node name -> its reply.
Answers = dict[str, dict[str, object]]

FIRST_POLL: Final = 0.001  # s
LAST_POLL: Final = 0.02  # s
REVOKE_CHUNK: Final = 1000  # ids a message
FORMATS: Final = ("json", "yaml", "msgpack", "pickle")
"""Those that Celery's ``accept_content`` may name without more ado."""


class Control:
    """Remote control over a connection of its own, opened when first used.

    For one thread at a time. Nothing is tried twice: a method raises what the transport raises,
    and the next call connects anew.
    """

    def __init__(self, app: Celery, address: StackAddress) -> None:
        self._app = app
        self._address = address
        self._transport = transport_of(address.broker_url)
        self._connection: Connection | None = None

    def call(
        self,
        questions: Mapping[str, Arguments],
        *,
        timeout: float,
        enough: Callable[[Answers, float], bool],
    ) -> Answers:
        """Put questions to every worker and collect the replies, for ``timeout`` s at most.

        ``enough`` is called with the answers so far and the seconds since the last one came; the
        first true answer ends the waiting. The seconds are infinite once every worker that the
        broker knows of has answered every question: no more answers will come. None answers where
        remote control is not supported.
        """
        with self._asking() as asking:
            if asking is None:
                return {method: {} for method in questions}
            mailbox, channel, replies = asking
            tickets = {str(uuid4()): method for method in questions}
            for ticket, method in tickets.items():
                publish_command(mailbox, channel, method, questions[method], ticket)
            listeners = _listeners(channel, mailbox.exchange.name)
            return self._collect(replies, tickets, timeout, _until_all_answered(listeners, enough))

    @contextmanager
    def _asking(self) -> Iterator[tuple[Mailbox, Channel, Queue] | None]:
        """Lend what a question needs, with a queue for its replies; None where nobody hears it."""
        with self._lend() as (connection, channel):
            if not _is_supported(connection):
                yield None
                return
            mailbox: Mailbox = self._app.control.mailbox(connection)
            replies: Queue = mailbox.get_reply_queue()(channel)
            replies.declare()
            try:
                yield mailbox, channel, replies
            finally:
                # Left alone it would stay for control_queue_expires seconds, with its binding.
                with suppress(Exception):
                    replies.delete()

    def count_by_format(self, *, timeout: float) -> dict[str, int]:
        """Ping every worker in each format, the app's own first; count answers for ``timeout`` s.

        What they say is not read: it may be in any format, too. A worker that cannot decode one of
        the questions logs that. A format that is not installed here is left out.
        """
        with self._asking() as asking:
            if asking is None:
                return {}
            mailbox, channel, replies = asking
            tickets: dict[str, str] = {}
            for name in dict.fromkeys((mailbox.serializer, *FORMATS)):
                ticket = str(uuid4())
                with suppress(EncodeError, SerializerNotInstalled):
                    publish_command(mailbox, channel, "ping", {}, ticket, name)
                    tickets[ticket] = name
            return _count(replies, tickets, timeout)

    @property
    def format(self) -> str:
        """Return the format of all other questions: the app's own."""
        return str(self._app.control.mailbox.serializer)

    def is_supported(self) -> bool:
        """Tell whether this broker carries remote control at all; not all transports do."""
        with self._lend() as (connection, _):
            return _is_supported(connection)

    def cast(self, method: str, arguments: Arguments) -> None:
        """Give every worker an order, without waiting for a reply; none where none can get it."""
        with self._lend() as (connection, channel):
            if not _is_supported(connection):
                return
            mailbox: Mailbox = self._app.control.mailbox(connection)
            publish_command(mailbox, channel, method, arguments)

    def revoke(self, task_ids: Iterable[str], *, terminate: bool) -> None:
        """Tell every worker not to run these tasks; ``terminate`` also ends running ones."""
        ids = list(task_ids)
        for start in range(0, len(ids), REVOKE_CHUNK):
            self.cast(
                "revoke",
                {
                    "task_id": ids[start : start + REVOKE_CHUNK],
                    "terminate": terminate,
                    "signal": "SIGTERM",
                },
            )

    def queue_lengths(self, names: Iterable[str]) -> dict[str, int]:
        """Count the messages that wait in each queue; 0 where the broker has no such queue."""
        lengths: dict[str, int] = {}
        for name in names:
            # A channel each: RabbitMQ closes it when the queue is not there. On Redis passive
            # declaring finds nothing under a global_keyprefix, and declaring creates nothing.
            with self._lend() as (_, channel):
                lengths[name] = _length(channel, name, passive=self._transport.passive)
        return lengths

    def listeners(self) -> set[str]:
        """List the nodes that a question reaches, killed ones included; none where the broker
        does not tell."""
        with self._lend() as (connection, channel):
            if not _is_supported(connection):
                return set()
            mailbox: Mailbox = self._app.control.mailbox(connection)
            return _listeners(channel, mailbox.exchange.name)

    def count_connected(self) -> int | None:
        """Count the connections on which nodes listen for questions, now; None where the broker
        does not know. One that has ended is not among them; one that is busy or frozen is."""
        if not self._transport.knows_listeners:
            return None
        with self._lend() as (connection, channel):
            mailbox: Mailbox = self._app.control.mailbox(connection)
            return self._transport.connected(channel, mailbox.exchange.name)

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # A connection that is gone already is as closed.
                connection.release()

    def sever(self) -> None:
        """Cut the connection; whoever waits on it, in whatever thread, stops waiting."""
        sever(self._connection)

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """Lend a new channel, for what remote control has no words for."""
        with self._lend() as (_, channel):
            yield channel

    @contextmanager
    def _lend(self) -> Iterator[tuple[Connection, Channel]]:
        """Lend the connection with a new channel; forget both when something goes wrong."""
        if self._connection is None:
            self._connection = connect(self._app, self._address)
        connection = self._connection
        try:
            channel = connection.channel()
            yield connection, channel
        except BaseException:
            self._connection = None
            sever(connection)
            with suppress(Exception):  # what is cut cannot say good-bye
                connection.collect(socket_timeout=1)
            raise
        with suppress(Exception):
            channel.close()

    def _collect(
        self,
        replies: Queue,
        tickets: Mapping[str, str],
        timeout: float,
        enough: Callable[[Answers, float], bool],
    ) -> Answers:
        answers: Answers = {method: {} for method in tickets.values()}
        accept = self._app.control.mailbox.accept
        last = time.monotonic()
        deadline = last + timeout
        pause = FIRST_POLL
        while True:
            # Fetched one by one: a Redis consumer would have to wait out its BRPOP to go away.
            message = replies.get(no_ack=True, accept=accept)
            now = time.monotonic()
            if message is not None:
                method = tickets.get(message.headers.get("ticket"))
                if method is not None:
                    answers[method].update(message.payload)
                    last, pause = now, FIRST_POLL
            if enough(answers, now - last) or now >= deadline:
                return answers
            if message is None:
                time.sleep(pause)
                pause = min(pause * 2, LAST_POLL)


def _count(replies: Queue, tickets: Mapping[str, str], timeout: float) -> dict[str, int]:
    """Count the replies by what ``tickets`` has of them, and read none."""
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        message = replies.get(no_ack=True)
        if message is None:
            time.sleep(LAST_POLL)
        elif (name := tickets.get(message.headers.get("ticket"))) is not None:
            counts[name] += 1
    return dict(counts)


def _is_supported(connection: Connection) -> bool:
    """Tell it as Celery's workers do, which listen only where every one gets a message."""
    return bool(connection.supports_exchange_type("fanout"))


def _listeners(channel: Channel, exchange: str) -> set[str]:
    """List the nodes that a question reaches; none where the broker does not tell.

    A node that has died may still be among them, for a while.
    """
    if not isinstance(channel, virtual.Channel):
        return set()
    suffix = f".{exchange}"  # kombu's mailboxes are called NODE.EXCHANGE
    with suppress(KeyError):  # in-memory tables: no node has ever listened
        queues = [queue for _, _, queue in channel.get_table(exchange)]
        return {queue.removesuffix(suffix) for queue in queues if queue.endswith(suffix)}
    return set()


def _until_all_answered(
    listeners: set[str], enough: Callable[[Answers, float], bool]
) -> Callable[[Answers, float], bool]:
    """Wrap ``enough``: pass infinite quiet once every listener has answered everything."""

    def enough_or_all(answers: Answers, quiet: float) -> bool:
        nodes = by_node(answers)
        everybody = bool(listeners) and all(
            len(nodes.get(node, ())) == len(answers) for node in listeners
        )
        return enough(answers, math.inf if everybody else quiet)

    return enough_or_all


def _length(channel: Channel, name: str, *, passive: bool) -> int:
    try:
        return int(channel.queue_declare(queue=name, passive=passive).message_count)
    except Exception as error:
        # What the broker will not have as a queue has no message of ours in it.
        if str(getattr(error, "reply_code", "")) == NOT_FOUND or refusal(error) is not None:
            return 0
        raise


def by_node(answers: Answers) -> dict[str, set[str]]:
    """Turn answers around: node name -> the questions that it has answered."""
    nodes: dict[str, set[str]] = defaultdict(set)
    for method, replies in answers.items():
        for node in replies:
            nodes[node].add(method)
    return dict(nodes)
