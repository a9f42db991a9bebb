"""What a ledger says of many trees at once."""

from __future__ import annotations

from pytest_manifest.ledger import Descendant
from pytest_manifest.ledger.descendants import TreeTotals
from tests.reports import add_receipts
from tests.unit.ledger_support import verdict
from tests.unit.tree_support import BEGAN, Trees, descendant_receipt, times


def test_descendants_are_counted_by_status(trees: Trees) -> None:
    """Of the newest attempt of each entry; those without a verdict under None."""
    root = trees.entry("a", children=3)
    trees.child(root, "c1")
    trees.child(root, "c2", kind="failed")
    trees.child(root, "c3", kind=None)
    trees.child(trees.entry("b", children=1), "c4")
    trees.child("t-gone", "c5")
    trees.entry("c")
    assert trees.ledger.trees.totals() == TreeTotals({"passed": 2, "failed": 1, None: 1}, 2, {})
    assert trees.ledger.trees.statuses_of(["t-a", "t-b", "t-c"]) == {
        "t-a": {"passed": 1, "failed": 1, None: 1},
        "t-b": {"passed": 1},
    }
    assert list(trees.ledger.trees.by_entry()) == [
        ("a", {None: 1, "failed": 1, "passed": 1}),
        ("b", {"passed": 1}),
    ]


def test_an_earlier_attempt_does_not_count(trees: Trees) -> None:
    """What it started is of no verdict any more."""
    trees.child(trees.entry("a", children=1), "c1", kind="failed")
    trees.ledger.attempts.plan([("t-a2", "a", 2, 9)])
    assert trees.ledger.trees.totals().entries == 0
    trees.child("t-a2", "c2")
    assert trees.ledger.trees.totals().statuses == {"passed": 1}


def test_entries_are_counted_of_which_descendants_are_not_known(trees: Trees) -> None:
    """By the reason; one that no process of its own has told the end of is none of them."""
    trees.entry("stock", source="backend", children=None)
    trees.entry("older", children=None)
    trees.child(trees.entry("fewer", children=2), "c1")
    trees.child(trees.entry("deeper", children=1), "c5", received={"children": 2})
    trees.child("t-deeper", "c6", "c5", received={"children": None})
    knows = trees.entry("knows", children=1)
    trees.child(knows, "c7", received={"children": 1})
    trees.child(knows, "c8", "c7", received={})
    root = trees.entry("silent", children=2)
    trees.child(root, "c2", received={"children": None, "source": "backend"})
    trees.child(root, "c3", received={"children": None, "source": "backend"})
    told = trees.child(trees.entry("told", children=1), "c4", received={})
    stored = descendant_receipt(told, "told", {"children": None, "source": "backend"})
    add_receipts(trees.ledger, [("c4", None, stored)])
    trees.entry("dead", "crashed", state="crashed", children=None)
    trees.entry("ours", "revoked", state="revoked", source="harness", children=None)
    assert trees.ledger.trees.totals().untold == {
        "stock": 1,
        "older": 1,
        "fewer": 2,
        "silent": 1,
    }
    part = trees.ledger.descendants
    assert part.number_untold("t-silent") == (0, 2)
    assert part.number_untold("t-deeper") == (1, 1)
    assert part.number_untold("t-told") == part.number_untold("t-knows") == (0, 0)


def test_what_was_never_sent_is_not_the_first(trees: Trees) -> None:
    """A task that was announced has no time of its sending."""
    root = trees.entry("a", children=1)
    never = Descendant("x:errback", root, "c1", "task.x", "errback", spawned_at=None)
    trees.ledger.descendants.add([never])
    trees.ledger.descendants.end({"x:errback": verdict("a", "lost")})
    trees.child(root, "c1", kind="failed")
    first = trees.ledger.descendants.first(root, ["failed", "lost"])
    assert first is not None
    assert first.task_id == "c1"


def test_the_slowest_tree_is_the_one_whose_last_end_came_latest(trees: Trees) -> None:
    """Counted from its job's own start; a forged receipt's times do not count."""
    root = trees.entry("a", children=2)
    trees.child(root, "c1", received=times(1, 5))
    trees.child(root, "c2", "c1", received=times(5, 9.25))
    trees.child(root, "c3", received=times(1, 6))
    trees.child(root, "c4", kind="forged", received=times(1, 9000))
    trees.child(trees.entry("b", children=1), "c5", received=times(0, 9))
    found = trees.ledger.trees.slowest()
    assert found is not None
    assert (found.root, found.entry, round(found.seconds, 3)) == ("t-a", "a", 9.25)
    assert trees.ledger.trees.path("t-a") == ["t-a", "c1", "c2"]
    step = trees.ledger.trees.step("c2")
    assert (step.task, step.status) == ("task.c2", "passed")
    assert step.started_at is not None
    assert (step.started_at - BEGAN).total_seconds() == 5


def test_a_run_without_ends_of_descendants_has_no_slowest_tree(trees: Trees) -> None:
    """And the path of a tree is its job alone."""
    trees.child(trees.entry("a", children=1), "c1", kind="lost")
    assert trees.ledger.trees.slowest() is None
    assert trees.ledger.trees.path("t-a") == ["t-a"]


def test_a_tree_is_walked_from_each_parent_to_its_children(trees: Trees) -> None:
    """Depth first, in the order of their starting, and no more than wanted."""
    root = trees.entry("a", children=2)
    trees.child(root, "c1")
    trees.child(root, "c2")
    trees.child(root, "c1-1", "c1")
    trees.child(root, "c1-2", "c1")
    trees.child(root, "c1-1-1", "c1-1")
    walked = [(depth, one.task_id) for depth, one in trees.ledger.trees.walk(root, 0)]
    assert walked == [(1, "c1"), (2, "c1-1"), (3, "c1-1-1"), (2, "c1-2"), (1, "c2")]
    assert len(list(trees.ledger.trees.walk(root, 2))) == 2


def test_records_that_contradict_one_another_end_no_walk(trees: Trees) -> None:
    """A task that is said to descend from itself."""
    root = trees.entry("a", children=1)
    trees.child(root, "c1")
    trees.child(root, root, "c1", received=times(0, 2))
    assert [one.task_id for _, one in trees.ledger.trees.walk(root, 0)] == ["c1"]
    assert trees.ledger.trees.path(root) == [root]
