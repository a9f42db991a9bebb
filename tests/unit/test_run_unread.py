"""Jobs of which the store has something that nobody can read: not lost, and not sent again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection

from pytest_manifest.broker.attempt import run8
from pytest_manifest.broker.connection import reply_queue
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.records import ReadErrors
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from tests.unit.run_rig import RUN, Plan, Rig, note_stock, rig

WHY = "it cannot be decoded"
TASK_ID = f"{run8(RUN)}-1"


def leave_unreadable(made: Rig) -> None:
    made.collector.flaws.add_result(made.task_id("a"), WHY)


def sentence(made: Rig) -> str:
    settled = made.ledger.verdicts.of_entry("a")
    assert settled is not None
    return settled.verdict.sentence


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_is_nowhere_and_has_a_result_is_not_lost(idempotent: bool) -> None:
    """Its result is there, and cannot be read: that is what is said, once, with the reason."""
    entry = Entry(id="a", task="t", idempotent=idempotent)
    with rig(Plan((entry,))) as made:
        made.step()
        made.world.take(next(iter(made.world.workers.values())), vanishes=True)
        leave_unreadable(made)
        made.run(15)
        assert made.kinds() == {"a": "unknown"}
        assert WHY in sentence(made)
        assert made.world.published == {made.task_id("a"): 1}


@pytest.mark.parametrize(
    "plan",
    [
        Plan((Entry(id="a", task="t"),), deadline=3),
        Plan((Entry(id="a", task="t", deadline=3),)),
    ],
    ids=["of the run", "of the entry"],
)
def test_a_deadline_makes_no_other_end_of_it(plan: Plan) -> None:
    """It had its end in time, for all that is known."""
    with rig(plan) as made:
        made.step()
        made.world.take(next(iter(made.world.workers.values())), vanishes=True)
        leave_unreadable(made)
        made.run(10)
        assert made.kinds() == {"a": "unknown"}
        assert WHY in sentence(made)


def test_what_nobody_can_tell_stays_so_at_the_deadline() -> None:
    """An entry that was told of with the reason has not run out of time with those that go on."""
    with rig(Plan((Entry(id="a", task="t"), Entry(id="b", task="t")), deadline=20)) as made:
        note_stock(made.ledger, "w")
        made.step()
        worker = next(iter(made.world.workers.values()))
        made.world.take(worker, vanishes=True)
        made.world.take(worker)
        assert made.world.begin(worker) is not None
        made.run(15)
        assert made.kinds() == {"a": "unknown"}
        told = sentence(made)
        made.run(20)
        assert (made.kinds()["a"], sentence(made)) == ("unknown", told)
        assert made.kinds()["b"] in ("timed_out", "crashed")


def test_a_file_that_is_no_result_is_told_until_it_is_one(tmp_path: Path) -> None:
    """A key-value store: something stands there, until a better word of the job takes its place."""
    url = f"file://{tmp_path}"
    backend = Celery("files", backend=url, set_as_current=False).backend
    backend.set(backend.get_key_for_task(TASK_ID), b"\x80no result")
    flaws = ReadErrors()
    with closing(
        ResultReader(StackAddress("memory://", url, None, is_private=False), flaws)
    ) as reader:
        for _ in range(2):
            assert reader.read([TASK_ID, f"{TASK_ID}2"]) == {}
        assert "cannot be decoded" in flaws.results[TASK_ID]
        assert (list(flaws.results), flaws.count) == ([TASK_ID], 1)
        backend.delete(backend.get_key_for_task(TASK_ID))
        backend.store_result(TASK_ID, 7, "SUCCESS")
        assert reader.read([TASK_ID])[TASK_ID].result == 7
    assert flaws.results == {}


def test_a_reply_that_cannot_be_decoded_is_told_of_its_job() -> None:
    """By the name that is on the message: it can be had once only."""
    flaws = ReadErrors()
    address = StackAddress("memory://", "rpc://", None, is_private=False)
    with closing(ResultReader(address, flaws)) as reader, Connection("memory://") as connection:
        assert reader.read([TASK_ID]) == {}
        queue = reply_queue(run8(RUN))
        with connection.Producer() as producer:
            producer.publish(
                b"{no JSON",
                routing_key=queue.name,
                content_type="application/json",
                content_encoding="utf-8",
                correlation_id=TASK_ID,
            )
        assert reader.read([TASK_ID]) == {}
    assert list(flaws.results) == [TASK_ID]
