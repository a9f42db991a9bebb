"""The simulated Redis and a real Valkey, by the same cases: so the one may stand for the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, cast
from unittest import mock

import pytest
import redis
from celery import Celery
from fakeredis import FakeRedisConnection, FakeServer
from kombu.transport import redis as transport

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.client import connection_to
from pytest_manifest.broker.locating import redis as locating
from pytest_manifest.broker.locating import worker_replies
from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.schema import Entry
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.urls import StackAddress
from tests.simulation.redis_world import QUEUE, Cut, Stored, Taken, Waiting
from tests.unit.run_world import Message

RUN = "20261124T150000-0123abcd"
STREAM = "manifest:0123abcd:receipts"
NOW = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)


@dataclass
class Place:
    """A server, fake or real, with the project's own parts connected to it."""

    address: StackAddress
    broker: redis.Redis
    store: redis.Redis
    publisher: Publisher
    locator: locating.RedisLocator
    cuts: list[Cut]

    def __post_init__(self) -> None:
        self.sent: dict[str, Message] = {}
        self.connections: list[object] = []

    def timestamp(self) -> float:
        return NOW.timestamp()

    def send(self, names: str = "a") -> list[Attempt]:
        """Publish an attempt of each of these entries."""
        attempts = [attempt_of(RUN, Entry(id=name, task="t"), 1) for name in names]
        self.sent |= {one.task_id: Message(one, NOW) for one in attempts}
        self.result = self.publisher.publish(attempts, NOW)
        return attempts

    def take(self) -> str:
        """Have kombu take the next message, as it does for a worker; its delivery tag."""
        connection = connection_to(self.publisher.app, self.address)
        channel = connection.channel()
        channel.do_restore = False  # a worker that dies gives nothing back
        self.connections.append(connection)
        return str(channel.basic_get(QUEUE).delivery_tag)


class NoWorkers:
    """Answers for workers: none has anything."""

    def poll(self, _wanted: object) -> BrokerSnapshot:
        return BrokerSnapshot(answered=frozenset({"w1@box"}))


def breaking(kind: type[Any], cuts: Sequence[Cut], **more: object) -> type[Any]:
    """Make connections of this kind break where a cut says so."""

    class Breaking(kind):  # type: ignore[misc]  # one of two kinds
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **{**given, **more})

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            for cut in cuts:
                cut.sending()
            super().send_packed_command(command, check_health)

        def read_response(self, **given: Any) -> Any:
            for cut in cuts:
                cut.reading()
            return super().read_response(**given)

    return Breaking


@pytest.fixture(params=["fake", "valkey"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A simulated Redis, and a real server."""
    cuts: list[Cut] = []
    with ExitStack() as stack:
        if request.param == "fake":
            kind = breaking(FakeRedisConnection, cuts, server=FakeServer())
            url = "redis://box"
        else:
            kind = breaking(redis.Connection, cuts)
            url = cast("str", request.getfixturevalue("valkey")).rpartition("/")[0]

        def make_connection(pool: redis.ConnectionPool) -> object:
            own = pool.connection_class
            return (own if issubclass(own, kind) else kind)(**pool.connection_kwargs)

        patch: Callable[..., Any] = mock.patch.object
        stack.enter_context(patch(redis.ConnectionPool, "make_connection", make_connection))
        stack.enter_context(patch(transport.Channel, "connection_class", kind))
        stack.enter_context(patch(locating, "unresponsive_nodes", return_value=frozenset()))
        stack.enter_context(patch(locating, "may_be_alive", return_value=False))
        stack.enter_context(patch(worker_replies, "WorkerPoller", return_value=NoWorkers()))
        address = StackAddress(f"{url}/0", f"{url}/1", None, is_private=True)
        publisher = stack.enter_context(closing(Publisher(address, stream=STREAM, ttl=100)))
        broker, store = (redis.Redis.from_url(f"{url}/{number}") for number in (0, 1))
        for client in (broker, store):
            stack.enter_context(client)
            client.flushdb()
        locator = locating.RedisLocator(publisher, [QUEUE], ())
        yield Place(address, broker, store, publisher, locator, cuts)


def test_what_is_sent_waits_in_its_queue(place: Place) -> None:
    """The publisher, kombu's transport and the locator."""
    ids = [one.task_id for one in place.send("abc")]
    assert place.result.certain == ids
    assert place.locator.snapshot(ids).queued == dict.fromkeys(ids, QUEUE)
    assert place.publisher.queue_lengths([QUEUE]) == {QUEUE: 3}


def test_the_world_sees_what_waits_in_the_order_of_its_delivery(place: Place) -> None:
    """What it takes is what kombu would take."""
    ids = [one.task_id for one in place.send("ab")]
    assert [message.task_id for message in Waiting(place.broker, place)] == ids
    tag = place.take()
    assert Taken(place.broker, place)[tag].task_id == ids[0]


def test_what_is_taken_is_kept_until_it_is_acknowledged(place: Place) -> None:
    """By kombu, and by the world, in the same form."""
    first, second = (one.task_id for one in place.send("ab"))
    tag = place.take()
    waiting, taken = Waiting(place.broker, place), Taken(place.broker, place)
    taken["tag-1"] = waiting.popleft()
    seen = place.locator.snapshot([first, second])
    assert seen.queued == {}
    assert {i: {one.split()[0] for one in tags} for i, tags in seen.unacked.items()} == {
        first: {tag},
        second: {"tag-1"},
    }
    del taken["tag-1"]
    assert set(place.locator.snapshot([first, second]).unacked) == {first}


def test_of_two_messages_of_a_job_that_of_its_next_try_goes_back(place: Place) -> None:
    """The one that was begun is removed, whichever was taken first."""
    (one,) = place.send()
    waiting, taken = Waiting(place.broker, place), Taken(place.broker, place)
    first = waiting.popleft()
    taken["tag-2"], taken["tag-1"] = first, replace(first, retries=1)
    orphans = place.locator.snapshot([one.task_id]).unacked
    assert place.locator.restore(orphans, {one.task_id: 0}) == [one.task_id]
    assert not taken
    assert [(again.task_id, again.retries) for again in waiting] == [(one.task_id, 1)]


@pytest.mark.parametrize("by", ["kombu", "the world"])
def test_what_a_dead_worker_had_goes_back_and_is_delivered_again(place: Place, by: str) -> None:
    """By the real locator, whoever has taken it."""
    (one,) = place.send()
    waiting, taken = Waiting(place.broker, place), Taken(place.broker, place)
    if by == "kombu":
        place.take()
    else:
        taken["tag-1"] = waiting.popleft()
    orphans = place.locator.snapshot([one.task_id]).unacked
    assert place.locator.restore(orphans) == [one.task_id]
    assert place.locator.restore(orphans) == []
    assert not taken
    again = waiting.popleft()
    assert (again.task_id, again.redelivered) == (one.task_id, True)


def test_what_a_dead_worker_had_is_taken_out(place: Place) -> None:
    """And what waits is withdrawn."""
    first, second = place.send("ab")
    place.take()
    orphans = place.locator.snapshot([first.task_id]).unacked
    assert place.locator.discard(orphans) == [first.task_id]
    assert place.locator.withdraw([second.task_id]) == [second.task_id]
    assert place.broker.dbsize() == len(place.broker.keys("_kombu*"))


def test_the_world_gives_back_and_retries_as_kombu_reads_it(place: Place) -> None:
    """A retry's message has its number, a message that was given back its mark."""
    place.send("a")
    waiting = Waiting(place.broker, place)
    message = waiting.popleft()
    message.retries, message.redelivered = 2, True
    waiting.append(message)
    assert (waiting[0].retries, waiting[0].redelivered) == (2, True)
    connection = connection_to(cast("Celery", place.publisher.app), place.address)
    channel = connection.channel()
    channel.do_restore = False
    taken = channel.basic_get(QUEUE)
    assert taken.headers["retries"] == 2
    assert taken.delivery_info["redelivered"] is True


@pytest.mark.parametrize("replies", [None, *range(6)])
def test_a_connection_that_is_cut_leaves_no_doubt_unsaid(place: Place, replies: int | None) -> None:
    """What is called sent is there; what is called unsent is not."""
    place.send("z")  # so that the connection is open
    place.cuts.append(Cut(replies=replies))
    ids = [one.task_id for one in place.send("abc")]
    place.cuts.clear()
    there = {message.task_id for message in Waiting(place.broker, place)}
    assert set(place.result.certain) <= there
    assert not set(place.result.unsent) & there
    told = [*place.result.certain, *place.result.uncertain, *place.result.unsent]
    assert sorted(told) == sorted(ids)


def test_a_stream_tells_whether_its_store_was_emptied(place: Place) -> None:
    """It begins with a mark, and is read once, from where the last reader was."""
    reader = StreamReader(place.address.backend_url, STREAM)
    reader.begin(100)
    record = {"kind": "started", "task_id": "x"}
    place.store.xadd(STREAM, {STREAM_FIELD: json.dumps(record)})
    assert reader.read() == [record]
    assert reader.read() == []
    later = StreamReader(place.address.backend_url, STREAM, position=reader.position)
    assert later.read() == []
    assert later.is_intact()
    reader.trim()
    assert reader.is_intact()
    place.store.flushdb()
    assert not later.is_intact()


def test_results_are_read_as_workers_store_them(place: Place) -> None:
    """What the world writes is what Celery's store gives."""
    stored = Stored(place.store)
    stored["x"], stored["y"] = BackendResult("succeeded", {"n": 1}), BackendResult("revoked")
    with closing(ResultReader(place.address)) as reader:
        found = reader.read(["x", "y", "z"])
    assert {task_id: one.state for task_id, one in found.items()} == {
        "x": "succeeded",
        "y": "revoked",
    }
    assert found["x"].result == {"n": 1}
