"""Descendants that start late, those on another broker, and jobs that run again after an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest
from pydantic import JsonValue

from pytest_manifest.broker.redelivery import BY_APP, Visibility
from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.wire import timestamp
from tests.reports import tree_counts
from tests.unit.run_family import Family, entry
from tests.unit.run_rig import RUN, Plan, rig
from tests.unit.run_world import Record, _started, finished, receipt_of

OTHER = "redis://other.example.com:6379/0"


# Countdowns


def spawn_late(family: Family, *names: str, delay: float, timeout: float | None) -> None:
    """The entry's job starts these with a countdown; the broker holds a message for so long."""
    context = family.made.engine._context
    context.held_for = None if timeout is None else Visibility(timeout, BY_APP)
    family.made.step()
    job = family.begin()
    due = timestamp(family.world.clock.utc_now() + timedelta(seconds=delay))
    for name in names:
        family.spawn(name, due=due)
    family.send(*names)
    family.end(job)
    family.made.step()


def test_a_countdown_beyond_the_visibility_timeout_is_warned_of(family: Family) -> None:
    """At once, by the task's name and both times; each task once."""
    spawn_late(family, "c1", "c2", delay=7200, timeout=3600)
    found = family.made.engine._context.warnings
    assert [one.split(",")[0] for one in found] == ["task 'task.c1'", "task 'task.c2'"]
    assert "has a countdown or an ETA of 7200 s, but this broker" in found[0]
    assert "raise visibility_timeout in the app's broker_transport_options" in found[0]
    assert family.made.engine._context.live_warnings == found


@pytest.mark.parametrize(("delay", "timeout"), [(60, 3600), (7200, None)])
def test_a_countdown_that_the_broker_allows_is_not(
    family: Family, delay: float, timeout: float | None
) -> None:
    """Nor is any on a broker that lets a worker hold a message."""
    spawn_late(family, "c1", delay=delay, timeout=timeout)
    assert family.made.engine._context.warnings == []


def test_a_duplicate_says_how_long_its_message_was_held(family: Family) -> None:
    """Which is why it was delivered again."""
    spawn_late(family, "c1", delay=7200, timeout=3600)
    first = family.begin()
    assert first.execution is not None
    again = {**_started(first.execution), "execution": "another", "pid": 1}
    family.world._append(Record(0, again, "c1", started=True))
    family.end(first)
    assert family.status() == "duplicated"
    assert "a countdown or an ETA of " in family.made.sentence("a")


def test_a_retry_beyond_the_visibility_timeout_is_warned_of(family: Family) -> None:
    """An entry's own job as well as a descendant."""
    family.made.engine._context.held_for = Visibility(60.0, BY_APP)
    family.made.step()
    job = family.begin()
    assert job.execution is not None
    now = family.world.clock.utc_now()
    family.world.tell(
        {
            "kind": "handed_on",
            "task_id": family.root,
            "execution": job.execution.name,
            "how": "retry",
            "ended_at": timestamp(now),
            "next_at": timestamp(now + timedelta(seconds=180)),
        }
    )
    family.made.step()
    assert "the next try of task 't', has a countdown" in family.made.engine._context.warnings[0]


def test_the_queues_that_workers_send_to_are_searched(family: Family) -> None:
    """Those of a job's next try and of what it starts, also by a session that takes the run up once
    that try has begun: a message that its worker leaves comes back there."""
    context = family.made.engine._context
    family.made.step()
    job = family.begin()
    assert job.execution is not None
    family.spawn("c1", queue="others")
    family.made.step()
    assert "others" in context.queues
    said = {"kind": "handed_on", "task_id": family.root, "execution": job.execution.name}
    now = timestamp(family.world.clock.utc_now())
    family.world.tell({**said, "how": "retry", "ended_at": now, "next_at": None, "queue": "slow"})
    family.made.step()
    assert {"others", "slow"} <= set(context.queues)
    family.world.tell(_started(job.execution) | {"execution": "x9", "retries": 1})
    family.made.step()
    assert context.pending.by_task_id[family.root].is_running
    assert {"others", "slow"} <= set(replace(context).queues)


# Another broker


def sent_elsewhere(family: Family) -> None:
    """The entry's job starts a task on another broker, and ends."""
    family.made.step()
    job = family.begin()
    family.spawn("c1")
    where: JsonValue = {"c1": OTHER}
    family.end(job, facts={"elsewhere": where})


def test_what_another_broker_has_is_not_called_lost(family: Family) -> None:
    """It is waited for as long as it may run; then nobody knows what became of it."""
    sent_elsewhere(family)
    family.made.run(20)
    assert family.made.kind("a") is None
    family.made.run(30 + TIMEOUT_GRACE + 60)
    assert family.made.kind("a") == "unknown"
    assert f"sent to another broker than the run's, {OTHER}, where" in family.made.sentence("a")


def test_what_another_broker_has_counts_when_it_is_told_of(family: Family) -> None:
    """Its workers may write into the same result store."""
    sent_elsewhere(family)
    family.made.run(20)
    family.send("c1")
    family.run("failed")
    assert family.status() == "failed"


def test_what_runs_from_another_broker_is_looked_for_as_all_else(family: Family) -> None:
    """A start shows where it is: one whose process is gone has crashed."""
    sent_elsewhere(family)
    family.made.step()
    family.send("c1")
    family.begin()
    family.made.step()
    family.world.kill(family.worker, restart=1.0)
    family.made.run(60)
    assert family.made.kind("a") == "crashed"


def test_a_run_that_is_stopped_cannot_take_back_what_another_broker_has(family: Family) -> None:
    """So nothing is claimed of it, and the next one takes it up."""
    sent_elsewhere(family)
    family.made.step(2)
    family.made.stop(by_a_person=True)
    family.made.engine.wind_down()
    assert family.made.kind("a") is None
    one = family.made.ledger.descendants.get("c1")
    assert one is not None
    assert (one.broker, one.status) == (OTHER, None)


# Jobs that send their own message again and go on


def sent_again(family: Family, how: str) -> Receipt:
    """The entry's job sends its message again, and comes to its end; returns its receipt."""
    job = family.begin()
    assert job.execution is not None
    now = timestamp(family.world.clock.utc_now())
    ended = {"task_id": family.root, "execution": job.execution.name, "how": how, "ended_at": now}
    family.world.tell({"kind": "handed_on", **ended, "next_at": None})
    family.world.queue.append(replace(job.message, retries=1 if how == "retry" else 0))
    receipt = receipt_of(job.execution, "succeeded", family.world.clock.utc_now())
    family.end(job)
    return receipt


@pytest.mark.parametrize(
    ("how", "last"), [("retry", "succeeded"), ("retry", "failed"), ("task", "failed")]
)
def test_a_job_that_has_sent_itself_again_ends_with_its_last_run(
    family: Family, how: str, last: Literal["succeeded", "failed"]
) -> None:
    """By ``retry(throw=False)``, say: the result that is stored meanwhile is no end."""
    family.made.step()
    earlier = sent_again(family, how)
    assert family.status() is None
    family.world.tell({"kind": "finished", "receipt": earlier.model_dump(mode="json")})
    assert family.status() is None
    assert len(family.made.ledger.events.receipts(family.root)) == 1
    family.run(last)
    assert family.status() == ("passed" if last == "succeeded" else "failed")


def test_a_job_that_has_sent_itself_again_is_lost_with_that_message(family: Family) -> None:
    """Nobody has it any more: no green."""
    family.made.step()
    sent_again(family, "retry")
    family.world.queue.clear()
    family.made.run(60)
    assert family.made.kind("a") == "lost"


def test_what_was_given_up_at_its_deadline_is_not_revoked_afterwards() -> None:
    """The run takes it back then, and its worker says so: that is no other end."""
    with rig(Plan((entry(deadline=10.0),))) as made:
        family = Family(made)
        job = family.started_children("c1")
        family.end(job)
        made.run(12.0)
        assert tree_counts(made.ledger, family.root) == {"timed_out": 1}
        said = {"run": RUN, "entry": "a", "attempt": 1, "task_id": "c1", "task": "task.c1"}
        revoked = Receipt.model_validate({**said, "state": "revoked", "source": "worker"})
        origin = {"root": family.root, "parent": family.root}
        made.world.tell({**finished("x2", revoked), **origin})
        made.look()
        assert tree_counts(made.ledger, family.root) == {"timed_out": 1}
        assert made.kind("a") == "timed_out"
