"""Plain results of stock workers, read from every kind of result backend that is supported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import celery
import pytest
import redis
from kombu import Connection

from pytest_manifest.broker.attempt import Attempt, run8
from pytest_manifest.broker.client import load_app, result_backend
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from tests.live.broker_support import (
    APP,
    address,
    attempts,
    database,
    entries,
    proxied,
    publishing,
    results_of,
    stock_worker,
)

pytestmark = pytest.mark.live

REPLIES_ARE_TIMED = celery.VERSION >= (5, 7)
"""Whether a reply says when its task ended."""

ENDINGS = [
    Entry(id="ok", task="stock.echo", args=[{"title": "Alien", "n": [1, None]}]),
    Entry(id="failed", task="stock.fail"),
    Entry(id="unknown", task="stock.no_such_task", queue="standard"),
    Entry(id="expired", task="stock.echo", args=[1], expires=1),
    Entry(id="crashed", task="stock.die"),
    Entry(id="timed out", task="stock.sleep", args=[30], timeout=1),
]


@contextmanager
def ran(
    where: StackAddress,
    directory: Path,
    entries: list[Entry],
    *,
    extended: bool = False,
    pool: str = "prefork",
) -> Iterator[tuple[list[Attempt], ResultReader]]:
    """Have a stock worker run the entries, sent a minute ago; give the attempts and a reader."""
    sent = attempts(entries)
    env = {"TEST_RESULT_EXTENDED": "1"} if extended else {}
    with publishing(where) as publisher, closing(ResultReader(where)) as reader:
        publisher.publish(sent, datetime.now(timezone.utc) - timedelta(seconds=60))
        with stock_worker(where, directory, pool=pool, env=env):
            yield sent, reader


def by_entry(sent: list[Attempt], results: dict[str, BackendResult]) -> dict[str, BackendResult]:
    """Return results by entry id."""
    return {attempt.entry.id: results[attempt.task_id] for attempt in sent}


def assert_endings(results: dict[str, BackendResult], *, timed: bool = True) -> None:
    """Check what each of ``ENDINGS`` must have ended as, and when, where that is ``timed``."""
    assert results["ok"].state == "succeeded"
    assert results["ok"].result == {"title": "Alien", "n": [1, None]}
    assert results["ok"].error is None
    states = {name: result.state for name, result in results.items()}
    assert states == {
        "ok": "succeeded",
        "failed": "failed",
        "unknown": "unknown_task",
        "expired": "expired",
        "crashed": "crashed",
        "timed out": "timed_out",
    }
    failed = results["failed"].error
    assert failed is not None
    assert (failed.type, failed.message) == ("OddError", "('no', 7)")
    assert failed.traceback is not None
    assert "raise OddError" in failed.traceback
    assert results["failed"].result is None
    crashed, unknown = results["crashed"].error, results["unknown"].error
    assert crashed is not None
    assert crashed.type == "WorkerLostError"
    assert unknown is not None
    assert "stock.no_such_task" in unknown.message
    for result in results.values():
        assert result.receipt is None
        assert (result.finished_at is not None) is timed
        if result.finished_at is not None:
            assert abs(result.finished_at - datetime.now(timezone.utc)) < timedelta(minutes=5)


@pytest.mark.ring(1)
def test_every_ending_from_redis(valkey: str, tmp_path: Path) -> None:
    """Each way a task can end is told apart, from Redis, with the app's own key prefix."""
    where = address(database(valkey, 7), app=APP)
    with ran(where, tmp_path, ENDINGS) as (sent, reader):
        results = by_entry(sent, results_of(reader, [a.task_id for a in sent], within=40))

    assert_endings(results)
    assert {result.worker for result in results.values()} == {None}


def test_extended_results_say_where_they_ran(valkey: str, tmp_path: Path) -> None:
    """Where the app sets result_extended, worker, queue and retries are known."""
    where = address(database(valkey, 8), app=APP)
    with ran(where, tmp_path, entries(1), extended=True, pool="solo") as (sent, reader):
        [result] = results_of(reader, [attempt.task_id for attempt in sent]).values()

    assert result.worker is not None
    assert result.worker.endswith("@localhost")
    assert (result.queue, result.retries) == ("standard", 0)


@pytest.mark.ring(1)
def test_what_is_not_final_is_left_out(valkey: str, tmp_path: Path) -> None:
    """Unknown ids, started and retried tasks have no result yet; many ids are asked in chunks."""
    url = database(valkey, 9)
    sent = attempts(entries(1200))
    with (
        closing(redis.Redis.from_url(url)) as client,
        closing(ResultReader(address(url))) as reader,
    ):
        ids = [attempt.task_id for attempt in sent]
        for one, status in zip(ids, ("STARTED", "RETRY", "PENDING", "HALFWAY"), strict=False):
            client.set(f"celery-task-meta-{one}", f'{{"status": "{status}", "result": null}}')
        client.set(f"celery-task-meta-{ids[4]}", b"\x80\x04 no JSON")
        client.set(f"celery-task-meta-{ids[-1]}", '{"status": "SUCCESS", "result": 3}')
        found = reader.read(ids)
        assert reader.read([]) == {}
        assert reader.retried(dict.fromkeys(ids, "x")) == {ids[1]}

    assert found == {ids[-1]: BackendResult(state="succeeded", result=3)}


@pytest.mark.ring(1)
def test_embedded_receipt_comes_out(valkey: str) -> None:
    """A receipt that the worker put around its result is unwrapped; the result stays itself."""
    url = database(valkey, 10)
    [attempt] = attempts(entries(1))
    with (
        closing(redis.Redis.from_url(url)) as client,
        closing(ResultReader(address(url))) as reader,
    ):
        client.set(
            f"celery-task-meta-{attempt.task_id}",
            '{"status": "SUCCESS", "date_done": "2026-11-24T15:00:00.5+00:00", "result": '
            '{"manifest_receipt": {"run": "r", "pid": 7}, "manifest_result": [1]}}',
        )
        found = reader.read([attempt.task_id])[attempt.task_id]

    assert found.receipt == {"run": "r", "pid": 7}
    assert found.result == [1]
    assert found.finished_at == datetime(2026, 11, 24, 15, 0, 0, 500_000, tzinfo=timezone.utc)


def test_revoked_before_it_ran(valkey: str, tmp_path: Path) -> None:
    """A revoked task is revoked, not failed, and carries no error."""
    where = address(database(valkey, 11), app=APP)
    sent = attempts(entries(1))
    with (
        stock_worker(where, tmp_path),
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        publisher.revoke([sent[0].task_id])
        publisher.publish(sent, datetime.now(timezone.utc))
        [result] = results_of(reader, [sent[0].task_id]).values()

    assert (result.state, result.error, result.result) == ("revoked", None, None)


def test_every_ending_from_sqlite(valkey: str, tmp_path: Path) -> None:
    """The same endings from a database backend (SQLite)."""
    where = address(database(valkey, 12), f"db+sqlite:///{tmp_path}/results.db", app=APP)
    with ran(where, tmp_path, ENDINGS) as (sent, reader):
        results = by_entry(sent, results_of(reader, [a.task_id for a in sent], within=40))

    assert_endings(results)


@pytest.mark.ring(1)
@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_asked_for_a_retry_last_is_found(
    valkey: str, postgres_url: str, tmp_path: Path, kind: str
) -> None:
    """As Celery's own backends store it; not what has ended since, or only begun."""
    url = f"db+sqlite:///{tmp_path}/results.db"
    if kind == "postgres":
        url = "db+postgresql+psycopg://" + postgres_url.partition("://")[2]
    where = address(database(valkey, 13), url, app=APP)
    waits, ended, begun = (one.task_id for one in attempts(entries(3)))
    backend = result_backend(load_app(where), where)
    for name in (waits, ended):
        backend.mark_as_retry(name, ValueError("busy"))
    backend.mark_as_done(ended, 1)
    backend.mark_as_started(begun)
    with closing(ResultReader(where)) as reader:
        assert reader.retried(dict.fromkeys([waits, ended, begun, "0a1b2c3d-x"], "x")) == {waits}
        assert reader.read([waits, ended, begun]).keys() == {ended}


@pytest.mark.ring(1)
@pytest.mark.postgres
def test_every_ending_from_postgres(valkey: str, postgres_url: str, tmp_path: Path) -> None:
    """The same endings from PostgreSQL, through psycopg 3."""
    backend = "db+postgresql+psycopg://" + postgres_url.partition("://")[2]
    where = address(database(valkey, 13), backend, app=APP)
    with ran(where, tmp_path, ENDINGS) as (sent, reader):
        results = by_entry(sent, results_of(reader, [a.task_id for a in sent], within=40))

    assert_endings(results)


def test_replies_over_redis(valkey: str, tmp_path: Path) -> None:
    """With rpc:// results come back on the run's own queue, are kept until they have reached who
    asked for them, and nothing is left."""
    where = address(database(valkey, 14), "rpc://", app=APP)
    with ran(where, tmp_path, [*ENDINGS, *entries(150)]) as (sent, reader):
        first, other = sent[0].task_id, attempts(entries(1))[0].task_id
        results = results_of(reader, [*(a.task_id for a in sent)], within=40)
        assert reader.read([first, other]) == {first: results[first]}
        assert not reader.retried({first: "add", other: "add"})
        reader.discard(results)
        assert reader.read([first, other]) == {}
        reader.close()
        named = by_entry(sent, results)
        with closing(redis.Redis.from_url(where.broker_url)) as client:
            left = list(client.scan_iter("*manifest-replies*"))

    assert_endings({entry.id: named[entry.id] for entry in ENDINGS}, timed=REPLIES_ARE_TIMED)
    assert [named[f"e-{n}"].result for n in range(150)] == list(range(150))
    assert left == []


@pytest.mark.rabbitmq
def test_replies_over_rabbitmq(rabbitmq_url: str, tmp_path: Path) -> None:
    """The same over RabbitMQ, with a stock worker."""
    where = address(rabbitmq_url, "rpc://", app=APP)
    with ran(where, tmp_path, [*ENDINGS, *entries(150)]) as (sent, reader):
        results = results_of(reader, [attempt.task_id for attempt in sent], within=40)
        reader.close()
        with Connection(rabbitmq_url) as connection, pytest.raises(connection.channel_errors):
            connection.channel().queue_declare(
                f"manifest-replies-{run8(sent[0].run)}", passive=True
            )

    named = by_entry(sent, results)
    assert_endings({entry.id: named[entry.id] for entry in ENDINGS}, timed=REPLIES_ARE_TIMED)
    assert [named[f"e-{n}"].result for n in range(150)] == list(range(150))


@pytest.mark.ring(1)
def test_no_result_backend_gives_nothing(valkey: str) -> None:
    """Where results are disabled there is nothing to read, and that is no error."""
    with closing(ResultReader(address(database(valkey, 15), "disabled://"))) as reader:
        assert reader.read(["0a1b2c3d-x"]) == {}


@pytest.mark.parametrize("kind", ["redis", "rpc"])
def test_unreachable_store_is_one_sentence_and_passes(valkey: str, kind: str) -> None:
    """While the store is away reading is a StackError without the password; later it works."""
    with proxied(database(valkey, 15)) as (proxy, url):
        where = address(url, "rpc://" if kind == "rpc" else url)
        with closing(ResultReader(where)) as reader:
            assert reader.read(["0a1b2c3d-x"]) == {}
            proxy.pause()
            with pytest.raises(StackError, match=r"the result backend .* cannot be read") as caught:
                reader.read(["0a1b2c3d-x"])
            proxy.resume()
            assert reader.read(["0a1b2c3d-x"]) == {}
    assert "***" in str(caught.value) or kind == "rpc"
