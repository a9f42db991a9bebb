"""What is counted of descendants: by cause, by group, in the run's time, and the failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_manifest.analysis.causes import Causes, explain_group, tally
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.reporting.descendants import read_trees
from pytest_manifest.schema import Verdict, VerdictStatus
from pytest_manifest.verdict.explanation import brief
from pytest_manifest.verdict.tree import descendant_of
from tests.reports import add_starts
from tests.unit.analysis_support import INFO, after, record, timed
from tests.unit.ledger_support import start, verdict
from tests.unit.test_descendants import entry, tree, whole
from tests.unit.tree_support import BEGAN, Trees, times

STATUSES: tuple[VerdictStatus, ...] = (
    *("failed", "timed_out", "crashed", "lost", "duplicated", "revoked", "expired", "rejected"),
    *("unknown_task", "quarantined", "forged", "pending", "unknown"),
)


def resting_on(
    status: VerdictStatus = "failed",
    task: str = "jobs.page",
    why: str = "It raised E: no, (really).",
    failed: int = 1,
) -> Verdict:
    """The verdict on an entry of nine descendants, of which the first failed like that."""
    return whole(entry(), tree({"passed": 9 - failed, status: failed}, [task], says=why))


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("failed", [1, 2])
def test_a_verdict_names_the_descendant_that_it_rests_on(
    status: VerdictStatus, failed: int
) -> None:
    """Its task and why, whichever way it ended, and whatever number did like it."""
    found = descendant_of(resting_on(status, failed=failed))
    assert found is not None
    assert (found.task, found.said) == ("jobs.page", "It raised E: no, (really).")
    assert found.came_to in resting_on(status).sentence


@pytest.mark.parametrize("task", ["it's", 'say "it"', "a (b), started by 'c', failed: d", "größe"])
def test_odd_names_of_tasks_are_told_or_left_out(task: str) -> None:
    """Never another task's, nor half of one."""
    found = descendant_of(resting_on(task=task))
    assert found is not None
    assert found.task == task


def test_other_verdicts_rest_on_no_descendant() -> None:
    """Whatever their sentences say."""
    assert descendant_of(verdict("a", "failed")) is None


def test_a_list_of_failures_says_first_what_the_descendant_did() -> None:
    """A line of it has no room for more."""
    assert brief(resting_on(), None) == (
        "its descendant 'jobs.page' failed: It raised E: no, (really)."
    )


def test_failures_of_different_descendants_are_different_causes() -> None:
    """By task and verdict; the message is the descendant's own."""
    causes = Causes()
    for name, told in {
        "a": resting_on(),
        "b": resting_on(why="It raised F: neither."),
        "c": resting_on(task="jobs.join"),
        "d": resting_on("lost", why="Nobody has it."),
    }.items():
        causes.add(name, told, record(name, told.verdict).receipt)
    found = [(one.title, one.count, one.message) for one in causes.largest_first()]
    assert found == [
        ("a descendant jobs.page failed", 2, "It raised E: no, (really)."),
        ("a descendant jobs.join failed", 1, "It raised E: no, (really)."),
        ("a descendant jobs.page was lost", 1, "Nobody has it."),
    ]


def test_a_run_lasts_until_its_last_descendant_has_ended() -> None:
    """And not only until the last of the entries' own jobs; one that ends earlier adds nothing."""
    alone, more, less = (
        statistics([timed("a", 1.0)], INFO, (), end) for end in (None, after(61), after(0.2))
    )
    assert alone.duration is not None
    assert more.ended == after(61)
    assert more.duration == 61
    assert (less.ended, less.duration) == (alone.ended, alone.duration)


def test_the_last_end_is_that_of_any_tree(trees: Trees) -> None:
    """None without descendants, or where none has ended."""
    first, second = trees.entry("a"), trees.entry("b")
    assert trees.ledger.trees.last_end() is None
    trees.child(first, "c1", kind=None)
    assert trees.ledger.trees.last_end() is None
    trees.child(first, "c2", received=times(1, 9))
    trees.child(second, "c3", received=times(1, 5))
    trees.child(second, "c4", kind="forged", received=times(1, 99))
    assert trees.ledger.trees.last_end() == times(1, 9)["finished_at"]


def test_a_descendant_that_was_retried_ran_as_long_as_its_last_try(trees: Trees) -> None:
    """As other reports have it; a job itself began with its first."""
    root = trees.entry("a")
    trees.child(root, "c1", received=times(5, 6))
    first = [replace(start(task_id, "x"), started_at=BEGAN) for task_id in ("c1", root)]
    add_starts(trees.ledger, first)
    assert trees.ledger.trees.step("c1").started_at == times(5, 6)["started_at"]
    assert trees.ledger.trees.step(root).started_at == BEGAN


def test_a_group_counts_the_descendants_of_its_entries(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, and of no other entries; nothing is said where there are none."""
    monkeypatch.setattr("pytest_manifest.analysis.causes._BATCH", 2)
    for name in "abcde":
        root = trees.entry(name, "failed" if name == "a" else "passed")
        trees.child(root, f"{name}1", kind="failed" if name == "a" else "passed")
    found = tally(trees.ledger, "abc")
    assert found.descendants == {"failed": 1, "passed": 2}
    text = explain_group(found, [])
    assert "1 of 3 entries failed, 2 passed.\n3 descendants: 1 failed, 2 passed.\n" in text
    assert tally(trees.ledger, []).descendants == {}


def test_the_failed_of_each_tree_are_read_with_the_first_of_them(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many entries; pending ones have not failed."""
    monkeypatch.setattr("pytest_manifest.reporting.descendants._FAILED_SHOWN", 2)
    for name in "abcd":
        root = trees.entry(name, "failed")
        trees.child(root, f"{name}1", kind=None if name == "b" else "passed")
        if name != "b":
            trees.child(root, f"{name}2", kind="lost")
            trees.child(root, f"{name}3", kind="failed")
    found = read_trees(trees.ledger)
    assert [(one.entry, one.task, one.status) for one in found.failed] == [
        ("a", "task.a2", "lost"),
        ("c", "task.c2", "lost"),
    ]
    assert found.failed[0].statuses == {"passed": 1, "lost": 1, "failed": 1}
    assert found.failed[0].sentence == verdict("a", "lost").sentence
    assert found.more_failed == 1
