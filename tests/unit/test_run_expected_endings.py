"""What an entry expects of its job is met by its job alone, never by what the harness does."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest

from pytest_manifest.schema import Entry, Expectations, State, VerdictStatus
from pytest_manifest.verdict.problems import (
    NeverBegun,
    RunDeadline,
    RunDeadlineUnanswered,
)
from tests.unit.run_family import Family
from tests.unit.run_family import entry as of_family
from tests.unit.run_rig import Plan, Rig, begun, note_stock, rig
from tests.unit.run_world import Delivery
from tests.verdicts import evaluate

Both = Literal["timed_out", "revoked", "crashed", "expired", "unknown_task"]
"""Names of states that verdicts have, too."""
NOT_BY_ITSELF = "it is not known that the job ended so by itself"


def expecting(state: State, name: str = "a", *, deadline: float | None = None) -> Entry:
    return Entry(
        id=name, task="t", timeout=30.0, deadline=deadline, expect=Expectations(state=state)
    )


def die(made: Rig, delivery: Delivery) -> None:
    """The process that runs a job dies, and its message, acknowledged before, is gone with it."""
    assert delivery.execution is not None
    made.world.dead.add(delivery.execution.pid)
    made.world.workers["w1@box"].running.remove(delivery)
    made.world.unacked.pop(delivery.tag, None)


@pytest.mark.parametrize("state", get_args(Both))
def test_what_the_harness_says_of_a_job_meets_no_expectation(state: Both) -> None:
    """Its own verdict may have the name that was expected; the job has done nothing for it."""
    entry = expecting(state)
    verdict = evaluate(entry, None, attempt=1, problem=state)
    assert verdict.verdict == state
    assert NOT_BY_ITSELF in verdict.sentence
    assert evaluate(entry, None, attempt=1, problem=state, seen=True).verdict == "passed"


def test_a_job_that_was_never_begun_has_not_timed_out() -> None:
    """Its deadline is over, and nobody has had it."""
    with rig(Plan((expecting("timed_out", deadline=20.0),))) as made:
        made.step()
        made.run(40)
        assert made.kinds() == {"a": "timed_out"}
        assert NOT_BY_ITSELF in made.sentence("a")


@pytest.mark.parametrize("deadline", [None, 20.0])
def test_a_job_that_was_begun_and_does_not_end_has_timed_out(deadline: float | None) -> None:
    """Past its own timeout, or past the deadline that the entry itself has."""
    with rig(Plan((expecting("timed_out", deadline=deadline),))) as made:
        made.step()
        begun(made)
        made.run(60)
        assert made.kinds() == {"a": "passed"}


def test_a_job_that_waited_for_another_try_has_not_timed_out() -> None:
    """A try of it was begun and ended; the run's time was over before the next one."""
    entry = expecting("timed_out")
    with rig(Plan((entry,), deadline=20.0)) as made:
        made.step()
        made.world.end(made.world.workers["w1@box"], begun(made), "retried")
        made.run(60)
        assert made.kinds() == {"a": "timed_out"}


@pytest.mark.parametrize(("ran", "kind"), [(10.0, "timed_out"), (31.0, "passed")])
def test_the_end_of_the_run_is_no_timeout_of_a_job(ran: float, kind: str) -> None:
    """What has run for less than its timeout when the run's time is over might have been quick."""
    entries = expecting("timed_out"), expecting("timed_out", "b"), expecting("crashed", "c")
    with rig(Plan(entries)) as made:
        made.step()
        begun(made)
        made.step()
        made.world.clock.sleep(ran)
        made.engine.record_rest(RunDeadline(limit=1.0))
        assert made.kinds() == {"a": kind, "b": "timed_out", "c": "timed_out"}


@pytest.mark.parametrize(
    ("status", "over"), [("timed_out", RunDeadline), ("pending", RunDeadlineUnanswered)]
)
def test_a_job_that_is_known_to_be_dead_when_the_run_is_over_has_crashed(
    status: VerdictStatus, over: type[RunDeadline] | type[RunDeadlineUnanswered]
) -> None:
    """No more is said of one that may live, that waits, or that runs where nobody can look."""
    entries = [Entry(id=one, task="t") for one in ("dead", "lives", "elsewhere")]
    entries += [expecting("crashed", "meant to"), Entry(id="waits", task="t")]
    with rig(Plan(tuple(entries), owned=False)) as made:
        made.step()
        for name in ("dead", "lives", "elsewhere", "meant to"):
            delivery = begun(made)
            if name != "lives":
                die(made, delivery)
        made.step()
        job = made.engine.pending.by_task_id[made.task_id("elsewhere")]
        job.start = job.start and replace(job.start, host="another")
        made.engine.record_rest(over(limit=1.0))
        kinds = {"dead": "crashed", "meant to": "passed"} if status == "timed_out" else {}
        assert made.kinds() == dict.fromkeys(made.manifest.ids, status) | kinds
        if status == "timed_out":
            assert "The process that ran the task died" in made.sentence("dead")
            assert "deadline" not in made.sentence("dead")
            assert "deadline" in made.sentence("lives")


@pytest.mark.parametrize("others", [(), ("lives",)])
def test_a_descendant_that_is_known_to_be_dead_when_the_run_is_over_has_crashed(
    others: tuple[str, ...],
) -> None:
    """And its entry by it, whatever else of its tree goes on."""
    with rig(Plan((of_family(),), owned=False)) as made:
        family = Family(made)
        family.end(family.started_children("dead", *others))
        die(made, family.begin())
        for _ in others:
            family.begin()
        made.step()
        made.engine.record_rest(RunDeadline(limit=1.0))
        found = {one.task_id: one.status for one in made.ledger.descendants.of_root(family.root)}
        assert found == {"dead": "crashed"} | dict.fromkeys(others, "timed_out")
        assert made.kinds() == {"a": "crashed"}
        assert "'task.dead' (dead), started by 't', crashed" in made.sentence("a")


@pytest.mark.parametrize("by_a_person", [False, True])
def test_what_a_stopped_run_takes_back_was_not_revoked_for_the_test(*, by_a_person: bool) -> None:
    """Whether the workers' word comes first, or that of the harness."""
    with rig(Plan((expecting("revoked"), expecting("revoked", "b")))) as made:
        made.step()
        made.world.take(made.world.workers["w1@box"])
        made.stop(by_a_person=by_a_person)
        made.engine.wind_down()
        made.world.become_fair()
        made.world.clock.sleep(5)
        made.look()
        assert made.kinds() == {"a": "withdrawn", "b": "withdrawn"}
        assert made.sentence("a").startswith("The job was taken back")


def test_what_is_revoked_as_too_much_has_failed_was_not_revoked_for_the_test() -> None:
    """The run gives up the rest; what expects to be revoked does not pass by that."""
    entries = Entry(id="a", task="t"), expecting("revoked", "b")
    plan = Plan(entries, max_failed=0, revoke_on_max_failed=True)
    with rig(plan) as made:
        made.step()
        delivery = begun(made)
        made.world.end(made.world.workers["w1@box"], delivery, "failed")
        made.step(2)
        made.finish()
        assert made.kinds() == {"a": "failed", "b": "revoked"}


def test_what_stock_workers_leave_no_trace_of_is_unknown() -> None:
    """It may have run and raised Ignore; workers of ours would have said that it began."""
    for stock, kind in ((True, "unknown"), (False, "lost")):
        with rig(Plan((Entry(id="a", task="t"),))) as made:
            if stock:
                note_stock(made.ledger, "w1@box")
            made.step()
            made.world.queue.clear()
            made.run(30)
            assert made.kinds() == {"a": kind}
            assert ("raised Ignore" in made.sentence("a")) is stock


def test_a_job_that_somebody_else_revoked_meets_its_expectation() -> None:
    """That is what it waits for."""
    with rig(Plan((expecting("revoked"),))) as made:
        made.step()
        made.publisher.revoke([made.task_id("a")])
        made.finish()
        assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize("own", [None, "redis://other:6379/1"])
def test_a_lost_job_names_the_store_that_was_asked(own: str | None) -> None:
    """And the one that the app's settings name, where that is another: it may be there."""
    told = NeverBegun(store="redis://asked:6379/0", own=own or "").phrase()
    assert told.startswith(
        "no worker has begun it; results were looked for in redis://asked:6379/0"
    )
    assert ("the app's own settings keep results in redis://other" in told) is bool(own)
