"""Trees of attempts that a run is stopped in, and trees that are taken up again."""

from __future__ import annotations

import pytest

from tests.unit.run_family import Family, entry
from tests.unit.run_rig import Plan, Rig, rig
from tests.unit.run_world import Delivery


def test_a_run_that_is_stopped_takes_descendants_back(family: Family) -> None:
    """Those that wait; an entry of which one was taken back did not pass."""
    family.end(family.started_children("c1"))
    family.made.step(2)
    family.made.stop(by_a_person=False)
    family.made.engine.wind_down()
    assert not family.world.queue
    assert family.made.kind("a") == "withdrawn"


def test_the_end_of_time_names_the_descendant_that_has_not_ended() -> None:
    """The deadline of the run, on a stack of others: nothing is taken back there."""
    with rig(Plan((entry(timeout=500.0),), deadline=20.0, owned=False)) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        family.begin()
        made.run(30)
        assert made.kind("a") == "timed_out"
        assert "'task.c1' (c1), started by 't', timed out" in made.sentence("a")


def test_a_second_pass_goes_on_where_the_first_one_was_killed(family: Family) -> None:
    """The tree is in the ledger: who takes the run up waits for the same tasks."""
    family.end(family.started_children("c1"))
    assert family.status() is None
    family.made.start_again()
    family.made.step(2)
    assert family.made.kind("a") is None
    family.run("failed")
    assert family.status() == "failed"


def test_a_second_pass_concludes_a_tree_that_was_complete(family: Family) -> None:
    """The end of the last descendant is the first thing that it reads."""
    family.end(family.started_children("c1"))
    assert family.status() is None
    family.run("succeeded")
    family.made.start_again()
    assert family.status() == "passed"


def test_a_descendant_that_outlived_the_run_is_found_by_the_next_one() -> None:
    """Its entry was timed out for it; who takes the run up waits for it, and knows better then."""
    with rig(Plan((entry(timeout=500.0),), deadline=20.0, owned=False)) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        child = family.begin()
        made.run(30)
        assert made.kind("a") == "timed_out"
        made.done = False
        made.start_again()
        family.end(child)
        made.step(2)
        assert made.kind("a") == "passed"


# What is sent again while tasks of the old attempt are there


def given_up(made: Rig) -> tuple[Family, Delivery]:
    """A job that failed, and whose child runs on when the run's time is over."""
    family = Family(made)
    family.end(family.started_children("c1"), "failed")
    child = family.begin()
    made.run(30)
    assert made.kind("a") == "failed"
    made.done = False
    made.start_again()
    made.step(2)
    return family, child


OTHERS = Plan((entry(timeout=500.0, idempotent=True),), deadline=20.0, owned=False)


def test_a_job_that_failed_is_not_sent_again_beside_its_old_tree() -> None:
    """Its verdict was its own; a task that it had started may run all the same."""
    with rig(OTHERS) as made:
        family, child = given_up(made)
        assert set(made.engine.pending.held) == {family.root}
        made.engine._context.to_repeat.add("a")
        made.step(5)
        assert set(made.world.published) == {family.root}
        family.end(child)
        made.step(3)
        assert set(made.world.published) == {family.root, made.task_id("a", 2)}


def test_a_tree_that_passes_after_all_is_not_sent_again() -> None:
    """It was timed out for a task that has come to its end meanwhile."""
    with rig(OTHERS) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        child = family.begin()
        made.run(30)
        made.done = False
        made.start_again()
        made.engine._context.to_repeat.add("a")
        family.end(child)
        made.step(3)
        assert (made.kind("a"), len(made.ledger.attempts.of_entry("a"))) == ("passed", 1)


def test_a_tree_whose_task_outlives_its_time_again_is_not_sent_again() -> None:
    """It may go on; the verdict is there all the same."""
    with rig(Plan((entry(timeout=15.0, idempotent=True),), owned=False)) as made:
        family = Family(made)
        family.end(family.started_children("c1"), "failed")
        family.begin()
        made.run(30)
        assert made.kind("a") == "failed"
        made.done = False
        made.start_again()
        made.engine._context.to_repeat.add("a")
        made.run(30)
        assert (made.kind("a"), len(made.ledger.attempts.of_entry("a"))) == ("failed", 1)


@pytest.mark.parametrize("where", ["queued", "reserved", "unacked by a dead worker"])
def test_what_an_old_attempt_left_is_waited_for(where: str) -> None:
    """Wherever its message is, and however long its countdown: it is part of that attempt."""
    with rig(Plan((entry(),))) as made:
        family = Family(made)
        family.end(family.started_children("c1"), "failed")
        made.step(2)
        if where != "queued":
            made.world.take(family.worker)
        if where == "unacked by a dead worker":
            made.world.kill(family.worker, restart=1.0)
        made.start_again()
        made.run(120)
        assert made.kind("a") is None
        if not family.worker.reserved:
            made.world.take(family.worker)
        delivery = made.world.begin(family.worker)
        assert delivery is not None
        family.end(delivery)
        assert family.status() == "failed"


@pytest.mark.parametrize("ends", [True, False])
def test_a_lost_descendant_has_its_job_sent_again_once_the_others_have_ended(ends: bool) -> None:
    """One that was given up, and may go on, keeps it back."""
    with rig(Plan((entry(idempotent=True, retries=1),))) as made:
        family = Family(made)
        family.end(family.started_children("c1", "c2"))
        made.world.queue.popleft()
        other = family.begin()
        made.run(25)
        assert set(made.world.published) == {family.root}
        if ends:
            family.end(other)
        made.run(30)
        assert len(made.ledger.attempts.of_entry("a")) == (2 if ends else 1)
        assert made.kind("a") == (None if ends else "lost")
