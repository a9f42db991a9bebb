"""The publisher on a real Valkey: what arrives, and what is known after a failure."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from loguru import logger

from pytest_manifest.broker.publisher import CHUNK
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.schema import Entry
from tests import services
from tests.live.broker_support import (
    APP,
    SENT_AT,
    address,
    attempts,
    body,
    database,
    entries,
    messages,
    proxied,
    publishing,
    queued_ids,
    results_of,
    stock_worker,
)
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]


@pytest.fixture
def broker(valkey: str) -> str:
    """URL of an empty database."""
    return database(valkey, 1)


def test_message_carries_everything_that_a_worker_needs(broker: str) -> None:
    """All delivery options of an entry, and our headers, are in the raw message of its queue."""
    entry = Entry(
        id="crud/é[1]",
        task="any.task",
        args=[1, "zwei"],
        kwargs={"data": {"n": None}},
        queue="own queue",
        priority=5,
        countdown=20,
        expires=90,
        timeout=12.5,
    )
    [attempt] = attempts([entry])
    with publishing(address(broker), stream="manifest:abc:receipts") as publisher:
        result = publisher.publish([attempt], SENT_AT)

    assert result.certain == [attempt.task_id]
    assert (result.uncertain, result.unsent, result.error) == ([], [], None)
    [message] = messages(broker, "own queue\x06\x163")  # kombu's default steps are 0, 3, 6, 9
    headers, properties = message["headers"], message["properties"]
    assert body(message)[:2] == [[1, "zwei"], {"data": {"n": None}}]
    assert headers["id"] == headers["root_id"] == properties["correlation_id"] == attempt.task_id
    assert headers["task"] == "any.task"
    assert datetime.fromisoformat(headers["eta"]) == SENT_AT + timedelta(seconds=20)
    assert datetime.fromisoformat(headers["expires"]) == SENT_AT + timedelta(seconds=90)
    assert headers["timelimit"] == [12.5, None]
    assert headers["ignore_result"] is False
    assert headers["argsrepr"] == "[1, 'zwei']"
    assert properties["priority"] == 5
    assert message["content-type"] == "application/json"
    assert {name: headers[name] for name in headers if name.startswith("manifest_")} == {
        "manifest_run": attempt.run,
        "manifest_entry": "crud/é[1]",
        "manifest_attempt": 1,
        "manifest_sent_at": "2026-11-24T15:00:00.123456+00:00",
        "manifest_stream": "manifest:abc:receipts",
        "manifest_ttl": 600,
        "manifest_root": attempt.task_id,
    }


def test_plain_entries_go_to_the_default_queue_in_order(broker: str) -> None:
    """Without a project, entries wait in ``celery``, in the order of the manifest."""
    sent = attempts(entries(250))
    with publishing(address(broker)) as publisher:
        result = publisher.publish(sent, SENT_AT)
        assert publisher.queue_lengths(["celery", "nobody's"]) == {"celery": 250, "nobody's": 0}

    assert result.certain == queued_ids(broker) == [attempt.task_id for attempt in sent]


def test_project_options_are_honoured(broker: str) -> None:
    """Routes, default queue, default priority, priority steps and key prefix are the app's own."""
    sent = attempts(
        [
            Entry(id="default", task="stock.echo", args=[1]),
            Entry(id="unregistered", task="elsewhere.task"),
            Entry(id="routed", task="elsewhere.heavy", args=[1]),
            Entry(id="overridden", task="elsewhere.heavy", priority=9, queue="standard"),
            Entry(id="topic", task="stock.topical"),
        ]
    )
    with publishing(address(broker, app=APP)) as publisher:
        publisher.publish(sent, SENT_AT)
        assert publisher.queue_lengths(["standard", "heavy", "news"]) == {
            "standard": 3,
            "heavy": 1,
            "news": 1,
        }

    where = {attempt.entry.id: attempt.task_id for attempt in sent}
    assert queued_ids(broker, "proj-standard\x06\x162") == [where["default"], where["unregistered"]]
    assert queued_ids(broker, "proj-heavy\x06\x165") == [where["routed"]]  # its priority is 7
    assert queued_ids(broker, "proj-standard\x06\x169") == [where["overridden"]]
    [topical] = messages(broker, "proj-news\x06\x162")
    assert topical["headers"]["id"] == where["topic"]


@pytest.mark.parametrize("task", ["stock.echo", "stock.heavy", "stock.topical", "stock.own"])
def test_goes_where_delay_would_send_it(broker: str, task: str) -> None:
    """Queue, exchange, priority and options of a registered task's message are those of delay."""
    with publishing(address(broker, app=APP)) as publisher:
        publisher.publish(attempts([Entry(id="e", task=task, args=[1])]), SENT_AT)
        ours = _everything(broker)
        database(broker, 1)
        with publisher.app.connection_for_write(url=broker) as connection:
            publisher.app.tasks[task].apply_async((1,), connection=connection)
        theirs = _everything(broker)

    assert ours == theirs
    assert len(ours) == 1


def _everything(url: str) -> dict[str, list[dict[str, object]]]:
    """Return, for each message list of the database, how and where its messages were sent."""
    found: dict[str, list[dict[str, object]]] = {}
    with closing(redis.Redis.from_url(url)) as client:
        keys = [key.decode() for key in client.scan_iter("*") if client.type(key) == b"list"]
    for key in keys:
        found[key] = [
            {
                "info": message["properties"]["delivery_info"],
                "priority": message["properties"]["priority"],
                "mode": message["properties"]["delivery_mode"],
                "content": message["content-type"],
                "soft": message["headers"]["timelimit"][1],
            }
            for message in messages(url, key)
        ]
    return found


@pytest.mark.ring(2)
def test_higher_priority_is_taken_first(broker: str, tmp_path: Path) -> None:
    """A worker takes from the priority lists in the order of the app's steps: low numbers first."""
    where = address(broker, app=APP)
    levels = {"nine": 9, "none": 0, "five": 5}
    sent = attempts(
        [
            Entry(id=name, task="stock.echo", args=[name], priority=level)
            for name, level in levels.items()
        ]
    )
    with publishing(where) as publisher, closing(ResultReader(where)) as reader:
        publisher.publish(sent, SENT_AT)
        with stock_worker(
            where, tmp_path, queues="standard", options=["--prefetch-multiplier", "1"]
        ):
            results = results_of(reader, [attempt.task_id for attempt in sent])

    finished = sorted(sent, key=lambda attempt: results[attempt.task_id].finished_at)
    assert [attempt.entry.id for attempt in finished] == ["none", "five", "nine"]


def test_an_entry_that_no_message_can_be_made_of_stops_no_other(broker: str) -> None:
    """It is refused with the reason; all others of its batch are sent."""
    bad = Entry(id="bad", task="t").model_copy(update={"countdown": 1e15})  # no date has it
    sent = attempts([*entries(150), bad])
    with publishing(address(broker)) as publisher:
        result = publisher.publish(sent, SENT_AT)
        assert publisher.queue_lengths(["celery"]) == {"celery": 150}
    assert (len(result.certain), result.error) == (150, None)
    assert list(result.refused) == [sent[-1].task_id]
    assert "OverflowError" in result.refused[sent[-1].task_id].phrase()


@pytest.mark.ring(2)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.97], ids="cut at {}".format)
@pytest.mark.parametrize("replies", [False, True], ids=["on the way out", "on the way back"])
def test_connection_cut_within_a_batch(broker: str, part: float, replies: bool) -> None:
    """Certain ids are in the queue, unsent ones are not, and one chunk at most is in doubt."""
    sent = attempts(entries(5 * CHUNK))
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        assert publisher.publish(attempts(entries(1)), SENT_AT).error is None
        proxy.arm(None, replies=replies)
        assert publisher.publish(attempts(entries(5 * CHUNK)), SENT_AT).error is None
        whole = proxy.seen
        with closing(redis.Redis.from_url(broker)) as client:
            client.delete("celery")
        # Behind the look at the queue that comes before a batch, so that the batch has begun.
        proxy.arm(300 + int(part * (whole - 300)), replies=replies)
        result = publisher.publish(sent, SENT_AT)

        assert proxy.cuts == 1
        assert result.error is not None
        assert "publishing failed" in result.error
        assert result.certain + result.uncertain + result.unsent == [a.task_id for a in sent]
        assert len(result.certain) % CHUNK == 0
        assert len(result.uncertain) == CHUNK
        queued = set(queued_ids(broker))
        assert set(result.certain) <= queued
        assert not set(result.unsent) & queued
        if replies:
            assert set(result.uncertain) & queued  # delivered, though nobody could know

        missing = [a for a in sent if a.task_id not in queued]
        assert publisher.publish(missing, SENT_AT).error is None
    assert sorted(queued_ids(broker)) == sorted(attempt.task_id for attempt in sent)


def test_password_is_not_in_the_error(broker: str) -> None:
    """The sentence about a failed batch shows where the broker is, without its password."""
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        proxy.close()
        result = publisher.publish(attempts(entries(3)), SENT_AT)

    assert result.error is not None
    assert "redis://:***@127.0.0.1" in result.error
    assert len(result.unsent) == 3


def test_idle_connection_that_was_closed_is_renewed(broker: str) -> None:
    """A connection cut between two batches costs nothing: the next batch is certain."""
    with proxied(broker) as (proxy, url), publishing(address(url)) as publisher:
        assert publisher.publish(attempts(entries(3)), SENT_AT).error is None
        proxy.cut()
        result = publisher.publish(attempts(entries(3)), SENT_AT)

    assert result.error is None
    assert len(result.certain) == 3


def test_broker_that_dies_and_another_takes_its_place() -> None:
    """While the broker is away everything is unsent, without an exception; then it arrives."""
    with (
        services.valkey_server() as url,
        proxied(url) as (proxy, through),
        publishing(address(through)) as publisher,
    ):
        assert publisher.publish(attempts(entries(3)), SENT_AT).error is None
        with closing(redis.Redis.from_url(url)) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        eventually(lambda: not _answers(url), what="the broker is gone")
        gone = publisher.publish(attempts(entries(3)), SENT_AT)
        assert (gone.certain, gone.uncertain, len(gone.unsent)) == ([], [], 3)
        with pytest.raises(StackError, match="cannot revoke jobs"):
            publisher.revoke(gone.unsent)

        with services.valkey_server() as other, closing(redis.Redis.from_url(other)) as client:
            client.config_set("requirepass", str(urlsplit(url).password))
            proxy.retarget(other)
            later = publisher.publish(attempts(entries(3)), SENT_AT)
            assert len(later.certain) == client.llen("celery") == 3
            publisher.revoke(later.certain)


def _answers(url: str) -> bool:
    try:
        with closing(redis.Redis.from_url(url)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def test_broker_that_refuses_messages(broker: str) -> None:
    """An error reply to the batch leaves its chunk in doubt and the rest unsent, with reason."""
    url = urlsplit(broker)
    limited = f"redis://limited:pw-limited@{url.hostname}:{url.port}{url.path}"
    with closing(redis.Redis.from_url(broker)) as client:
        client.acl_setuser(
            "limited",
            enabled=True,
            passwords=["+pw-limited"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-lpush"],
        )
        try:
            with publishing(address(limited)) as publisher:
                result = publisher.publish(attempts(entries(CHUNK + 1)), SENT_AT)
        finally:
            client.acl_deluser("limited")

    assert (len(result.uncertain), len(result.unsent)) == (CHUNK, 1)
    assert result.error is not None
    assert "lpush" in result.error


def test_message_that_no_queue_is_bound_for(broker: str) -> None:
    """What a topic exchange would drop in silence is that entry's refusal, and no outage."""
    sent = attempts(
        [
            Entry(id="sport", task="stock.topical"),
            Entry(id="rain", task="elsewhere.astray"),
            Entry(id="echo", task="stock.echo"),
            Entry(id="void", task="elsewhere.void"),
        ]
    )
    ids = [attempt.task_id for attempt in sent]
    with publishing(address(broker, app=APP)) as publisher:
        result = publisher.publish(sent, SENT_AT)

    assert (result.certain, result.uncertain, result.unsent) == ([ids[0], ids[2]], [], [])
    assert (list(result.refused), result.error) == ([ids[1], ids[3]], None)
    assert "exchange 'news' with routing key 'weather.rain'" in result.refused[ids[1]].phrase()
    assert "exchange 'void' with routing key 'x'" in result.refused[ids[3]].phrase()


def test_each_sending_is_logged(broker: str) -> None:
    """Every published attempt is a "Job Sent" line with its entry, task, task id and queue."""
    messages: list[str] = []
    handler = logger.add(
        lambda message: messages.append(message.record["message"]),
        level="DEBUG",
        filter="pytest_manifest.broker",
    )
    try:
        one, two = attempts([Entry(id="e-{}", task="t.x", queue="q"), Entry(id="f", task="t.y")])
        with publishing(address(broker)) as publisher:
            publisher.publish([one, two], SENT_AT)
    finally:
        logger.remove(handler)

    assert "\n".join(messages).splitlines() == [
        f"Job Sent: e-{{}} -> t.x ({one.task_id}, queue q)",
        f"Job Sent: f -> t.y ({two.task_id}, queue celery)",
    ]


def test_stock_worker_runs_what_was_sent(broker: str, tmp_path: Path) -> None:
    """A worker that knows nothing of us executes the messages and stores their results."""
    where = address(broker, app=APP)
    sent = attempts(entries(20))
    with (
        stock_worker(where, tmp_path),
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        publisher.publish(sent, datetime.now(timezone.utc))
        results = results_of(reader, [attempt.task_id for attempt in sent])

    assert [results[attempt.task_id].result for attempt in sent] == list(range(20))


@pytest.mark.ring(2)
def test_revoked_jobs_do_not_run(broker: str, tmp_path: Path) -> None:
    """Jobs revoked while they wait for their eta end as revoked; the others run."""
    where = address(broker, app=APP)
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    sent = attempts([Entry(id=f"e-{n}", task="stock.echo", args=[n], eta=soon) for n in range(4)])
    with (
        stock_worker(where, tmp_path),
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        publisher.revoke([attempt.task_id for attempt in sent[:2]])
        publisher.publish(sent, datetime.now(timezone.utc))
        results = results_of(reader, [attempt.task_id for attempt in sent])

    states = [results[attempt.task_id].state for attempt in sent]
    assert states == ["revoked", "revoked", "succeeded", "succeeded"]


@pytest.mark.ring(2)
def test_expired_jobs_say_so(broker: str, tmp_path: Path) -> None:
    """A job taken after its ``expires``, counted from the sending, ends as expired."""
    where = address(broker, app=APP)
    sent = attempts(entries(2, expires=5))
    with (
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
        stock_worker(where, tmp_path),
    ):
        publisher.publish(sent, datetime.now(timezone.utc) - timedelta(seconds=60))
        results = results_of(reader, [attempt.task_id for attempt in sent])

    assert {result.state for result in results.values()} == {"expired"}
