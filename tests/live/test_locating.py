"""Finding jobs on a real Valkey: queued, held, taken by the dead; put back once, or removed."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import redis

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.client import connect
from pytest_manifest.broker.locating import Locator, open_locator, queues_of
from pytest_manifest.broker.locating.base import BrokerSnapshot, JobLocations, StartedOn, compare
from pytest_manifest.broker.locating.redis import LARGEST_CHUNK, _RedisBroker
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from tests.live.broker_support import (
    APP,
    SENT_AT,
    address,
    attempts,
    database,
    entries,
    publishing,
    results_of,
    stock_worker,
)
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]

SLEEPER = Entry(id="sleeper", task="stock.sleep", args=[120])
GREEDY = ["--prefetch-multiplier=8"]
QUEUES = ["standard", "heavy", "news"]
PREFIX = "proj-"  # of the app's keys


@pytest.fixture
def where(valkey: str) -> StackAddress:
    """A database of its own; the app has a key prefix and its own priority steps."""
    return address(database(valkey, 3), app=APP, owned=True)


@contextmanager
def client_of(where: StackAddress) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(where.broker_url) as client:
        yield client


def ids_of(sent: Sequence[Attempt]) -> list[str]:
    return [attempt.task_id for attempt in sent]


def search_now(locator: Locator, ids: Sequence[str], **started: StartedOn) -> JobLocations:
    """Two looks; what they are about stands still, so there is no gap between them."""
    first = locator.snapshot(ids)
    return compare(first, locator.snapshot(ids), ids, started=started)


def processes_of(node: str) -> list[psutil.Process]:
    """All processes of the worker of this name."""
    found = [p for p in psutil.Process().children(recursive=True) if node in p.cmdline()]
    assert found
    return found


def signal_worker(node: str, number: signal.Signals) -> None:
    for process in processes_of(node):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def take(where: StackAddress, publisher: Publisher, queue: str, count: int) -> None:
    """Take messages as a worker does, and die: nothing is acknowledged, nothing given back."""
    connection = connect(publisher.app, where)
    channel = connection.channel()
    for _ in range(count):
        assert channel.basic_get(queue, no_ack=False) is not None
    channel.qos._delivered.clear()  # else closing gives them back
    connection.release()


def taken_in(where: StackAddress) -> dict[str, str]:
    """Tag -> task id of what the broker keeps; its index has the same tags."""
    with client_of(where) as client:
        values: dict[bytes, bytes] = client.hgetall(f"{PREFIX}unacked")  # type: ignore[assignment]  # redis-py types both its clients by one answer
        index: list[bytes] = client.zrange(f"{PREFIX}unacked_index", 0, -1)  # type: ignore[assignment]  # redis-py types both its clients by one answer
    assert sorted(values) == sorted(index)
    return {tag.decode(): json.loads(raw)[0]["headers"]["id"] for tag, raw in values.items()}


def waiting_in(where: StackAddress, key: str) -> list[str]:
    """Task ids in the list of this key, those taken next first."""
    with client_of(where) as client:
        raw: list[bytes] = client.lrange(f"{PREFIX}{key}", 0, -1)  # type: ignore[assignment]  # redis-py types both its clients by one answer
    return [json.loads(one)["headers"]["id"] for one in reversed(raw)]


def put_back_in(where: StackAddress, queue: str) -> list[str]:
    """Task ids in the queue, of priority 2; earlier versions of kombu put back without priority."""
    return waiting_in(where, f"{queue}\x06\x162") + waiting_in(where, queue)


def test_queued_jobs_are_found_at_every_priority(where: StackAddress) -> None:
    """In every queue and step, under the app's key prefix; only what was asked for is there."""
    work = [Entry(id=f"p{n}", task="stock.echo", priority=n) for n in range(10)]
    work += [Entry(id="h", task="stock.heavy"), Entry(id="t", task="stock.topical")]
    sent = attempts(work)
    *asked, _ = ids_of(sent)
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        queues = queues_of(publisher, work)
        assert queues == sorted(QUEUES)
        found = open_locator(publisher, queues, []).snapshot(asked)
    standard = dict.fromkeys(asked[:10], "standard")
    assert found.queued == {**standard, asked[10]: "heavy"}
    assert (found.unacked, found.answered, found.blind_spot) == ({}, frozenset(), "")


@pytest.mark.ring(2)
def test_ten_thousand_queued_jobs_are_found(
    where: StackAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, a bounded number of messages at a time."""
    sizes: list[int] = []
    lrange = redis.Redis.lrange

    def spy(self: redis.Redis, name: str, start: int, end: int) -> object:
        sizes.append(end - start + 1)
        return lrange(self, name, start, end)

    monkeypatch.setattr(redis.Redis, "lrange", spy)
    sent = attempts(entries(10_000))
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        found = open_locator(publisher, QUEUES, []).snapshot(ids_of(sent))
    assert len(found.queued) == 10_000
    assert max(sizes) == LARGEST_CHUNK


@pytest.mark.ring(2)
def test_large_messages_come_few_at_a_time(
    where: StackAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of large messages is not brought into memory as a whole."""
    weights: list[int] = []
    lrange = redis.Redis.lrange

    def spy(self: redis.Redis, name: str, start: int, end: int) -> object:
        chunk: list[bytes] = lrange(self, name, start, end)  # type: ignore[assignment]  # redis-py types both its clients by one answer
        weights.append(sum(map(len, chunk)))
        return chunk

    monkeypatch.setattr(redis.Redis, "lrange", spy)
    sent = attempts([Entry(id=f"e{n}", task="stock.echo", args=["x" * 500_000]) for n in range(40)])
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        found = open_locator(publisher, ["standard"], []).snapshot(ids_of(sent))
    assert len(found.queued) == 40
    assert max(weights) < 6 << 20


def test_what_waits_is_taken_out_of_its_queue_and_nothing_else(where: StackAddress) -> None:
    """At every priority, in every queue of the app; what a worker has taken stays with it."""
    work = [Entry(id=f"p{n}", task="stock.echo", priority=n) for n in range(10)]
    work += [Entry(id="h", task="stock.heavy"), *entries(300)]
    sent = attempts(work)
    *asked, other = ids_of(sent)
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "heavy", 1)
        removed = open_locator(publisher, ["standard"], []).withdraw([*asked, "x"])
        assert sorted(removed) == sorted(set(asked) - {sent[10].task_id})
        left = open_locator(publisher, QUEUES, []).snapshot(ids_of(sent))
    assert left.queued == {other: "standard"}
    assert list(taken_in(where).values()) == [sent[10].task_id]


def test_a_job_that_its_task_sent_to_another_queue_is_found(where: StackAddress) -> None:
    """All queues of the app are looked into before it is said that a job is nowhere."""
    sent = attempts([Entry(id="h", task="stock.heavy")])
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        found = open_locator(publisher, ["standard"], []).snapshot(ids_of(sent))
    assert found.queued == {sent[0].task_id: "heavy"}


def test_without_queues_nothing_is_nowhere(where: StackAddress) -> None:
    """Where nobody said which queues the jobs went to, absence proves nothing."""
    with publishing(where) as publisher:
        assert (
            "not known to which queues"
            in open_locator(publisher, [], []).snapshot(["x"]).blind_spot
        )


def test_what_a_killed_worker_held_runs_exactly_once(where: StackAddress, tmp_path: Path) -> None:
    """While it lives it has them; when it is killed they are orphans, go back, and all run."""
    sent = attempts([SLEEPER, *entries(2)])
    sleeper, *waiting = ids_of(sent)
    with publishing(where) as publisher:
        with stock_worker(where, tmp_path, pool="prefork", options=GREEDY) as node:
            publisher.publish(sent, SENT_AT)
            locator = open_locator(publisher, QUEUES, [node])
            [alive] = eventually(
                lambda: held(locator.snapshot(ids_of(sent)), waiting), what="the worker took them"
            )
            assert alive.running == {sleeper: node}
            assert search_now(locator, ids_of(sent)).with_worker == set(ids_of(sent))
            signal_worker(node, signal.SIGKILL)
        with stock_worker(where, tmp_path, pool="prefork") as successor:
            locator = open_locator(publisher, QUEUES, [successor])
            located = search_now(locator, ids_of(sent), **{sleeper: StartedOn(node, alive=False)})
            assert located.missing == {sleeper}
            assert located.unacked_by_dead.keys() == set(waiting)
            assert sorted(locator.restore(located.unacked_by_dead)) == sorted(waiting)
            assert locator.restore(located.unacked_by_dead) == []
            reader = ResultReader(where)
            try:
                results_of(reader, waiting)
                assert reader.read([sleeper]) == {}
            finally:
                reader.close()
            eventually(lambda: taken_in(where) == {}, what="all are acknowledged")
        log = (tmp_path / f"{successor}.log").read_text()
        assert [log.count(f"[{one}] received") for one in waiting] == [1, 1]


def held(look: BrokerSnapshot, ids: Sequence[str]) -> list[BrokerSnapshot]:
    """The look in which workers hold these, and what they run is acknowledged."""
    waits = look.reserved.keys() == look.unacked.keys() == set(ids)
    return [look] if waits and look.running else []


@pytest.mark.ring(2)
def test_what_was_discarded_never_runs(where: StackAddress, tmp_path: Path) -> None:
    """It is gone from the broker's hash and index; what was not to be discarded is still there."""
    sent = attempts(entries(3))
    first, second, third = ids_of(sent)
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 2)
        with stock_worker(where, tmp_path) as node:
            locator = open_locator(publisher, QUEUES, [node])
            [located] = eventually(
                lambda: orphans(search_now(locator, ids_of(sent)), 2), what="two are orphans"
            )
            chosen = {first: located.unacked_by_dead[first]}
            assert locator.discard(chosen) == [first]
            assert locator.discard(chosen) == []
            assert locator.restore(chosen) == []
            assert list(taken_in(where).values()) == [second]
            assert locator.restore(located.unacked_by_dead) == [second]
            reader = ResultReader(where)
            try:
                assert results_of(reader, [second, third]).keys() == {second, third}
                assert reader.read([first]) == {}
            finally:
                reader.close()


def orphans(located: JobLocations, count: int) -> list[JobLocations]:
    return [located] if len(located.unacked_by_dead) == count else []


@pytest.mark.ring(2)
def test_a_tag_of_another_task_is_left_alone(where: StackAddress) -> None:
    """Neither put back nor removed."""
    sent = attempts(entries(1))
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 1)
        locator = open_locator(publisher, QUEUES, [])
        wrong = {"another": locator.snapshot(ids_of(sent)).unacked[sent[0].task_id]}
        assert locator.restore(wrong) == []
        assert locator.discard(wrong) == []
        assert list(taken_in(where).values()) == ids_of(sent)


def test_a_message_that_was_begun_and_handed_on_does_not_go_back(where: StackAddress) -> None:
    """Of one that is acknowledged late; the message of its next try goes back."""
    sent = attempts(entries(1))
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 1)
        locator = open_locator(publisher, QUEUES, [])
        orphans = locator.snapshot(ids_of(sent)).unacked
        assert locator.restore(orphans, {sent[0].task_id: 0}) == []
        assert list(taken_in(where)) == []
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 1)
        orphans = locator.snapshot(ids_of(sent)).unacked
        assert locator.restore(orphans, {"another": 0}) == ids_of(sent)


def test_what_a_living_worker_took_since_is_left_alone(where: StackAddress) -> None:
    """A message that was put back keeps its delivery tag; whoever takes it next keeps it."""
    sent = attempts(entries(1))
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 1)
        locator = open_locator(publisher, QUEUES, [])
        first = locator.snapshot(ids_of(sent)).unacked
        tags = list(taken_in(where))
        assert locator.restore(first) == ids_of(sent)
        take(where, publisher, "standard", 1)
        assert list(taken_in(where)) == tags
        assert locator.restore(first) == []
        assert locator.discard(first) == []
        again = locator.snapshot(ids_of(sent)).unacked
        assert not again[sent[0].task_id] & first[sent[0].task_id]
        assert locator.restore(again) == ids_of(sent)


def test_a_message_that_is_taken_at_the_last_moment_is_left_alone(
    where: StackAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the transaction another process put it back, a worker took it."""
    sent = attempts(entries(1))
    with publishing(where) as publisher, publishing(where) as other:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 1)
        locator, faster = (open_locator(one, QUEUES, []) for one in (publisher, other))
        orphans = locator.snapshot(ids_of(sent)).unacked

        def meanwhile(*_: object) -> bool:
            monkeypatch.undo()
            assert faster.restore(orphans) == ids_of(sent)
            take(where, other, "standard", 1)
            return True

        monkeypatch.setattr(_RedisBroker, "_is_bound", meanwhile)
        assert locator.restore(orphans) == []
        assert list(taken_in(where).values()) == ids_of(sent)
        assert waiting_in(where, "standard\x06\x162") == []


def test_of_several_copies_one_goes_back(where: StackAddress) -> None:
    """A message that was sent twice under one task id, and taken twice, is one job."""
    [attempt] = attempts(entries(1))
    with publishing(where) as publisher:
        for _ in range(2):
            publisher.publish([attempt], SENT_AT)
        take(where, publisher, "standard", 2)
        locator = open_locator(publisher, QUEUES, [])
        taken = locator.snapshot([attempt.task_id]).unacked
        assert len(taken[attempt.task_id]) == 2
        assert locator.restore(taken) == [attempt.task_id]
        assert put_back_in(where, "standard") == [attempt.task_id]
        assert taken_in(where) == {}


@pytest.mark.ring(2)
def test_two_that_restore_at_once_restore_once(where: StackAddress) -> None:
    """Every message is in its queue once, each with two publishers after it at the same time."""
    sent = attempts(entries(40))
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []
    restored: list[str] = []
    with publishing(where) as publisher, publishing(where) as other:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "standard", 40)
        locators = [open_locator(one, QUEUES, []) for one in (publisher, other)]
        taken = locators[0].snapshot(ids_of(sent)).unacked
        assert taken.keys() == set(ids_of(sent))

        def restore(locator: Locator) -> None:
            try:
                barrier.wait(10)
                restored.extend(locator.restore(taken))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=restore, args=(one,)) for one in locators]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert sorted(restored) == sorted(ids_of(sent))
    assert sorted(put_back_in(where, "standard")) == sorted(ids_of(sent))
    assert taken_in(where) == {}


@pytest.mark.ring(2)
def test_a_message_of_a_topic_exchange_goes_back_to_its_queue(where: StackAddress) -> None:
    """kombu has to know the exchange's type, else it would put the message nowhere."""
    sent = attempts([Entry(id="t", task="stock.topical")])
    with publishing(where) as publisher, publishing(where) as stranger:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "news", 1)
        locator = open_locator(stranger, QUEUES, [])
        assert locator.restore(locator.snapshot(ids_of(sent)).unacked) == ids_of(sent)
        assert locator.snapshot(ids_of(sent)).queued == {sent[0].task_id: "news"}


@pytest.mark.ring(2)
def test_a_message_that_has_no_queue_any_more_stays(where: StackAddress) -> None:
    """Nothing is lost: it is still among the taken, and not said to be restored."""
    sent = attempts([Entry(id="t", task="stock.topical")])
    with publishing(where) as publisher:
        publisher.publish(sent, SENT_AT)
        take(where, publisher, "news", 1)
        with client_of(where) as client:
            client.delete(f"{PREFIX}_kombu.binding.news")
        locator = open_locator(publisher, ["standard"], [])
        assert locator.restore(locator.snapshot(ids_of(sent)).unacked) == []
    assert list(taken_in(where).values()) == ids_of(sent)


@contextmanager
def paused(node: str) -> Iterator[None]:
    signal_worker(node, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_worker(node, signal.SIGCONT)


@pytest.mark.ring(2)
def test_nothing_is_said_of_what_a_paused_worker_may_hold(
    where: StackAddress, tmp_path: Path
) -> None:
    """It is silent, so what it has taken is no orphan, and what is gone may be with it."""
    sent = attempts([SLEEPER, *entries(1)])
    sleeper, waiting = ids_of(sent)
    with (
        publishing(where) as publisher,
        stock_worker(where, tmp_path, pool="prefork", options=GREEDY) as node,
    ):
        publisher.publish(sent, SENT_AT)
        locator = open_locator(publisher, QUEUES, [node])
        eventually(lambda: held(locator.snapshot(ids_of(sent)), [waiting]), what="it has both")
        with paused(node):
            first = locator.snapshot([*ids_of(sent), "gone"])
            assert first.unresponsive == {node}
            assert not first.answered
            located = search_now(locator, [*ids_of(sent), "gone"])
            assert located.unknown == {sleeper, waiting, "gone"}
            started = {sleeper: StartedOn(node, alive=True)}
            assert search_now(locator, [sleeper], **started).unknown == {sleeper}
        [located] = eventually(
            lambda: underway(search_now(locator, [*ids_of(sent), "gone"])), what="it answers"
        )
        assert located.with_worker == {sleeper, waiting}
        assert located.missing == {"gone"}
        signal_worker(node, signal.SIGKILL)


def underway(located: JobLocations) -> list[JobLocations]:
    return [located] if located.with_worker else []


def test_what_comes_back_while_the_workers_are_asked_is_seen(
    where: StackAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that goes back to its queue between two places, as a retry does, is not missed."""
    sent = attempts(entries(1))
    with publishing(where) as publisher:
        locator = open_locator(publisher, QUEUES, [])
        control = publisher.control
        ask: Callable[..., object] = control.call

        def late(*args: object, **kwargs: object) -> object:
            publisher.publish(sent, SENT_AT)
            return ask(*args, **kwargs)

        monkeypatch.setattr(control, "call", late)
        assert locator.snapshot(ids_of(sent)).queued == {sent[0].task_id: "standard"}
