"""Finding jobs on a real RabbitMQ, which shows how many wait and not which."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from pytest_manifest.broker.locating import open_locator
from pytest_manifest.compat.kombu import delaying_queues
from pytest_manifest.schema import Entry
from tests.live.broker_support import (
    APP,
    SENT_AT,
    address,
    attempts,
    entries,
    publishing,
    stock_worker,
)
from tests.live.test_locating import ids_of, paused, search_now, signal_worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.rabbitmq, pytest.mark.ring(1)]

QUEUES = ["standard"]
DELAYING = ["celery_delayed_0", "celery_delayed_1"]


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[str]:
    """URL of a broker without any of the queues that are used here."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        for name in ["standard", "heavy", "news", *DELAYING]:
            connection.default_channel.queue_delete(name)


def test_a_queue_with_messages_hides_every_job(broker: str) -> None:
    """It is said how many wait, and where; nothing can be told of a single one."""
    where = address(broker, "rpc://", app=APP)
    sent = attempts(entries(3))
    with publishing(where, stream="") as publisher:
        publisher.publish(sent, SENT_AT)
        locator = open_locator(publisher, QUEUES, [])
        look = locator.snapshot(ids_of(sent))
        assert look.blind_spot == (
            "RabbitMQ does not show which messages wait in a queue (3 wait in 'standard')"
        )
        assert search_now(locator, ids_of(sent)).unknown == set(ids_of(sent))
        orphans = {sent[0].task_id: frozenset({"1"})}
        assert (locator.restore(orphans), locator.discard(orphans)) == ([], [])


def test_with_empty_queues_the_workers_know(broker: str, tmp_path: Path) -> None:
    """What a worker runs is under way; what no worker has is nowhere, while all answer."""
    where = address(broker, "rpc://", app=APP)
    sent = attempts([Entry(id="sleeper", task="stock.sleep", args=[120])])
    asked = [sent[0].task_id, "gone"]
    with (
        publishing(where, stream="") as publisher,
        stock_worker(where, tmp_path, pool="prefork") as node,
    ):
        locator = open_locator(publisher, QUEUES, [node])
        publisher.publish(sent, SENT_AT)
        eventually(lambda: locator.snapshot(asked).running, what="the worker runs it")
        located = search_now(locator, asked)
        assert located.with_worker == {asked[0]}
        assert located.missing == {"gone"}
        with paused(node):
            assert search_now(locator, asked).unknown == set(asked)
            # Nobody told this one of the node, but the broker knows of its consumer.
            stranger = open_locator(publisher, QUEUES, []).snapshot(asked)
            assert stranger.blind_spot == "1 of the 1 consumers of queue 'standard' did not answer"
        signal_worker(node, signal.SIGKILL)


@pytest.mark.ring(2)
def test_a_busy_worker_of_greenlets_may_have_more_than_it_says(broker: str, tmp_path: Path) -> None:
    """While its pool is full it reads no messages, and answers; an idle one has read them all."""
    where = address(broker, "rpc://", app=APP)
    sent = attempts([Entry(id=f"s{n}", task="stock.sleep", args=[4]) for n in range(3)])
    asked = [*(one.task_id for one in sent), "gone"]
    with (
        publishing(where, stream="") as publisher,
        stock_worker(where, tmp_path, pool="gevent") as node,
    ):
        locator = open_locator(publisher, QUEUES, [node])
        assert search_now(locator, ["gone"]).missing == {"gone"}
        publisher.publish(sent, SENT_AT)
        eventually(lambda: locator.snapshot(asked).running, what="the worker runs one")
        located = search_now(locator, asked)
        assert not located.missing
        assert locator.snapshot(asked).blind_spot == (
            f"worker {node!r} may have messages that it reads later, as its pool is full"
        )
        eventually(
            lambda: search_now(locator, asked).missing == set(asked),
            within=60,
            what="it has nothing to do any more",
        )


def test_messages_that_wait_for_their_time_are_counted(broker: str) -> None:
    """Those of quorum queues with a countdown wait in queues of their own.

    A kombu that has no such queues sends nothing to them: one of that name is somebody else's.
    """
    with Connection(broker) as connection:
        for name in DELAYING:
            connection.default_channel.queue_declare(queue=name, durable=True, auto_delete=False)
        connection.Producer().publish("{}", routing_key=DELAYING[1])
        eventually(lambda: messages(connection, DELAYING[1]) == 1, what="it has arrived")
        with publishing(address(broker, "rpc://"), stream="") as publisher:
            look = open_locator(publisher, ["celery"], []).snapshot(["x"])
    if delaying_queues():
        assert look.blind_spot.endswith("(1 waits in 'celery_delayed_1')")
    else:
        assert not look.blind_spot


def messages(connection: Connection, queue: str) -> int:
    declared = connection.default_channel.queue_declare(queue=queue, passive=True)
    return int(declared.message_count)
