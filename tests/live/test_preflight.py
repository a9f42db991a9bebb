"""Preflight against real stock workers: what it finds, and what it does about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from pytest_manifest.broker.checks import demand_of
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.preflight import Preflight, add_consumers, preflight
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import QUESTIONS
from pytest_manifest.errors import StackError
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
    proxied,
    publishing,
    results_of,
    stock_worker,
)

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]


@pytest.fixture(scope="module")
def broker(valkey: str) -> str:
    """URL of an empty database."""
    return database(valkey, 2)


@pytest.fixture(scope="module")
def worker(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The node name of a stock worker that consumes ``standard`` only."""
    directory = tmp_path_factory.mktemp("worker")
    with stock_worker(address(broker, app=APP), directory, queues="standard") as name:
        yield name


@pytest.fixture
def publisher(broker: str) -> Iterator[Publisher]:
    """A publisher for the test project, on a stack that is not ours."""
    with publishing(address(broker, app=APP)) as publisher:
        yield publisher


def warnings_of(found: Preflight) -> list[str]:
    """All warnings but that of the pool: the workers here are solo ones."""
    return [one for one in found.said("warning") if "cannot stop a job" not in one]


def test_all_is_well(worker: str, publisher: Publisher) -> None:
    """Known tasks in consumed queues give no word at all, and the worker's name."""
    found = preflight(publisher, demand_of(entries(3)), expected_workers=1)

    assert found.answered
    assert found.workers == [worker]
    assert (found.unknown_tasks, found.said("error"), warnings_of(found), found.said("ok")) == (
        {},
        [],
        [],
        [],
    )


def test_number_of_workers_need_not_be_known(worker: str, publisher: Publisher) -> None:
    """Without a number, everyone who answers is heard."""
    found = preflight(publisher, demand_of(entries(3)))

    assert found.workers == [worker]
    assert warnings_of(found) == []


def test_the_last_answer_is_known(worker: str, publisher: Publisher) -> None:
    """Redis knows who listens, so that nobody waits for others when all have answered."""
    quiet = _quiet_spells(publisher, timeout=5)

    assert math.isinf(quiet[-1])
    assert not any(map(math.isinf, quiet[:-1]))


def test_the_dead_are_waited_for(worker: str, publisher: Publisher, broker: str) -> None:
    """A worker that was killed is still in Redis's list: then silence alone tells."""
    with redis.Redis.from_url(broker) as client:
        [key] = client.keys("*_kombu.binding.celery.pidbox")  # with the app's prefix
        [living] = client.smembers(key)
        assert living.endswith(f"{worker}.celery.pidbox".encode())
        dead = living.replace(worker.encode(), b"dead@host")
        client.sadd(key, dead)
        try:
            quiet = _quiet_spells(publisher, timeout=0.3)
        finally:
            client.srem(key, dead)

    assert not any(map(math.isinf, quiet))
    assert preflight(publisher, demand_of(entries(1))).workers == [worker]


def _quiet_spells(publisher: Publisher, timeout: float) -> list[float]:
    """How long nobody had answered each time that it was asked whether that is enough, in s."""
    spells: list[float] = []

    def enough(answers: Answers, quiet: float) -> bool:
        spells.append(quiet)
        return math.isinf(quiet)

    publisher.control.call(QUESTIONS, timeout=timeout, enough=enough)
    return spells


def test_unknown_task_is_named_with_the_nearest_names(worker: str, publisher: Publisher) -> None:
    """A task that no worker has registered comes with the names it may have meant."""
    demand = demand_of(
        [
            Entry(id="a", task="stock.ecko"),
            Entry(id="b", task="tasks.sleep"),
            Entry(id="c", task="zzz"),
            Entry(id="d", task="celery.backend_cleanup"),
            *entries(1),
        ]
    )
    found = preflight(publisher, demand, expected_workers=1)

    assert list(found.unknown_tasks) == ["stock.ecko", "tasks.sleep", "zzz"]
    assert found.unknown_tasks["stock.ecko"][0] == "stock.echo"
    assert found.unknown_tasks["tasks.sleep"][0] == "stock.sleep"
    assert found.unknown_tasks["zzz"] == []


def test_no_worker_is_a_warning(valkey: str) -> None:
    """Nobody's answer is not a no: nothing is unknown, nothing refused, one warning says so."""
    with publishing(address(database(valkey, 3), app=APP)) as publisher:
        found = preflight(
            publisher, demand_of([Entry(id="a", task="no.such")]), timeout=0.2, expected_workers=2
        )

    assert not found.answered
    assert (found.unknown_tasks, found.said("error"), found.workers) == ({}, [], [])
    [warning] = found.said("warning")
    assert warning.startswith("no worker answered within 0.2 s")


def test_missing_workers_are_counted(worker: str, publisher: Publisher) -> None:
    """Fewer answers than workers that should be there is a warning that names who answered."""
    found = preflight(publisher, demand_of(entries(1)), expected_workers=3, timeout=0.3)

    assert warnings_of(found) == [f"only 1 of 3 workers answered within 0.3 s: {worker}"]


def test_unconsumed_queue_on_an_external_stack(worker: str, publisher: Publisher) -> None:
    """A queue that no worker consumes is a warning that says what to do, and stays as it is."""
    demand = demand_of([Entry(id="a", task="stock.echo", queue="attic")])
    found = preflight(publisher, demand, expected_workers=1)

    [warning] = warnings_of(found)
    assert "consumes queue 'attic', where jobs of stock.echo go" in warning
    assert found.idle == ["attic"]
    assert "celery control add_consumer attic" in warning
    assert found.added_queues == []


@pytest.mark.ring(2)
def test_unconsumed_queue_on_our_own_stack(valkey: str, tmp_path: Path) -> None:
    """On our own stack the workers are told to consume it, and jobs sent there run."""
    where = address(database(valkey, 4), app=APP, owned=True)
    sent = attempts(
        [
            Entry(id="a", task="stock.echo", args=[1], queue="cellar"),
            Entry(id="b", task="stock.heavy", args=[2]),
            Entry(id="c", task="stock.topical"),
        ]
    )
    with (
        stock_worker(where, tmp_path, queues="standard"),
        publishing(where) as publisher,
        closing(ResultReader(where)) as reader,
    ):
        found = preflight(publisher, demand_of(a.entry for a in sent), expected_workers=1)
        assert (found.added_queues, warnings_of(found)) == (["cellar", "heavy", "news"], [])
        publisher.publish(sent, SENT_AT)
        results = results_of(reader, [attempt.task_id for attempt in sent])
        add_consumers(publisher, found.added_queues)  # as after a restart; harmless otherwise
        again = preflight(publisher, demand_of(a.entry for a in sent), expected_workers=1)

    assert [results[attempt.task_id].result for attempt in sent] == [1, 2, "sport"]
    assert again.added_queues == []


def test_visibility_rule(worker: str, publisher: Publisher) -> None:
    """What may stay unacknowledged beyond the visibility timeout is refused, with its figures."""
    late = preflight(
        publisher,
        demand_of([Entry(id="far", task="stock.echo", countdown=4000)]),
        expected_workers=1,
    )
    [refusal] = late.holding
    assert refusal.message.startswith(
        "entry 'far' (stock.echo) has a countdown or eta of 4000 s, and this broker hands it to "
        "another worker after 3600 s"
    )

    # Four are prefetched for one slot; the rule counts those that run before.
    many = [Entry(id=f"e-{n}", task="stock.heavy", timeout=900, idempotent=True) for n in range(9)]
    [refusal] = preflight(publisher, demand_of(many), expected_workers=1).holding
    assert "That is 2700 s for 3 prefetched jobs before it" in refusal.message
    assert "its own timeout of 900 s, as it is acknowledged late" in refusal.message
    assert preflight(publisher, demand_of(many[:3]), expected_workers=1).holding == []


def test_visibility_timeout_of_the_workers_counts(valkey: str, tmp_path: Path) -> None:
    """Workers with a shorter visibility timeout than the client's app has are believed."""
    where = address(database(valkey, 5), app=APP)
    with (
        stock_worker(where, tmp_path, env={"TEST_VISIBILITY_TIMEOUT": "60"}),
        publishing(where) as publisher,
    ):
        demand = demand_of([Entry(id="far", task="stock.echo", countdown=90)])
        [refusal] = preflight(publisher, demand, expected_workers=1).holding

    assert "hands it to another worker after 60 s" in refusal.message


def test_acknowledgement_and_idempotence_disagree(worker: str, publisher: Publisher) -> None:
    """Each task, not each entry, gets one line where acks_late and ``idempotent`` disagree."""
    found = preflight(
        publisher,
        demand_of(
            [
                *entries(5, task="stock.heavy", queue="standard"),
                Entry(id="x", task="stock.echo", queue="standard", idempotent=True),
                Entry(id="y", task="stock.own", queue="standard"),
            ]
        ),
        expected_workers=1,
    )

    early, late = found.said("ok")
    assert early.startswith("stock.echo: acknowledged early")
    assert late.startswith("stock.heavy: acknowledged late")
    assert "5 of 5 entries are not declared idempotent" in late


def test_waiting_ends_when_enough_is_known(worker: str, publisher: Publisher) -> None:
    """Questions are not waited for any longer than until the caller has heard enough."""
    verdicts: list[bool] = []

    def enough(answers: Answers, quiet: float) -> bool:
        verdicts.append(worker in answers["ping"])
        return verdicts[-1]

    answers = publisher.control.call({"ping": {}}, timeout=30, enough=enough)

    assert answers == {"ping": {worker: {"ok": "pong"}}}
    assert verdicts.index(True) == len(verdicts) - 1


def test_nothing_is_left_in_the_broker(valkey: str) -> None:
    """The reply queue of the questions and its binding are gone afterwards."""
    url = database(valkey, 6)
    with publishing(address(url)) as publisher:
        preflight(publisher, demand_of(entries(1)), timeout=0.05)
    with closing(redis.Redis.from_url(url)) as client:
        left = {key for key in client.scan_iter("*") if client.type(key) == b"list"}
        bindings = client.smembers("_kombu.binding.reply.celery.pidbox")

    assert left == set()
    assert bindings == set()


def test_unreachable_broker_is_one_sentence(broker: str) -> None:
    """A broker that is not there is a StackError that names it, without its password."""
    with proxied(broker) as (proxy, url):
        proxy.close()
        with (
            publishing(StackAddress(url, url, None, False)) as publisher,
            pytest.raises(StackError, match=r"redis://:\*\*\*@127\.0\.0\.1:\d+/2 cannot be asked"),
        ):
            preflight(publisher, demand_of(entries(1)))
