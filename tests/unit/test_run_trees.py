"""An attempt and the tasks that it starts, in the simulated world: one verdict on all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from pydantic import JsonValue

from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.wire import timestamp
from tests.reports import tree_counts
from tests.unit.run_family import Family, entry
from tests.unit.run_rig import Plan, rig
from tests.unit.run_world import Delivery, Record, _started, finished, receipt_of


def test_a_job_has_passed_when_all_that_it_started_has(family: Family) -> None:
    """Not before, though its own receipt is there."""
    family.end(family.started_children("c1", "c2"))
    assert family.status() is None
    family.run("succeeded")
    assert family.status() is None
    family.run("succeeded")
    assert family.status() == "passed"
    assert "its 2 descendants succeeded" in family.made.sentence("a")
    assert family.made.done


def test_a_job_without_descendants_is_judged_at_once(family: Family) -> None:
    """And nothing is said of any."""
    family.end(family.started_children())
    assert family.status() == "passed"
    assert "descendant" not in family.made.sentence("a")


def test_the_children_of_children_count_as_well(family: Family) -> None:
    """To any depth, and also when each is told of only while the one above it runs."""
    family.end(family.started_children("c1"))
    middle = family.begin()
    family.spawn("c2", parent="c1")
    family.send("c2")
    family.end(middle)
    assert family.status() is None
    family.run("failed")
    assert family.status() == "failed"
    said = family.made.sentence("a")
    assert "descendant 'task.c2' (c2), started by 'task.c1', failed" in said
    assert "1 more" not in said


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        (None, "unknown"),
        ("succeeded", "unknown"),
        ("finished", "unknown"),
        ({"outcome": "ignored", "count": 2}, "unknown"),
        ("ignored", "passed"),
    ],
)
def test_a_descendant_that_started_more_than_was_reported_leaves_its_entry_unknown(
    expected: str | Mapping[str, object] | None, status: VerdictStatus
) -> None:
    """As the entry's own job would; the others of the tree have all succeeded."""
    expect = {} if expected is None else {"descendants": expected}
    with rig(Plan((entry(expect=expect),))) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        middle = family.begin()
        family.spawn("c2", parent="c1")
        family.send("c2")
        family.children["c1"] += 1
        family.end(middle)
        family.run("succeeded")
        assert family.status() == status
        said = "is not known (1 descendant started more tasks than were reported)"
        assert (said in made.sentence("a")) == (status == "unknown")


def test_a_report_of_what_a_descendant_started_may_follow_the_verdict(family: Family) -> None:
    """It corrects it, once that task has ended as well."""
    family.end(family.started_children("c1"))
    middle = family.begin()
    family.children["c1"] += 1
    family.end(middle)
    assert family.status() == "unknown"
    family.children["c1"] -= 1
    family.spawn("c2", parent="c1")
    family.send("c2")
    family.run("succeeded")
    family.made.look()
    assert family.made.kind("a") == "passed"
    assert "its 2 descendants succeeded" in family.made.sentence("a")


def test_the_first_that_failed_is_named_and_the_others_counted(family: Family) -> None:
    """With its own sentence."""
    family.end(family.started_children("c1", "c2", "c3"))
    family.run("succeeded", "failed", "failed")
    assert family.status() == "failed"
    said = family.made.sentence("a")
    assert "'task.c2' (c2), started by 't', failed: The task raised Boom: no" in said
    assert "1 more of its 3 descendants did not succeed" in said


def test_a_message_taken_out_of_the_queue_is_lost(family: Family) -> None:
    """It is looked for in all places, like an entry's job."""
    family.end(family.started_children("c1"))
    family.made.step()
    family.world.queue.clear()
    family.made.run(30)
    assert family.made.kind("a") == "lost"
    assert "'task.c1' (c1), started by 't', was lost" in family.made.sentence("a")


def test_a_descendant_that_was_running_when_its_worker_died_has_crashed(family: Family) -> None:
    """Its entry has, too."""
    family.end(family.started_children("c1"))
    family.begin()
    family.made.step()
    family.world.kill(family.worker, restart=1.0)
    family.made.run(60)
    assert family.made.kind("a") == "crashed"


def test_a_descendant_that_runs_twice_makes_its_entry_duplicated(family: Family) -> None:
    """Before its end, or after it: then the verdict that was given is corrected."""
    family.end(family.started_children("c1"))
    first = family.begin()
    assert first.execution is not None
    family.end(first)
    assert family.status() == "passed"
    again = replace(first.execution, name="another", pid=first.execution.pid + 1)
    family.world._append(Record(0, _started(again), "c1", started=True))
    family.made.look()
    assert family.made.kind("a") == "duplicated"
    assert "ran more than once" in family.made.sentence("a")


def test_a_descendant_that_runs_twice_is_judged_by_the_last_of_its_ends(family: Family) -> None:
    """Reported one after the other, as later from the ledger."""
    family.end(family.started_children("c1"))
    first = family.begin()
    assert first.execution is not None
    again = replace(first.execution, name="z", pid=first.execution.pid + 1)
    second = replace(first, execution=again)
    family.world._append(Record(0, _started(again), "c1", started=True))
    family.end(first)
    assert family.status() == "duplicated"
    family.worker.running.append(second)
    family.end(second)
    family.made.look()
    why = family.made.ledger.verdicts.reasons(["a"])["a"].reason["why"]
    assert isinstance(why, dict)
    assert why["pid"] == again.pid


def test_a_descendant_that_never_ends_is_timed_out(family: Family) -> None:
    """By its entry's limit, counted from its own start."""
    family.end(family.started_children("c1"))
    family.begin()
    family.made.run(30 + TIMEOUT_GRACE + 5)
    assert family.made.kind("a") == "timed_out"
    assert "'task.c1' (c1), started by 't', timed out" in family.made.sentence("a")


def test_the_deadline_of_the_entry_bounds_its_tree() -> None:
    """It counts from the entry's dispatch, whatever waits."""
    with rig(Plan((entry(deadline=10.0),))) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        made.run(12)
        assert made.kind("a") == "timed_out"
        assert "deadline of 10 s" in made.sentence("a")


def test_what_waits_for_an_entry_waits_for_its_tree() -> None:
    """``after`` is about all the work that was started."""
    with rig(Plan((entry(), entry("b", after=["a"])))) as made:
        family = Family(made)
        family.end(family.started_children("c1"))
        made.step(3)
        assert set(made.world.published) == {family.root}
        family.run("succeeded")
        made.step(3)
        assert set(made.world.published) == {family.root, made.task_id("b")}


def test_a_job_that_failed_has_its_own_verdict(family: Family) -> None:
    """When its tree has ended, whatever that came to."""
    family.end(family.started_children("c1"), "failed")
    assert family.status() is None
    family.run("failed")
    assert family.status() == "failed"
    assert "descendant" not in family.made.sentence("a")


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        ("finished", "passed"),
        ("ignored", "passed"),
        ("succeeded", "failed"),
        ({"outcome": "finished", "count": 2}, "passed"),
        ({"outcome": "finished", "count": 3}, "failed"),
        ({"outcome": "finished", "count": {"min": 3}}, "failed"),
        ({"outcome": "finished", "tasks": ["task.c1", "task.c2"]}, "passed"),
        ({"outcome": "finished", "tasks": ["task.c1"]}, "failed"),
        ({"outcome": "ignored", "count": 1}, "failed"),
    ],
)
def test_what_is_expected_of_descendants(
    expected: str | Mapping[str, object], status: VerdictStatus
) -> None:
    """Of one that succeeded, and one that failed."""
    with rig(Plan((entry(expect={"descendants": expected}),))) as made:
        family = Family(made)
        family.end(family.started_children("c1", "c2"))
        family.run("succeeded", "failed")
        assert family.status() == status


def test_a_message_that_its_parent_could_not_send_is_no_descendant(family: Family) -> None:
    """Its parent saw that, and ended well all the same."""
    made = family.made
    made.step()
    job = family.begin()
    family.spawn("c1")
    family.end(job, facts={"unsent": ["c1"]})
    made.run(30)
    assert made.kind("a") == "passed"
    assert "descendant" not in made.sentence("a")


def test_a_message_that_went_although_its_parent_thought_otherwise_counts(family: Family) -> None:
    """The connection broke after the broker had taken it."""
    made = family.made
    made.step()
    job = family.begin()
    family.spawn("c1")
    family.send("c1")
    family.end(job, facts={"unsent": ["c1"]})
    made.step(2)
    family.run("failed")
    assert family.status() == "failed"


def test_a_start_tells_of_a_descendant_that_nobody_had_told_of(family: Family) -> None:
    """The record of its starting is gone with the store, say."""
    made = family.made
    made.step()
    job = family.begin()
    family.send("c1")
    made.step()
    family.world.take(family.worker)
    child = family.world.begin(family.worker)
    assert child is not None
    assert child.execution is not None
    told = {**_started(child.execution), "root": family.root, "parent": family.root}
    family.children[family.root] += 1
    family.world.stream.pop()
    family.world._append(Record(0, told, "c1", started=True))
    made.step()
    family.end(job)
    assert family.status() is None
    family.end(child, "failed")
    assert family.status() == "failed"


def test_what_descends_from_another_run_is_left_alone(family: Family) -> None:
    """Nobody can make an entry of this run wait for it."""
    job = family.started_children()
    root, family.root = family.root, "nobody"
    family.spawn("c1")
    family.root = root
    family.end(job)
    assert family.status() == "passed"
    assert not family.made.ledger.descendants.any()


def test_an_attempt_is_nobodys_descendant() -> None:
    """Each of the two has its own verdict; what the one has started nobody can tell then."""
    with rig(Plan((entry(), entry("b")))) as made:
        family = Family(made)
        made.step()
        job, other = family.begin(), family.begin()
        family.spawn(made.task_id("b"))
        made.step()
        family.end(job)
        made.step(2)
        assert made.kinds() == {"a": "unknown"}
        assert "it started 1, and 0 of them were reported" in made.sentence("a")
        family.end(other, "failed")
        made.step(2)
        assert made.kinds() == {"a": "unknown", "b": "failed"}


def test_an_id_that_is_used_twice_is_no_proof(family: Family) -> None:
    """A user may give ids to tasks: of the second one of that name nobody tells the end."""
    family.end(family.started_children("c1", "c1"))
    family.run("succeeded")
    assert family.status() == "unknown"


def test_what_a_handler_starts_after_the_end_counts(family: Family) -> None:
    """It is announced that there may be some, and told when there is no more."""
    job = family.started_children()
    key: list[JsonValue] = [{"key": "x/after", "how": "after", "task": "t", "count": 1}]
    family.end(job, facts={"announced": key})
    assert family.status() is None
    family.spawn("c1")
    family.send("c1")
    family.spawn(closes="x/after")
    assert family.status() is None
    family.run("failed")
    assert family.status() == "failed"


def test_a_handler_of_a_worker_that_died_starts_nothing_more(family: Family) -> None:
    """Where that is no longer told, what was told of decides."""
    job = family.started_children()
    key: list[JsonValue] = [{"key": "x/after", "how": "after", "task": "t", "count": 1}]
    family.end(job, facts={"announced": key})
    family.made.run(30)
    assert family.made.kind("a") == "passed"
    assert "descendant" not in family.made.sentence("a")


def test_a_descendant_is_not_lost_while_its_parent_may_be_sending_it(family: Family) -> None:
    """A group is told of before its first message; a slow broker takes the last one much later."""
    job = family.started_children("c1")
    family.world.queue.clear()
    family.made.run(25)
    assert not tree_counts(family.made.ledger).get("lost")
    family.send("c1")
    family.end(job)
    family.run("succeeded")
    assert family.status() == "passed"


# Jobs that are handed on to several others, the last of which has their own id


def split(family: Family, *names: str) -> None:
    """The entry's job has itself replaced by these, and then one under its own id."""
    hand_on(family, family.started_children(*names), family.root)


def hand_on(family: Family, job: Delivery, task_id: str) -> None:
    """A task has itself replaced by what it has just started."""
    execution = job.execution
    assert execution is not None
    family.worker.running.remove(job)
    family.world.unacked.pop(job.tag, None)
    family.world.tell(
        {
            "kind": "handed_on",
            "task_id": task_id,
            "execution": execution.name,
            "how": "canvas",
            "ended_at": timestamp(family.world.clock.utc_now()),
            "next_at": None,
        }
    )
    family.made.step(2)


def test_a_job_that_was_handed_on_ends_as_a_part_that_was_lost(family: Family) -> None:
    """Nothing will ever be heard of it, which is known long before its time is over."""
    split(family, "p1", "p2")
    family.run("succeeded")
    family.world.queue.clear()
    family.made.run(30)
    assert family.made.kind("a") == "lost"
    assert "handed on to others, and its descendant 'task.p2' (p2)" in family.made.sentence("a")


def test_a_job_that_was_handed_on_is_lost_with_its_own_message(family: Family) -> None:
    """All parts have succeeded, and what they were to send is nowhere."""
    split(family, "p1")
    family.run("succeeded")
    family.made.run(60)
    assert family.made.kind("a") == "lost"
    assert "descendant" not in family.made.sentence("a")


def test_a_job_that_was_handed_on_is_no_loss_while_a_part_may_send_its_message(
    family: Family,
) -> None:
    """The end of the part is stored, and its process goes on."""
    split(family, "p1")
    part = family.begin()
    execution = part.execution
    assert execution is not None
    receipt = receipt_of(execution, "succeeded", family.world.clock.utc_now())
    family.world.tell(finished(execution.name, receipt))
    family.made.run(60)
    assert family.made.kind("a") is None


def test_a_descendant_that_was_handed_on_ends_as_its_part_does(family: Family) -> None:
    """And the sentence names the part."""
    family.end(family.started_children("c1"))
    family.made.step(2)
    job = family.begin()
    family.spawn("p1", parent="c1", how="replace")
    family.send("p1")
    hand_on(family, job, "c1")
    family.run("failed")
    family.made.run(30)
    statuses = tree_counts(family.made.ledger, family.root)
    assert (family.made.kind("a"), statuses) == ("failed", {"failed": 2})
    assert "'task.p1' (p1)" in family.made.sentence("a")
    assert "1 more of its 2 descendants" in family.made.sentence("a")
