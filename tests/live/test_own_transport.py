"""The transport of workers that we start: kombu's own, but for clients that are remembered."""

from __future__ import annotations

from contextlib import ExitStack
from queue import Empty

import pytest
from kombu import Connection

from pytest_manifest.worker.own_transport import NAME

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
