"""The publisher and preflight on a real RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from pytest_manifest.broker.checks import demand_of
from pytest_manifest.broker.preflight import preflight
from pytest_manifest.broker.publisher import CHUNK, Publisher
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.schema import Entry
from tests.live.broker_app import app as project
from tests.live.broker_support import (
    APP,
    SENT_AT,
    CuttingProxy,
    address,
    attempts,
    entries,
    proxied,
    publishing,
    results_of,
    stock_worker,
)

pytestmark = [pytest.mark.live, pytest.mark.rabbitmq, pytest.mark.ring(1)]

QUEUES = ["celery", "standard", "heavy", "news", "own"]


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[str]:
    """URL of a broker without any of the queues that are used here."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        for name in QUEUES:
            connection.default_channel.queue_delete(name)


def taken(url: str, queue: str) -> list[Any]:
    """Take all messages out of a queue."""
    found = []
    with Connection(url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(queue, no_ack=True):
            found.append(message)
    return found


def test_message_carries_everything(broker: str) -> None:
    """Options, headers and ids are in the raw message; its time-to-live is the worker's affair."""
    entry = Entry(
        id="é", task="t.x", args=[1], kwargs={"a": 2}, queue="own", priority=3, expires=60
    )
    [attempt] = attempts([entry])
    with publishing(address(broker), stream="") as publisher:
        assert publisher.publish([attempt], SENT_AT).certain == [attempt.task_id]

    [message] = taken(broker, "own")
    headers = message.headers
    assert json.loads(message.body)[:2] == [[1], {"a": 2}]
    assert (headers["id"], headers["manifest_entry"]) == (attempt.task_id, "é")
    assert headers["expires"] == "2026-11-24T15:01:00.123456+00:00"
    assert "manifest_stream" not in headers
    assert message.properties["priority"] == 3
    assert message.properties["delivery_mode"] == 2
    assert "expiration" not in message.properties


def test_batch_is_confirmed_and_in_order(broker: str) -> None:
    """A batch of several chunks is certain only when the broker has confirmed all of it."""
    sent = attempts(entries(3 * CHUNK + 7))
    with publishing(address(broker)) as publisher:
        result = publisher.publish(sent, SENT_AT)
        lengths = publisher.queue_lengths(["celery", "not there"])

    assert result.certain == [attempt.task_id for attempt in sent]
    assert lengths == {"celery": len(sent), "not there": 0}
    assert [message.headers["id"] for message in taken(broker, "celery")] == result.certain


def test_routes_of_the_project(broker: str) -> None:
    """Routes and the topic exchange are used; what no queue is bound for is refused."""
    sent = attempts(
        [
            Entry(id="default", task="stock.echo"),
            Entry(id="heavy", task="stock.heavy"),
            Entry(id="sport", task="stock.topical"),
            Entry(id="rain", task="elsewhere.astray"),
            Entry(id="void", task="elsewhere.void"),
        ]
    )
    with publishing(address(broker, app=APP)) as publisher:
        result = publisher.publish(sent, SENT_AT)
        assert publisher.queue_lengths(["standard", "heavy", "news"]) == {
            "standard": 1,
            "heavy": 1,
            "news": 1,
        }
    assert (result.unsent, result.uncertain, result.error) == ([], [], None)
    assert list(result.refused) == [one.task_id for one in sent[3:]]
    assert len(result.certain) == 3
    assert (
        "exchange 'news' with routing key 'weather.rain'"
        in result.refused[sent[3].task_id].phrase()
    )
    assert "exchange 'void' with routing key 'x'" in result.refused[sent[4].task_id].phrase()


def test_what_comes_back_where_each_message_is_confirmed(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app may have its channels wait by themselves; what comes back is refused all the same."""
    monkeypatch.setitem(project.conf.broker_transport_options, "confirm_publish", True)
    sent = attempts([Entry(id="rain", task="elsewhere.astray"), Entry(id="d", task="stock.echo")])
    with publishing(address(broker, app=APP)) as publisher:
        result = publisher.publish(sent, SENT_AT)
    assert (list(result.refused), result.error) == ([sent[0].task_id], None)
    assert result.certain == [sent[1].task_id]


@pytest.mark.ring(2)
@pytest.mark.parametrize("part", [0.05, 0.5, 0.97], ids="cut at {}".format)
def test_connection_cut_on_the_way_out(broker: str, part: float) -> None:
    """Certain ids are in the queue, unsent ones are not, and one chunk at most is in doubt."""
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        first = sent_through(proxy, publisher, 1)
        whole = sent_through(proxy, publisher, 5 * CHUNK)
        taken(broker, "celery")
        assert_truthful(broker, proxy, publisher, first + int(part * (whole - first)))


@pytest.mark.parametrize("after", [1, 25], ids="after {} bytes".format)
def test_connection_cut_on_the_way_back(broker: str, after: int) -> None:
    """When the confirmations do not come, what they were for is in doubt, though delivered."""
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        sent_through(proxy, publisher, 1)
        # The same declarations again, and one confirmation of 21 bytes.
        prelude = sent_through(proxy, publisher, 1, replies=True) - 21
        taken(broker, "celery")
        assert_truthful(broker, proxy, publisher, prelude + after, replies=True)


def sent_through(
    proxy: CuttingProxy, publisher: Publisher, count: int, *, replies: bool = False
) -> int:
    """Send so many jobs; return the bytes that this took, of messages or of replies."""
    proxy.arm(None, replies=replies)
    assert publisher.publish(attempts(entries(count)), SENT_AT).error is None
    return proxy.seen


def assert_truthful(
    broker: str, proxy: CuttingProxy, publisher: Publisher, cut_after: int, *, replies: bool = False
) -> None:
    """Have a batch cut there, check its result against the queue, and send what is missing."""
    sent = attempts(entries(5 * CHUNK))
    proxy.arm(cut_after, replies=replies)
    result = publisher.publish(sent, SENT_AT)
    queued = {message.headers["id"] for message in taken(broker, "celery")}

    assert proxy.cuts == 1
    assert "publishing failed" in (result.error or "")
    assert result.certain + result.uncertain + result.unsent == [a.task_id for a in sent]
    assert len(result.uncertain) == CHUNK
    assert set(result.certain) <= queued
    assert not set(result.unsent) & queued
    if replies:
        assert set(result.uncertain) & queued
    again = [attempt for attempt in sent if attempt.task_id not in queued]
    assert publisher.publish(again, SENT_AT).error is None


def test_idle_connection_that_was_closed_is_renewed(broker: str) -> None:
    """A connection cut between two batches costs nothing: the next batch is certain."""
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        assert publisher.publish(attempts(entries(3)), SENT_AT).error is None
        proxy.cut()
        result = publisher.publish(attempts(entries(3)), SENT_AT)

    assert result.error is None
    assert len(result.certain) == 3


def test_preflight_and_a_stock_worker(broker: str, tmp_path: Path) -> None:
    """Preflight hears the worker, refuses no long countdown here, and revoking works."""
    where = address(broker, "rpc://", app=APP, owned=True)
    sent = attempts(
        [
            *entries(3),
            Entry(id="cellar", task="stock.echo", args=["c"], queue="own"),
            Entry(id="revoked", task="stock.echo", args=["r"]),
        ]
    )
    with (
        stock_worker(where, tmp_path, queues="standard") as name,
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        demand = demand_of([*(a.entry for a in sent), Entry(id="z", task="no.such", countdown=1e6)])
        found = preflight(publisher, demand, expected_workers=1)
        publisher.revoke([sent[-1].task_id])
        publisher.publish(sent, datetime.now(timezone.utc))
        results = results_of(reader, [attempt.task_id for attempt in sent])

    assert found.workers == [name]
    assert list(found.unknown_tasks) == ["no.such"]
    assert (found.said("error"), found.added_queues) == ([], ["own"])
    assert [results[attempt.task_id].result for attempt in sent] == [0, 1, 2, "c", None]
    assert results[sent[-1].task_id].state == "revoked"
