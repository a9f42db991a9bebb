"""Private parts of kombu, and of py-amqp below it.

kombu is imported where it is needed. It has no types, so what is handed to it is ``Any``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeAlias

Channel: TypeAlias = Any
"""A channel of any transport: kombu documents no class that all of them have in common."""


def sever(connection: Any) -> None:
    """Cut a broker's connection without a word, so that whoever waits on it stops waiting.

    kombu and py-amqp have no way to do that: their good-bye waits for an answer. What is not
    connected stays so: a pool that is cut connects nobody anew.
    Relies on py-amqp's ``Connection.transport.sock``, and on ``channels`` of kombu's connections,
    which have a ``pool`` of redis-py's with Redis (kombu 5.7, py-amqp 5.3).
    Test: ``test_compat_kombu.py::test_to_sever_ends_the_wait_of_the_other_thread``.
    """
    # Asked first: what is not connected would connect anew.
    established = None
    if connection is not None and connection.connected:
        established = connection.connection
    sock = getattr(getattr(established, "transport", None), "sock", None)
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    for channel in list(getattr(established, "channels", None) or ()):
        with suppress(Exception):  # not every transport's channels have one
            channel.pool.get_connection = _refuse
            channel.pool.disconnect()


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionError("this connection was given up")


def on_event(channel: Any, name: str, call: Callable[..., object]) -> None:
    """Have ``call`` called when RabbitMQ sends a message back, or confirms or refuses some.

    ``name``: ``basic_return``, ``basic_ack`` or ``basic_nack``.
    Relies on ``Channel.events`` (py-amqp 5.3).
    Test: ``test_compat_kombu.py::test_a_channel_tells_of_what_the_broker_confirms``.
    """
    channel.events[name].add(call)


def publish_command(
    mailbox: Any,
    channel: Any,
    method: str,
    arguments: Mapping[str, object],
    ticket: str = "",
    serializer: str = "",
    to: Sequence[str] | None = None,
) -> None:
    """Publish a remote-control command over this channel and no other.

    ``ticket``: what replies are to be marked with; without one there are none. ``serializer``: the
    mailbox's own where it is "". ``to``: names of workers; without them it is for all.
    Relies on the form of the message that ``Mailbox._publish`` sends (kombu 5.7).
    Test: ``test_compat_kombu.py::test_a_command_is_as_kombu_sends_it``.
    """
    from kombu import Producer

    message: dict[str, object] = {
        "method": method,
        "arguments": dict(arguments),
        "destination": to,
        "pattern": None,
        "matcher": None,
    }
    if ticket:
        message["ticket"] = ticket
        message["reply_to"] = {
            "exchange": mailbox.reply_exchange.name,
            "routing_key": mailbox.oid,
        }
    Producer(channel, auto_declare=False).publish(
        message,
        exchange=mailbox.exchange.name,
        declare=[mailbox.exchange],
        headers={"clock": mailbox.clock.forward(), "expires": 0},
        serializer=serializer or mailbox.serializer,
    )


def format_of_questions(mailbox: Any) -> str:
    """Return the name of the format in which a mailbox sends its questions.

    Relies on ``Mailbox.serializer`` (kombu 5.7).
    Test: ``test_compat_kombu.py::test_a_mailbox_says_which_formats_it_speaks``.
    """
    return str(mailbox.serializer)


def formats_of_answers(mailbox: Any) -> Container[str] | None:
    """Return the names and MIME types of the formats that a mailbox reads; None: all safe ones.

    Relies on ``Mailbox.accept`` (kombu 5.7).
    Test: ``test_compat_kombu.py::test_a_mailbox_says_which_formats_it_speaks``.
    """
    accepted: Container[str] | None = mailbox.accept
    return accepted


def bound_queues(channel: Any, exchange: str) -> list[str]:
    """Return the names of the queues that are bound to an exchange; none where a server has them.

    Relies on ``virtual.Channel.get_table`` (kombu 5.7), which raises KeyError in memory, where
    nothing was ever bound.
    Test: ``test_compat_kombu.py::test_what_is_bound_to_an_exchange_is_known``.
    """
    from kombu.transport import virtual

    with suppress(KeyError):
        if isinstance(channel, virtual.Channel):
            return [queue for _, _, queue in channel.get_table(exchange)]
    return []


def is_bound(channel: Any, exchange: str, routing_key: str) -> bool | None:
    """Return whether a queue is bound to where a message goes; None where a server knows it.

    Relies on ``virtual.Channel.get_table`` and ``typeof``, whose ``lookup`` finds it (kombu 5.7).
    Test: ``test_compat_kombu.py::test_what_is_bound_to_an_exchange_is_known``.
    """
    from kombu.transport import virtual

    if not isinstance(channel, virtual.Channel):
        return None
    table = channel.get_table(exchange)
    return bool(channel.typeof(exchange).lookup(table, exchange, routing_key, None))


@contextmanager
def empty_memory() -> Iterator[None]:
    """Give this process an empty in-memory broker, and restore the previous one afterwards.

    Kombu keeps one broker for the whole process, in attributes of two classes. So no message that
    other code left there is run, and none of the stack's is left there.
    Relies on ``memory.Channel.queues`` and the tables of ``memory.Transport.global_state`` (kombu
    5.7).
    Test: ``test_compat_kombu.py::test_a_broker_in_memory_is_empty_for_a_while``.
    """
    from unittest.mock import patch

    from kombu.transport import memory

    state = memory.Transport.global_state
    tables: list[Any] = [memory.Channel.queues, state.exchanges, state.bindings, state.queue_index]
    with ExitStack() as parts:
        for table in tables:
            parts.enter_context(patch.dict(table, clear=True))
        yield


def queued_headers() -> Iterator[object]:
    """Yield the headers of all messages that wait in this process's in-memory broker.

    Relies on ``memory.Channel.queues`` (kombu 5.7).
    Test: ``test_compat_kombu.py::test_a_broker_in_memory_is_empty_for_a_while``.
    """
    from kombu.transport.memory import Channel

    for queue in list(Channel.queues.values()):
        for message in list(queue.queue):
            yield message.get("headers") if isinstance(message, dict) else None


def restore_unacked(channel: Any, tag: str, client: Any) -> None:
    """Put a message that a worker had taken back into its queue, in one transaction of ``client``.

    Relies on ``QoS.restore_by_tag`` calling ``client.transaction`` once, for the ``unacked`` hash
    (kombu 5.7).
    Test: ``test_compat_kombu.py::test_a_message_is_put_back_in_one_transaction``.
    """
    channel.qos.restore_by_tag(tag, client=client)


def delaying_queues() -> tuple[str, ...]:
    """Return the names of the queues in which RabbitMQ delays messages, with quorum queues.

    Relies on ``kombu.transport.native_delayed_delivery.MAX_LEVEL`` (kombu 5.7); before 5.5 there is
    no such module, and no such queue.
    Test: ``test_compat_kombu.py::test_messages_are_delayed_in_these_queues``.
    """
    try:
        from kombu.transport.native_delayed_delivery import MAX_LEVEL, level_name
    except ImportError:
        return ()
    return tuple(level_name(level) for level in range(MAX_LEVEL + 1))
