"""Trees of tasks: their order, and the path that decided when they ended."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pytest_manifest.analysis.tree_reading import DescendantRecord, critical_path, nested, path_to

BEGAN = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)


def node(
    task_id: str,
    parent: str | None,
    spawned: float | None = None,
    started: float | None = None,
    ended: float | None = None,
) -> DescendantRecord:
    """A task with times in seconds since the run began."""
    spawned_at, started_at, ended_at = (
        None if value is None else BEGAN + timedelta(seconds=value)
        for value in (spawned, started, ended)
    )
    return DescendantRecord(
        *(task_id, parent or ""),
        spawned_at=spawned_at,
        started_at=started_at,
        ended_at=ended_at,
    )


CHORD = [
    node("body", "b", 5.1, 5.5, 7),
    node("b", "root", 0.2, 1, 5),
    node("a", "root", 0.1, 1, 2),
    node("root", None, 0, 0.05, 0.3),
    node("side", "a", 1.5, 2, 6),
]


def ids(path: list[DescendantRecord]) -> list[str]:
    return [task.task_id for task in path]


def test_each_task_comes_before_those_that_it_started() -> None:
    """The tree's order is that of its growth, with the depth of each task."""
    assert [(depth, task.task_id) for depth, task in nested("root", CHORD)] == [
        (0, "root"),
        (1, "a"),
        (2, "side"),
        (1, "b"),
        (2, "body"),
    ]


def test_a_tree_without_its_root_begins_with_what_the_root_started() -> None:
    """Rows of descendants alone can be ordered, too."""
    without = [task for task in CHORD if task.task_id != "root"]
    assert [(depth, task.task_id) for depth, task in nested("root", without)] == [
        (0, "a"),
        (1, "side"),
        (0, "b"),
        (1, "body"),
    ]


def test_a_task_of_an_unknown_parent_stands_below_the_root() -> None:
    """No task of the tree is left out of its order, not even those of a circle."""
    tasks = [
        node("root", None, 0),
        node("x", "lost", 1),
        node("p", "q", 2),
        node("q", "p", 3),
        node("self", "self"),
    ]
    assert [(depth, task.task_id) for depth, task in nested("root", tasks)] == [
        (0, "root"),
        (1, "x"),
        (1, "p"),
        (2, "q"),
        (1, "self"),
    ]


def test_a_chain_of_many_tasks_is_ordered_without_recursion() -> None:
    """Depth is bounded by memory, not by Python's stack."""
    chain = [node("t0", None, 0), *(node(f"t{at}", f"t{at - 1}", at) for at in range(1, 5000))]
    assert nested("t0", chain)[-1] == (4999, chain[-1])
    assert len(critical_path("t0", chain)) == 5000


def test_the_critical_path_leads_from_the_root_to_the_last_end() -> None:
    """The body waited for the last member of the header, which is therefore on its path."""
    assert ids(critical_path("root", CHORD)) == ["root", "b", "body"]


def test_a_root_that_ends_last_is_its_own_path() -> None:
    """What a task did while it ran on decided nothing."""
    tasks = [node("root", None, 0, 0, 9), node("child", "root", 1, 2, 8)]
    assert ids(critical_path("root", tasks)) == ["root"]


def test_a_task_without_an_end_counts_by_the_last_that_is_known_of_it() -> None:
    """A lost task, too, can be what the tree waited for."""
    tasks = [node("root", None, 0, 0, 1), node("a", "root", 0.5, 2, 3), node("lost", "a", 4)]
    assert ids(critical_path("root", tasks)) == ["root", "a", "lost"]


def test_of_two_that_end_together_the_longer_path_is_taken() -> None:
    """A parent that ends in the moment of its child does not hide it."""
    tasks = [node("root", None, 0, 0, 5), node("child", "root", 1, 2, 5)]
    assert ids(critical_path("root", tasks)) == ["root", "child"]


def test_a_tree_of_which_nothing_is_known_has_its_root_as_path() -> None:
    """No time is made up, and no path of an empty tree."""
    assert ids(critical_path("root", [node("root", None), node("a", "root")])) == ["root"]
    assert critical_path("root", list[DescendantRecord]()) == []


def test_a_path_ends_where_a_task_is_not_known() -> None:
    """The root stands before it all the same; a circle is gone round once."""
    known = {one.task_id: one for one in CHORD}
    known.pop("b")
    assert ids(path_to("root", known, known["body"])) == ["root", "body"]
    known.pop("root")
    assert ids(path_to("root", known, known["body"])) == ["body"]
    circle = {"p": node("p", "q"), "q": node("q", "p")}
    assert ids(path_to("root", circle, circle["p"])) == ["q", "p"]
