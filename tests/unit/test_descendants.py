"""What becomes of an entry by the tasks that its job has started, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.reporting.descendants import unknown
from pytest_manifest.schema import Entry, Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import FactSource, HandedOn, Job, Spawn
from pytest_manifest.schema.fields import Source
from pytest_manifest.verdict.explanation import counts_text, ends_text, failed_of, number_of
from pytest_manifest.verdict.messages import AsExpected
from pytest_manifest.verdict.reasons import Finding, Said, reason_of, verdict_by, verdict_of
from pytest_manifest.verdict.tree import (
    Descendant,
    PartFailed,
    Tree,
    by_part,
    descendant_of,
    expects_something,
    is_ignored,
    with_tree,
)
from tests.unit.ledger_support import MOMENT
from tests.unit.tree_support import Trees, times

Counts: TypeAlias = Mapping[VerdictStatus | None, int]
ALL: Counts = dict.fromkeys(get_args(VerdictStatus), 1)
TOLD: Mapping[str, Any] = times(1, 2)


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    """A ledger with another entry, whose descendants are nothing to those of ``t-a``."""
    made = Trees(tmp_path / "run.sqlite")
    other = made.entry("other")
    made.child(other, "o1", kind="timed_out")
    made.child(other, "o2", kind="lost", received={**TOLD, "children": None})
    yield made
    made.ledger.close()


def entry(descendants: object = None) -> Entry:
    expect = {} if descendants is None else {"expect": {"descendants": descendants}}
    return Entry.model_validate({"id": "a", "task": "jobs.book", **expect})


PASSED = Finding("passed", AsExpected())
WELL = "The task succeeded, as expected"


def verdict(status: VerdictStatus = "passed", sentence: str = "") -> Verdict:
    reason = Said(text=sentence) if sentence else AsExpected()
    return verdict_of("a", 1, status, reason)


def bare(found: Verdict) -> Verdict:
    """Return a verdict as its sentence says it, whatever its reason is called."""
    return verdict(found.verdict, found.sentence).model_copy(
        update={"mismatches": found.mismatches}
    )


def reported(ledger: Ledger, root: str, source: Source, children: int | None) -> str:
    return unknown(ledger, root, {"source": source, "state": "succeeded", "children": children})


def tree(
    counts: Counts,
    tasks: Iterable[str] = ("jobs.page",),
    *mismatches: Mismatch,
    parent: str = "t-a",
    name: str = "c{}",
    says: str = "It says why.",
) -> Tree:
    """Descendants that have come to these ends, in this order, of these tasks in turn."""
    made, names = Tree("t-a"), list(tasks)
    ends = [status or "pending" for status, number in counts.items() for _ in range(number)]
    for place, status in enumerate(ends):
        spawned = MOMENT + timedelta(seconds=place)
        spawn = Spawn(
            root="t-a",
            parent=parent,
            task=names[place % len(names)],
            how="call",
            spawned_at=spawned,
        )
        job = Job(
            task_id=name.format(place + 1),
            entry="a",
            number=1,
            run="r",
            seq=1,
            at=MOMENT,
            spawn=spawn,
        )
        finding = Finding(status, Said(text=says), mismatches)
        made.add(Descendant(job, finding))
    return made


def whole(
    wanted: Entry, descendants: Tree, own: Finding = PASSED, *, children: int | None = 0
) -> Verdict:
    """The verdict on an attempt that has passed, with its descendants."""
    facts = {"run": "r", "entry": "a", "attempt": 1, "task_id": "t-a", "task": "jobs.book"}
    facts |= {"state": "succeeded", "children": children}
    found = with_tree(wanted, own, descendants, Receipt.model_validate(facts))
    return verdict_by("a", 1, found)


def part_failed(ended: Verdict, task: str = "jobs.page", task_id: str = "c1") -> str:
    why = reason_of(ended)
    return PartFailed(task=task, task_id=task_id, ended=ended.verdict, why=why).sentence("lost")


# Numbers


def test_a_descendant_that_was_never_sent_is_none() -> None:
    """Its parent saw that it was not; those without an end are some."""
    counts: Counts = {"passed": 4, "failed": 3, "skipped": 20, None: 2, "pending": 1}
    assert number_of(counts) == 10
    assert number_of({}) == 0


def test_only_an_end_that_is_no_success_is_a_failure() -> None:
    """Of all statuses, four are none."""
    others = {"passed", "pending", "skipped", None}
    for status in (*ALL, None):
        assert failed_of({status: 7}) == (0 if status in others else 7)
    assert failed_of({"failed": 2, "lost": 3, None: 9}) == 5


def test_ends_are_told_in_the_order_of_their_names() -> None:
    """With the thousands set off, and what has no end as pending."""
    counts: Counts = {"passed": 1200, None: 1000, "failed": 1}
    assert ends_text(counts) == "1 failed, 1,200 passed, 1,000 pending"
    assert counts_text(counts) == "2,201 descendants: 1 failed, 1,200 passed, 1,000 pending"
    assert counts_text({"lost": 1}) == "1 descendant: 1 lost"


# What nobody told of


def test_only_children_count_as_what_a_job_has_started(trees: Trees) -> None:
    """Of this attempt; what they start in turn is their own affair."""
    root = trees.entry("a")
    trees.child(root, "c1")
    trees.child(root, "c2", "c1")
    fewer = "it started 2, and 1 of them were reported"
    assert reported(trees.ledger, root, "worker", 1) == ""
    assert reported(trees.ledger, root, "worker", 2) == fewer
    assert reported(trees.ledger, root, "worker", None) == "its worker reports nothing of them"
    assert reported(trees.ledger, root, "backend", 1) == "its worker sends no receipts"
    assert reported(trees.ledger, root, "backend", 2) == "its worker sends no receipts"
    assert reported(trees.ledger, trees.entry("b"), "worker", 0) == ""


def test_a_descendant_may_have_started_what_nobody_tells_of(trees: Trees) -> None:
    """Its worker is an older one; what is missing of the job's own is told first."""
    root = trees.entry("a")
    trees.child(root, "c1", received={**TOLD, "children": None})
    one = "it is not known what 1 descendant started"
    assert reported(trees.ledger, root, "worker", 1) == one
    fewer = "it started 2, and 1 of them were reported"
    assert reported(trees.ledger, root, "worker", 2) == fewer
    trees.child(root, "c2", received={**TOLD, "children": None})
    two = "it is not known what 2 descendants started"
    assert reported(trees.ledger, root, "worker", 2) == two


def test_a_descendant_may_have_started_more_than_was_told_of(trees: Trees) -> None:
    """Which is as if the job had, and is told before what nobody counts."""
    root = trees.entry("a")
    trees.child(root, "c1", received={**TOLD, "children": 2})
    trees.child(root, "c2", "c1")
    trees.child("t-other", "c3", "c1")
    one = "1 descendant started more tasks than were reported"
    assert reported(trees.ledger, root, "worker", 1) == one
    fewer = "it started 2, and 1 of them were reported"
    assert reported(trees.ledger, root, "worker", 2) == fewer
    assert reported(trees.ledger, root, "backend", 1) == "its worker sends no receipts"
    trees.child(root, "c4", received={**TOLD, "children": None})
    trees.child(root, "c5", received={**TOLD, "children": 1})
    two = "2 descendants started more tasks than were reported"
    assert reported(trees.ledger, root, "worker", 3) == two
    trees.child(root, "c6", "c5")
    trees.child(root, "c7", "c1")
    silent = "it is not known what 1 descendant started"
    assert reported(trees.ledger, root, "worker", 3) == silent


# What is expected


@pytest.mark.parametrize(
    ("descendants", "expects", "ignores"),
    [
        (None, False, False),
        ("succeeded", True, False),
        ("finished", True, False),
        ("ignored", False, True),
        ({"outcome": "ignored"}, False, True),
        ({"outcome": "ignored", "count": 2}, True, False),
    ],
)
def test_an_entry_expects_something_or_nothing(
    descendants: object, *, expects: bool, ignores: bool
) -> None:
    """What it says itself counts, not what holds by default."""
    assert expects_something(entry(descendants)) == expects
    assert is_ignored(entry(descendants)) == ignores


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (
            "succeeded",
            [
                *("crashed", "duplicated", "expired", "failed", "forged", "lost", "quarantined"),
                *("rejected", "revoked", "timed_out", "unknown_task", "withdrawn", "cancelled"),
                *("pending", "unknown"),
            ],
        ),
        ("finished", ["duplicated", "forged", "lost", "timed_out", "pending", "unknown"]),
        ("ignored", []),
    ],
)
def test_each_status_is_expected_or_not(outcome: str, found: list[str]) -> None:
    """Those that leave no doubt come first; what has no end is pending, and named once."""
    for status in ALL:
        ended = whole(entry(outcome), tree({status: 1})).verdict
        assert ended == (status if status in found else "passed")
    if found:
        assert whole(entry(outcome), tree(ALL)).verdict not in ("pending", "unknown")


# The verdict


@pytest.mark.parametrize(
    ("descendants", "counts", "said"),
    [
        (None, {}, f"{WELL}."),
        (None, {"skipped": 2}, f"{WELL}."),
        (None, {"passed": 1}, f"{WELL}; its descendant succeeded."),
        (
            None,
            {"passed": 1, "skipped": 1},
            f"{WELL}; its descendant succeeded.",
        ),
        (
            None,
            {"passed": 1200},
            f"{WELL}; its 1,200 descendants succeeded.",
        ),
        ("finished", {"failed": 1}, f"{WELL}; its descendant ended."),
        ("finished", {"failed": 2}, f"{WELL}; its 2 descendants ended."),
        ("ignored", {"failed": 2}, f"{WELL}."),
        ({"outcome": "ignored", "count": 2}, {"failed": 2}, f"{WELL}."),
    ],
)
def test_a_pass_says_what_became_of_its_descendants(
    descendants: object, counts: Counts, said: str
) -> None:
    """Nothing of what does not matter, or never was."""
    found = whole(entry(descendants), tree(counts))
    assert (found.verdict, found.sentence) == ("passed", said)


@pytest.mark.parametrize(
    ("count", "number", "wanted"),
    [
        (2, 1, "2"),
        (2, 2, ""),
        (2, 3, "2"),
        ({"min": 2}, 1, "at least 2"),
        ({"min": 2}, 2, ""),
        ({"min": 2}, 99, ""),
        ({"min": 2, "max": 3}, 1, "2 to 3"),
        ({"min": 2, "max": 3}, 3, ""),
        ({"min": 2, "max": 3}, 4, "2 to 3"),
    ],
)
def test_there_must_be_as_many_as_expected(count: object, number: int, wanted: str) -> None:
    """Both ends of a range are within it."""
    found = whole(entry({"count": count}), tree({"passed": number, "skipped": 50}))
    if not wanted:
        assert found.verdict == "passed"
        return
    assert bare(found) == verdict(
        "failed",
        f"The job passed, but descendants.count is {number} where {wanted} was expected; find out "
        "whether the task or the entry's 'expect' is wrong, and correct it.",
    ).model_copy(
        update={
            "mismatches": [Mismatch(path="descendants.count", expected=wanted, actual=str(number))]
        }
    )


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        (["b", "a"], {"a", "b"}, None),
        (["a", "a"], {"a"}, None),
        ([], set(), None),
        (["b", "a"], {"a"}, ("'a', 'b'", "'a'")),
        (["a"], {"c", "a"}, ("'a'", "'a', 'c'")),
        ([], {"a"}, ("none", "'a'")),
        (["a"], set(), ("'a'", "none")),
        (
            ["d", "c", "b", "a"],
            {"f", "e", "d", "c"},
            ("'a', 'b', 'c' and 1 more", "'c', 'd', 'e' and 1 more"),
        ),
        (["a" * 99], {"it's"}, (f"'{'a' * 37}...{'a' * 38}'", '"it\'s"')),
    ],
)
def test_their_tasks_must_be_those_expected(
    wanted: list[str], found: set[str], said: tuple[str, str] | None
) -> None:
    """In whatever order and number; the first three are told."""
    ends = tree({"passed": len(found)}, sorted(found))
    judged = whole(entry({"tasks": wanted}), ends)
    if said is None:
        assert judged.verdict == "passed"
        return
    (mismatch,) = judged.mismatches
    assert (mismatch.path, mismatch.expected, mismatch.actual) == ("descendants.tasks", *said)


def test_every_difference_is_listed() -> None:
    """The sentence has the first one."""
    found = whole(entry({"count": 2, "tasks": ["b"]}), tree({"passed": 1}, ["a"]))
    assert [one.path for one in found.mismatches] == ["descendants.count", "descendants.tasks"]
    assert "descendants.count is 1 where 2 was expected" in found.sentence


WORDS: Mapping[VerdictStatus, str] = {
    "failed": "failed",
    "timed_out": "timed out",
    "crashed": "crashed",
    "lost": "was lost",
    "duplicated": "ran more than once",
    "revoked": "was revoked",
    "withdrawn": "was taken back",
    "cancelled": "was cancelled",
    "expired": "expired",
    "rejected": "was rejected",
    "unknown_task": "is of a task that no worker knows",
    "quarantined": "was quarantined",
    "forged": "has a receipt that cannot be trusted",
    "pending": "has not ended",
    "unknown": "has no known end",
}


@pytest.mark.parametrize("status", WORDS)
def test_a_descendant_that_failed_fails_its_entry(status: VerdictStatus) -> None:
    """In the way in which it did, and for the reason that it has."""
    said = (
        f"The job passed, but its descendant 'jobs.page' (c3), started by 'jobs.book', "
        f"{WORDS[status]}: It says why. (it has 3 descendants)"
    )
    found = whole(entry(), tree({"passed": 2, status: 1}))
    assert bare(found) == verdict(status, said).model_copy(
        update={
            "mismatches": [
                Mismatch(
                    path="descendants",
                    expected="each succeeded",
                    actual="1 of 3 did not succeed",
                )
            ]
        }
    )
    rests = descendant_of(found)
    assert rests is not None
    assert (rests.task, rests.came_to, rests.said) == ("jobs.page", WORDS[status], "It says why.")
    assert part_failed(verdict(status, "It says why.")) == (
        f"The task was handed on to others, and 'jobs.page' (c1) {WORDS[status]}: It says why."
    )


@pytest.mark.parametrize(
    ("descendants", "counts", "rest", "actual"),
    [
        ("finished", {"failed": 7, "lost": 1}, "it has 8 descendants", "1 of 8 did not end"),
        (
            "finished",
            {"passed": 1, "lost": 2},
            "1 more of its 3 descendants did not end",
            "2 of 3 did not end",
        ),
        (
            None,
            {"passed": 1, "lost": 1, "failed": 1200, "skipped": 9},
            "1,200 more of its 1,202 descendants did not succeed",
            "1,201 of 1,202 did not succeed",
        ),
        (
            None,
            {"lost": 1, "failed": 1, None: 2},
            "3 more of its 4 descendants did not succeed",
            "4 of 4 did not succeed",
        ),
        (
            None,
            {"lost": 1, None: 2},
            "2 more of its 3 descendants did not succeed",
            "3 of 3 did not succeed",
        ),
        (
            None,
            {"lost": 1, None: 2, "pending": 3},
            "5 more of its 6 descendants did not succeed",
            "6 of 6 did not succeed",
        ),
        (
            None,
            {"lost": 1, "pending": 1},
            "1 more of its 2 descendants did not succeed",
            "2 of 2 did not succeed",
        ),
        (None, {"lost": 1}, "it has 1 descendant", "1 of 1 did not succeed"),
    ],
)
def test_the_others_that_failed_are_counted(
    descendants: object, counts: Counts, rest: str, actual: str
) -> None:
    """Those without an end among them, and by what the entry expects."""
    found = whole(entry(descendants), tree(counts))
    assert found.sentence.endswith(f"was lost: It says why. ({rest})")
    wanted = "each ended" if descendants == "finished" else "each succeeded"
    assert [(one.path, one.expected, one.actual) for one in found.mismatches] == [
        ("descendants", wanted, actual)
    ]


def test_the_differences_of_the_descendant_are_its_entrys_too() -> None:
    """Under a path of its own, after that of the tree."""
    one = Mismatch(path="result.a", expected="1", actual="2")
    found = whole(entry(), tree({"failed": 1}, ["jobs.page"], one))
    assert [each.path for each in found.mismatches] == ["descendants", "descendant.result.a"]
    assert (found.mismatches[1].expected, found.mismatches[1].actual) == ("1", "2")


def test_names_are_told_without_what_a_terminal_obeys() -> None:
    """Whatever a worker sends."""
    odd = tree({"failed": 1}, ["t\x1b[2J\x07"], parent="p\x07", name="c\x07")
    said = whole(entry(), odd).sentence
    assert r"its descendant 't\\x07' (c\x07), started by 'p\\x07', failed" in said
    said = part_failed(verdict("failed", "It did."), "t\x07", "c\x07")
    assert r"'t\\x07' (c\x07) failed" in said


# Jobs that were handed on


def test_a_job_that_was_handed_on_failed_for_one_of_its_parts() -> None:
    """Where that one's end leaves no doubt."""
    lost = Finding("lost", Said(text="Nobody has it."))
    found = by_part(entry(), lost, tree({"failed": 1}))
    assert found.status == "failed"
    assert found.reason.sentence("failed") == (
        "The job was handed on to others, and its descendant 'jobs.page' (c1), started by "
        "'jobs.book', failed: It says why. (it has 1 descendant)"
    )
    assert by_part(entry(), lost, tree({"passed": 1})) is lost
    for doubt in ("unknown", "pending"):
        assert by_part(entry(), lost, tree({doubt: 1})) is lost


def test_the_end_of_a_try_is_no_end_of_what_a_resume_awaits(trees: Trees) -> None:
    """It was handed on, and its process killed: the next try is still to come."""
    root = trees.entry("a")
    trees.child(root, "ended", kind="crashed", received={"state": "crashed"}, execution="x")
    trees.child(root, "tried", kind=None, received={"state": "crashed"}, execution="y")
    by = FactSource.WORKER
    tried = HandedOn(seq=0, at=MOMENT, source=by, job="tried", execution="y", how="retry")
    trees.ledger.events.add([tried])
    assert [one.task_id for one in trees.ledger.descendants.without_end(root)] == ["tried"]
