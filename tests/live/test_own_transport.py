"""The transport of workers that we start: kombu's own, with fewer steps a message."""

from __future__ import annotations

from contextlib import ExitStack
from queue import Empty

import pytest
from kombu import Connection
from loguru import logger
from redis import Redis

from pytest_manifest.worker import own_transport
from pytest_manifest.worker.lean_redis import Command
from pytest_manifest.worker.own_transport import NAME
from pytest_manifest.worker.telling import Teller
from tests.support import eventually

pytestmark = pytest.mark.live


def test_a_channel_makes_one_client_for_a_pool(valkey: str) -> None:
    """Of its two pools one each time anew would be made, and a new one after a disconnection."""
    with Connection(valkey, transport=NAME) as connection:
        channel = connection.default_channel
        first = channel._create_client()
        assert channel._create_client() is first
        assert first.connection_pool is channel.pool
        assert channel._create_client(asynchronous=True) is not first
        channel._disconnect_pools()
        second = channel._create_client()
        assert second is not first
        assert second.connection_pool is channel.pool
        assert second.ping()


def test_messages_come_and_are_acknowledged(valkey: str) -> None:
    """Put, taken, acknowledged and taken back, as by kombu's transport, which reads them too."""
    name = "own-transport"
    with ExitStack() as stack:
        ours = stack.enter_context(Connection(valkey, transport=NAME))
        theirs = stack.enter_context(Connection(valkey))
        here = stack.enter_context(ours.SimpleQueue(name))
        there = stack.enter_context(theirs.SimpleQueue(name))
        here.put({"n": 1})
        there.put({"n": 2})
        message = here.get(timeout=10)
        assert message.payload == {"n": 1}
        message.ack()
        message = here.get(timeout=10)
        message.requeue()
        again = there.get(timeout=10)
        assert again.payload == {"n": 2}
        again.ack()
        with pytest.raises(Empty):
            here.get(block=False)


def taken(valkey: str) -> tuple[int, int]:
    """How many messages stand as taken and not acknowledged, in both of kombu's keys."""
    with Redis.from_url(valkey) as client:
        return int(client.hlen("unacked")), int(client.zcard("unacked_index"))


def test_what_is_taken_stands_at_the_broker_until_it_is_acknowledged(valkey: str) -> None:
    """At once, without anybody asking for it; or nobody could put back what a dead worker had."""
    with ExitStack() as stack:
        ours = stack.enter_context(Connection(valkey, transport=NAME))
        queue = stack.enter_context(ours.SimpleQueue("own-transport-taken"))
        queue.put("word")
        message = queue.get(timeout=10)
        eventually(lambda: taken(valkey) == (1, 1), within=10, what="it is noted as taken")
        message.ack()
        eventually(lambda: taken(valkey) == (0, 0), within=10, what="it is noted as done")


def keep_back(teller: Teller, *commands: Command) -> None:
    """In place of telling: the network is so late that nothing has been sent yet."""
    teller._unanswered.append(commands)


def test_what_is_rejected_stays_away_however_late_the_network_is(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it was taken is not noted afterwards, for somebody to give it back one day."""
    monkeypatch.setattr(Teller, "tell", keep_back)
    with (
        Connection(valkey, transport=NAME) as ours,
        ours.SimpleQueue("own-transport-rejected") as queue,
    ):
        queue.put("word")
        queue.get(timeout=10).reject()
    assert taken(valkey) == (0, 0)


@pytest.mark.parametrize("how", ["requeue", "close"])
def test_what_is_given_back_is_there_however_late_the_network_is(
    valkey: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """That it was taken is done before it is given back."""
    monkeypatch.setattr(Teller, "tell", keep_back)
    with Connection(valkey) as theirs, theirs.SimpleQueue("own-transport-back") as there:
        with Connection(valkey, transport=NAME) as ours:
            channel = ours.channel()
            with ours.SimpleQueue(there.queue, channel=channel) as here:
                here.put("word")
                message = here.get(timeout=10)
                assert taken(valkey) == (0, 0)
                if how == "requeue":
                    message.requeue()
                else:
                    channel.qos.restore_unacked_once()
        again = there.get(timeout=10)
        assert again.payload == "word"
        again.ack()
    assert taken(valkey) == (0, 0)


def test_a_channel_that_is_closed_has_told_all(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what was done would be delivered again."""
    with (
        Connection(valkey, transport=NAME) as ours,
        ours.SimpleQueue("own-transport-told") as queue,
    ):
        queue.put("word")
        message = queue.get(timeout=10)
        eventually(lambda: taken(valkey) == (1, 1), within=10, what="it is noted as taken")
        monkeypatch.setattr(Teller, "tell", keep_back)
        message.ack()
        assert taken(valkey) == (1, 1)
    assert taken(valkey) == (0, 0)


def test_a_closed_connection_ends_no_worker(valkey: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken is not given back by it, and what is done by then is still told."""
    with (
        Connection(valkey, transport=NAME) as ours,
        ours.SimpleQueue("own-transport-closed") as queue,
    ):
        queue.put("word")
        message = queue.get(timeout=10)
        channel = message.channel
        with monkeypatch.context() as patched:
            channel._disconnect_pools()
            patched.setattr(channel.connection, "client", None)
            channel.qos.restore_unacked()
            message.ack()
            eventually(lambda: taken(valkey) == (0, 0), within=10, what="it is noted as done")


def test_a_silent_broker_does_not_keep_a_channel_open(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed all the same, and the log tells of what may come again."""
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line)), level="WARNING")
    monkeypatch.setattr(own_transport, "PATIENCE", 0.2)
    try:
        with Redis.from_url(valkey) as client, Connection(valkey, transport=NAME) as ours:
            channel = ours.channel()
            with ours.SimpleQueue("own-transport-silent", channel=channel) as queue:
                queue.put("word")
                message = queue.get(timeout=10)
                client.client_pause(2000, all=True)
                message.ack()
                channel._settle_at_last()
    finally:
        logger.remove(handler)
    assert "has noted the last" in "".join(lines)
    with Redis.from_url(valkey) as client:
        client.flushdb()


def test_keys_with_a_prefix_are_kombu_s_own_affair(valkey: str) -> None:
    """It puts the prefix before them, in a client of its own."""
    options = {"global_keyprefix": "films-"}
    with (
        Connection(valkey, transport=NAME, transport_options=options) as ours,
        ours.SimpleQueue("prefixed") as queue,
    ):
        queue.put("word")
        message = queue.get(timeout=10)
        with Redis.from_url(valkey) as client:
            assert client.hlen("films-unacked") == 1
        message.ack()
    with Redis.from_url(valkey) as client:
        assert client.hlen("films-unacked") == 0
    assert taken(valkey) == (0, 0)
