"""Call the workers of a stack, and cast orders to them, by Celery's remote control messages.

Celery's ``app.control`` speaks to the broker that the app is configured with, asks one question
at a time, and waits its whole time-out for each unless it is told how many will answer. Here the
questions go out together, to the broker of the address, and waiting ends when enough is known.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from celery import Celery
from kombu.exceptions import EncodeError, SerializerNotInstalled

from pytest_manifest.broker.client import connect
from pytest_manifest.broker.routing import refusal
from pytest_manifest.broker.transports import NOT_FOUND, transport_of
from pytest_manifest.compat.celery import mailbox_of
from pytest_manifest.compat.kombu import (
    Channel,
    bound_queues,
    format_of_questions,
    formats_of_answers,
    publish_command,
    sever,
)
from pytest_manifest.urls import StackAddress

if TYPE_CHECKING:
    from kombu import Connection, Queue
    from kombu.pidbox import Mailbox

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
        self._twice: set[str] = set()
        """Nodes of which several have answered one question."""

    def call(
        self,
        questions: Mapping[str, Arguments],
        *,
        timeout: float,
        enough: Callable[[Answers, float], bool],
        to: Sequence[str] | None = None,
    ) -> Answers:
        """Put questions to every worker and collect the replies, for ``timeout`` s at most.

        ``to``: the workers that are asked, and no others.

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
                publish_command(mailbox, channel, method, questions[method], ticket, to=to)
            enough = _until_all_answered(_nodes(mailbox, channel), enough)
            accepted = formats_of_answers(mailbox)
            return _collect(replies, tickets, timeout, enough, accepted, twice=self._twice)

    @contextmanager
    def _mailbox(self) -> Iterator[tuple[Mailbox | None, Channel]]:
        """Lend the mailbox of all workers, and a channel; None where nobody listens to one.

        That is told as Celery's workers do, which listen only where every one gets a message.
        """
        with self.channel() as channel:
            connection = self._connection
            assert connection is not None
            is_heard = connection.supports_exchange_type("fanout")
            yield mailbox_of(self._app)(connection) if is_heard else None, channel

    @contextmanager
    def _asking(self) -> Iterator[tuple[Mailbox, Channel, Queue] | None]:
        """Lend what a question needs, with a queue for its replies; None where nobody hears it."""
        with self._mailbox() as (mailbox, channel):
            if mailbox is None:
                yield None
                return
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
            for name in dict.fromkeys((self.format, *FORMATS)):
                ticket = str(uuid4())
                with suppress(EncodeError, SerializerNotInstalled):
                    publish_command(mailbox, channel, "ping", {}, ticket, name)
                    tickets[ticket] = name
            said = _collect(replies, tickets, timeout, lambda *_: False, is_read=False)
            return {name: len(answers) for name, answers in said.items() if answers}

    @property
    def format(self) -> str:
        """Return the format of all other questions: the app's own."""
        return format_of_questions(mailbox_of(self._app))

    def is_supported(self) -> bool:
        """Tell whether this broker carries remote control at all; not all transports do."""
        with self._mailbox() as (mailbox, _):
            return mailbox is not None

    def cast(self, method: str, arguments: Arguments) -> None:
        """Give every worker an order, without waiting for a reply; none where none can get it."""
        with self._mailbox() as (mailbox, channel):
            if mailbox is not None:
                publish_command(mailbox, channel, method, arguments)

    def revoke(self, task_ids: Iterable[str], *, terminate: bool) -> None:
        """Tell every worker not to run these tasks; ``terminate`` also ends running ones."""
        ids = list(task_ids)
        how = {"terminate": terminate, "signal": "SIGTERM"}
        for start in range(0, len(ids), REVOKE_CHUNK):
            self.cast("revoke", {"task_id": ids[start : start + REVOKE_CHUNK], **how})

    def count(self, name: str) -> tuple[int, int] | None:
        """Count a queue's messages that wait, and its consumers; None where there is no queue."""
        # A channel each: RabbitMQ closes it when the queue is not there. On Redis passive
        # declaring finds nothing under a global_keyprefix, and declaring creates nothing.
        with self.channel() as channel:
            try:
                said = channel.queue_declare(queue=name, passive=self._transport.passive)
            except Exception as error:
                # What the broker will not have as a queue has no message of ours in it.
                if str(getattr(error, "reply_code", "")) == NOT_FOUND or refusal(error) is not None:
                    return None
                raise
            return int(said.message_count), int(said.consumer_count)

    def listeners(self) -> set[str]:
        """List the nodes that a question reaches, killed ones included; none where the broker
        does not tell."""
        with self._mailbox() as (mailbox, channel):
            return set() if mailbox is None else _nodes(mailbox, channel)

    def count_connected(self) -> int | None:
        """Count the connections on which nodes listen for questions, now; None where the broker
        does not know. One that has ended is not among them; one that is busy or frozen is."""
        if not self._transport.knows_listeners:
            return None
        with self._mailbox() as (mailbox, channel):
            assert mailbox is not None
            return self._transport.connected(channel, mailbox.exchange.name)

    def namesakes(self, nodes: Collection[str]) -> list[str]:
        """List the nodes of which two at least have the same name; none where all differ.

        RabbitMQ lets no second one of a name start; of other brokers nothing is known. Who was
        killed has its name among those that are known, and is not connected.
        """
        if not self._transport.knows_listeners or self._twice:
            return sorted(self._twice)
        known = self.listeners() | set(nodes)
        return sorted(known) if (self.count_connected() or 0) > len(known) else []

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
        """Lend a new channel of the connection; forget both when something goes wrong."""
        connection = self._connection = self._connection or connect(self._app, self._address)
        try:
            channel = connection.channel()
            yield channel
        except BaseException:
            self._connection = None
            sever(connection)
            with suppress(Exception):  # what is cut cannot say good-bye
                connection.collect(socket_timeout=1)
            raise
        with suppress(Exception):
            channel.close()


def _collect(
    replies: Queue,
    tickets: Mapping[str, str],
    timeout: float,
    enough: Callable[[Answers, float], bool],
    accepted: Container[str] | None = None,
    *,
    is_read: bool = True,
    twice: set[str] | None = None,
) -> Answers:
    """Collect replies by what ``tickets`` has of them, or only count them where none is read.

    Adds the nodes that have answered one question more than once to ``twice``.
    """
    answers: Answers = {method: {} for method in tickets.values()}
    last = time.monotonic()
    deadline, pause = last + timeout, FIRST_POLL
    while True:
        # Fetched one by one: a Redis consumer would have to wait out its BRPOP to go away.
        message = replies.get(no_ack=True, accept=accepted)
        now = time.monotonic()
        if message is not None and (method := tickets.get(message.headers.get("ticket"))):
            unread = {str(len(answers[method])): None}
            said = message.payload if is_read else unread
            if twice is not None:
                twice |= said.keys() & answers[method].keys()
            answers[method].update(said)
            last, pause = now, FIRST_POLL
        if enough(answers, now - last) or now >= deadline:
            return answers
        if message is None:
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL)


def _nodes(mailbox: Mailbox, channel: Channel) -> set[str]:
    """List the nodes that a question reaches; none where the broker does not tell.

    A node that has died may still be among them, for a while.
    """
    suffix = f".{mailbox.exchange.name}"  # kombu's mailboxes are called NODE.EXCHANGE
    queues = bound_queues(channel, mailbox.exchange.name)
    return {queue.removesuffix(suffix) for queue in queues if queue.endswith(suffix)}


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


def by_node(answers: Answers, kind: type = object) -> dict[str, set[str]]:
    """Turn answers around: node name -> the questions that it has answered by this kind."""
    nodes: dict[str, set[str]] = defaultdict(set)
    for method, replies in answers.items():
        for node, reply in replies.items():
            nodes[node] |= {method} if isinstance(reply, kind) else set()
    return dict(nodes)
