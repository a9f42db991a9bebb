"""What is relied on of kombu's and py-amqp's private parts: each fails where they have changed."""

from __future__ import annotations

import importlib
import importlib.util
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from amqp import Channel
from celery import Celery
from kombu import Connection, Exchange, Producer, Queue
from kombu.pidbox import Mailbox
from kombu.transport.redis import QoS
from redis import ConnectionPool

from pytest_manifest.compat import kombu as compat
from pytest_manifest.compat.celery import mailbox_of
from pytest_manifest.compat.kombu import sever

FOR_EVER = 600.0


def test_to_sever_ends_the_wait_of_the_other_thread() -> None:
    """Who reads is told that there is no more; to cut it twice, or after its end, does nothing."""
    ours, theirs = socket.socketpair()
    transport = SimpleNamespace(sock=ours)
    connection: Any = SimpleNamespace(
        connected=True, connection=SimpleNamespace(transport=transport)
    )
    with ours, theirs, ThreadPoolExecutor() as pool:
        waits = pool.submit(ours.recv, 1)
        sever(connection)
        assert waits.result(FOR_EVER) == b""
        assert theirs.recv(1) == b""
        sever(connection)
    sever(connection)


def test_what_is_severed_connects_nobody_anew() -> None:
    """A pool of redis-py's that is cut would: whoever goes on with it would send yet."""
    pool = ConnectionPool()
    here = SimpleNamespace(channels=[SimpleNamespace(), SimpleNamespace(pool=pool)])
    connection: Any = SimpleNamespace(connected=True, connection=here)
    sever(connection)
    with pytest.raises(ConnectionError, match="given up"):
        pool.get_connection()


def test_to_sever_what_is_not_connected_connects_nothing() -> None:
    """A connection that is only being made has no socket yet; asked for it, it would connect."""
    asked: list[str] = []

    class Unconnected:
        connected = False

        def __getattr__(self, name: str) -> object:
            asked.append(name)
            raise AttributeError(name)

    unconnected: Any = Unconnected()
    for connection in (None, unconnected):
        sever(connection)
    assert asked == []


def test_a_channel_tells_of_what_the_broker_confirms() -> None:
    """By the methods that it calls for the broker's frames."""
    connection = SimpleNamespace(
        _claim_channel_id=lambda _: None, channels={}, confirm_publish=False
    )
    channel = Channel(connection, channel_id=1)
    told: list[tuple[object, ...]] = []
    for name in ("basic_ack", "basic_nack", "basic_return"):
        compat.on_event(channel, name, lambda *which, name=name: told.append((name, *which)))
    channel._on_basic_ack(3, True)
    channel._on_basic_nack(4, False)
    channel._on_basic_return(312, "NO_ROUTE", "", "queue", "message")
    assert told[:2] == [("basic_ack", 3, True), ("basic_nack", 4, False)]
    assert told[2][0] == "basic_return"
    assert told[2][2:] == ("", "queue", "message")


@pytest.mark.parametrize("ticket", ["", "a ticket"])
@pytest.mark.parametrize("to", [None, ["celery@one"]])
def test_a_command_is_as_kombu_sends_it(
    monkeypatch: pytest.MonkeyPatch, ticket: str, to: list[str] | None
) -> None:
    """Message, exchange and headers; but nothing is tried twice."""
    sent: list[tuple[object, dict[str, Any]]] = []
    monkeypatch.setattr(
        Producer, "publish", lambda _self, body, **options: sent.append((body, options))
    )
    with Connection("memory://") as connection:
        clock = SimpleNamespace(forward=lambda: 7)
        mailbox = Mailbox("app", type="fanout", connection=connection, clock=clock)
        channel = connection.channel()
        mailbox._publish("ping", {"a": 1}, to, reply_ticket=ticket, channel=channel)
        compat.publish_command(mailbox, channel, "ping", {"a": 1}, ticket, to=to)
    theirs, ours = sent
    assert theirs[1].pop("retry") is True
    assert ours == theirs


def test_a_mailbox_says_which_formats_it_speaks() -> None:
    """That of an app's control speaks as the app's settings say, over any connection."""
    app = Celery(set_as_current=False)
    app.conf.update(task_serializer="yaml", accept_content=["json", "yaml"])
    mailbox = mailbox_of(app)
    with Connection("memory://") as connection:
        for one in (mailbox, mailbox(connection)):
            assert compat.format_of_questions(one) == "yaml"
            assert compat.formats_of_answers(one) == ["json", "yaml"]


def test_a_message_is_put_back_in_one_transaction() -> None:
    """Of the client that is given, which may refuse to run it."""
    watched: list[tuple[str, ...]] = []
    restored: list[tuple[object, ...]] = []
    pipe = MagicMock()
    pipe.hget.return_value = b'["message", "exchange", "key"]'

    class Client:
        def transaction(self, act: Callable[[object], object], *keys: str) -> None:
            watched.append(keys)
            act(pipe)

    qos = object.__new__(QoS)
    qos.channel = SimpleNamespace(
        unacked_key="unacked",
        unacked_index_key="index",
        conn_or_acquire=nullcontext,
        _do_restore_message=lambda *message: restored.append(message[:3]),
    )
    compat.restore_unacked(SimpleNamespace(qos=qos), "tag", Client())
    assert watched == [("unacked",)]
    assert restored == [("message", "exchange", "key")]


def test_messages_are_delayed_in_these_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that Celery's worker declares; before kombu 5.4 it knows none."""
    place = "kombu.transport.native_delayed_delivery"
    if importlib.util.find_spec(place) is None:
        assert compat.delaying_queues() == ()
        return
    native_delayed_delivery = importlib.import_module(place)
    declared: list[str] = []

    def declare(name: str, **_: object) -> MagicMock:
        declared.append(name)
        return MagicMock()

    monkeypatch.setattr(native_delayed_delivery, "Queue", declare)
    monkeypatch.setattr(native_delayed_delivery, "Exchange", MagicMock())
    native_delayed_delivery.declare_native_delayed_delivery_exchanges_and_queues(
        MagicMock(), "quorum"
    )
    assert sorted(declared) == sorted(compat.delaying_queues())


def test_what_is_bound_to_an_exchange_is_known() -> None:
    """By kombu's own tables, where the transport is its own; a server's are not asked."""
    assert compat.is_bound(MagicMock(), "jobs", "a") is None
    assert compat.bound_queues(MagicMock(), "jobs") == []
    with Connection("memory://") as connection, connection.channel() as channel:
        assert compat.bound_queues(channel, "bound-nowhere") == []
        queue = Queue("bound", Exchange("bound-jobs"), routing_key="a")
        queue(channel).declare()
        assert compat.bound_queues(channel, "bound-jobs") == ["bound"]
        found = [compat.is_bound(channel, "bound-jobs", key) for key in "ab"]
        assert found == [True, False]


def test_a_broker_in_memory_is_empty_for_a_while() -> None:
    """What is sent in between goes with it; what was there before is there again."""
    with Connection("memory://") as connection:
        queue = Queue("kept", Exchange("kept"), routing_key="kept")
        with connection.channel() as channel:
            Producer(channel).publish(
                {}, exchange=queue.exchange, routing_key="kept", declare=[queue]
            )
        with compat.empty_memory():
            assert list(compat.queued_headers()) == []
            other = Queue("own", Exchange("own"), routing_key="own")
            with Connection("memory://") as second, second.channel() as channel:
                where = {"exchange": other.exchange, "routing_key": "own", "declare": [other]}
                Producer(channel).publish({}, headers={"task": "a"}, **where)
            assert [one for one in compat.queued_headers() if one] == [{"task": "a"}]
        assert len(list(compat.queued_headers())) == 1
        with connection.channel() as channel:
            channel.queue_delete("kept")
