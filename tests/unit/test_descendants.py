"""What becomes of an entry by the tasks that its job has started, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pytest

from pytest_manifest.ledger.descendants import Descendants
from pytest_manifest.schema import Entry, Mismatch, Source, Verdict, VerdictStatus
from pytest_manifest.schema.models import DescendantsOutcome, ExpectedDescendants
from pytest_manifest.verdict.descendants import (
    FailedDescendant,
    PartFailed,
    TreeEnds,
    by_part,
    counts_text,
    descendant_of,
    ends_as_expected,
    ends_text,
    expects_something,
    failed_of,
    first_unexpected,
    is_ignored,
    number_of,
    unexpected,
    untold,
    untold_of,
    with_delay,
    with_descendants,
)
from pytest_manifest.verdict.messages import AsExpected, Duplicated
from pytest_manifest.verdict.reasons import Said, reason_of, verdict_of
from tests.reasons import noted, phrase
from tests.unit.tree_support import Trees, times

Counts: TypeAlias = Mapping[VerdictStatus | None, int]
ALL: Counts = dict.fromkeys((*get_args(VerdictStatus), None), 1)
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


def expected(outcome: DescendantsOutcome, **fields: Any) -> ExpectedDescendants:
    return ExpectedDescendants(outcome=outcome, **fields)


WELL = "The task succeeded, as expected"


def verdict(status: VerdictStatus = "passed", sentence: str = "") -> Verdict:
    reason = Said(text=sentence) if sentence else AsExpected()
    return verdict_of("a", 1, status, reason)


def bare(found: Verdict) -> Verdict:
    """Return a verdict as its sentence says it, whatever its reason is called."""
    return verdict(found.verdict, found.sentence).model_copy(
        update={"mismatches": found.mismatches}
    )


def reported(
    part: Descendants, root: str, source: Source, children: int | None
) -> tuple[str, bool]:
    why, is_short = untold_of(part, root, source, children)
    return phrase(why), is_short


def first(status: VerdictStatus, *mismatches: Mismatch) -> FailedDescendant:
    why = verdict(status, "It says why.").model_copy(update={"mismatches": list(mismatches)})
    return FailedDescendant("c1", "jobs.page", "jobs.book", why)


def part_failed(ended: Verdict, task: str = "jobs.page", task_id: str = "c1") -> str:
    why = reason_of(ended)
    return PartFailed(task=task, task_id=task_id, ended=ended.verdict, why=why).sentence("lost")


# Numbers


def test_a_descendant_that_was_never_sent_is_none() -> None:
    """Its parent saw that it was not; those without an end are some."""
    counts: Counts = {"passed": 4, "failed": 3, "skipped": 20, None: 2, "pending": 1}
    assert number_of(counts) == TreeEnds(counts).total == 10
    assert number_of({}) == 0


def test_only_an_end_that_is_no_success_is_a_failure() -> None:
    """Of all statuses, four are none."""
    others = {"passed", "pending", "skipped", None}
    for status in ALL:
        assert failed_of({status: 7}) == (0 if status in others else 7)
    assert failed_of({"failed": 2, "lost": 3, None: 9}) == 5


def test_ends_are_told_in_the_order_of_their_names() -> None:
    """With the thousands set off, and what has no end as pending."""
    counts: Counts = {"passed": 1200, None: 1000, "failed": 1}
    assert ends_text(counts) == "1 failed, 1,200 passed, 1,000 pending"
    assert counts_text(counts) == "2,201 descendants: 1 failed, 1,200 passed, 1,000 pending"
    assert counts_text({"lost": 1}) == "1 descendant: 1 lost"


# What nobody told of


@pytest.mark.parametrize(
    ("source", "children", "told", "why"),
    [
        ("backend", 2, 2, "its worker sends no receipts"),
        ("worker", None, 2, "its worker reports nothing of them"),
        ("worker", 1200, 1100, "it started 1,200, and 1,100 of them were reported"),
        ("worker", 2, 1, "it started 2, and 1 of them were reported"),
        ("worker", 2, 2, ""),
        ("worker", 2, 3, ""),
        ("worker", 0, 0, ""),
    ],
)
def test_a_reason_is_given_for_what_is_not_known(
    source: Source, children: int | None, told: int, why: str
) -> None:
    """None where all were told of, or more."""
    assert phrase(untold(source, children, told)) == why


def test_only_children_count_as_what_a_job_has_started(trees: Trees) -> None:
    """Of this attempt; what they start in turn is their own affair."""
    root = trees.entry("a")
    trees.child(root, "c1")
    trees.child(root, "c2", "c1")
    part = trees.ledger.descendants
    fewer = "it started 2, and 1 of them were reported"
    assert reported(part, root, "worker", 1) == ("", False)
    assert reported(part, root, "worker", 2) == (fewer, True)
    assert reported(part, root, "worker", None) == ("its worker reports nothing of them", False)
    assert reported(part, root, "backend", 1) == ("its worker sends no receipts", False)
    assert reported(part, root, "backend", 2) == ("its worker sends no receipts", True)
    assert reported(part, trees.entry("b"), "worker", 0) == ("", False)


def test_a_descendant_may_have_started_what_nobody_tells_of(trees: Trees) -> None:
    """Its worker is an older one; what is missing of the job's own is told first."""
    root = trees.entry("a")
    trees.child(root, "c1", received={**TOLD, "children": None})
    part = trees.ledger.descendants
    one = "it is not known what 1 descendant started"
    assert reported(part, root, "worker", 1) == (one, False)
    assert reported(part, root, "worker", 0) == (one, False)
    fewer = "it started 2, and 1 of them were reported"
    assert reported(part, root, "worker", 2) == (fewer, True)
    trees.child(root, "c2", received={**TOLD, "children": None})
    two = "it is not known what 2 descendants started"
    assert reported(part, root, "worker", 2) == (two, False)


def test_a_descendant_may_have_started_more_than_was_told_of(trees: Trees) -> None:
    """Which is as if the job had, and is told before what nobody counts."""
    root = trees.entry("a")
    trees.child(root, "c1", received={**TOLD, "children": 2})
    trees.child(root, "c2", "c1")
    trees.child("t-other", "c3", "c1")
    part = trees.ledger.descendants
    one = "1 descendant started more tasks than were reported"
    assert reported(part, root, "worker", 1) == (one, True)
    fewer = "it started 2, and 1 of them were reported"
    assert reported(part, root, "worker", 2) == (fewer, True)
    assert reported(part, root, "backend", 1) == ("its worker sends no receipts", True)
    trees.child(root, "c4", received={**TOLD, "children": None})
    trees.child(root, "c5", received={**TOLD, "children": 1})
    two = "2 descendants started more tasks than were reported"
    assert reported(part, root, "worker", 3) == (two, True)
    trees.child(root, "c6", "c5")
    trees.child(root, "c7", "c1")
    silent = "it is not known what 1 descendant started"
    assert reported(part, root, "worker", 3) == (silent, False)


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
                *("rejected", "revoked", "timed_out", "unknown_task", "withdrawn"),
                *("pending", "unknown"),
            ],
        ),
        ("finished", ["duplicated", "forged", "lost", "timed_out", "pending", "unknown"]),
        ("ignored", []),
    ],
)
def test_each_status_is_expected_or_not(outcome: DescendantsOutcome, found: list[str]) -> None:
    """Those that leave no doubt come first; what has no end is pending, and told once."""
    assert unexpected(expected(outcome), ALL) == found
    assert unexpected(expected(outcome), {None: 1}) == ([] if outcome == "ignored" else ["pending"])


def test_what_its_worker_stopped_has_ended_and_what_nobody_tells_of_has_not(trees: Trees) -> None:
    """Where ends are all that is expected; else both have come to no success."""
    root = trees.entry("a")
    trees.child(root, "c1")
    trees.child(root, "c2", kind="timed_out", received=TOLD)
    trees.child(root, "c3", kind="timed_out", received=TOLD)
    part = trees.ledger.descendants
    assert ends_as_expected(part, expected("finished"), root) == {"passed": 1, "failed": 2}
    trees.child(root, "c4", kind="timed_out")
    trees.child(root, "c5", kind="failed")
    assert ends_as_expected(part, expected("succeeded"), root) == {
        "passed": 1,
        "failed": 1,
        "timed_out": 3,
    }
    assert ends_as_expected(part, expected("finished"), root) == {
        "passed": 1,
        "failed": 3,
        "timed_out": 1,
    }


def test_ends_of_which_none_was_too_late_are_counted_as_they_are(trees: Trees) -> None:
    """Also where none has ended."""
    root = trees.entry("a")
    trees.child(root, "c1", kind=None)
    trees.child(root, "c2", kind="failed")
    found = ends_as_expected(trees.ledger.descendants, expected("finished"), root)
    assert found == {None: 1, "failed": 1}


def first_of(trees: Trees, outcome: DescendantsOutcome) -> str | None:
    wanted, part = expected(outcome), trees.ledger.descendants
    one = first_unexpected(part, wanted, "t-a", ends_as_expected(part, wanted, "t-a"))
    return None if one is None else one.task_id


def test_the_first_that_leaves_no_doubt_is_named(trees: Trees) -> None:
    """One that may still come to a good end is named where there is no other."""
    root = trees.entry("a")
    assert first_of(trees, "succeeded") is None
    trees.child(root, "c1")
    assert first_of(trees, "succeeded") is None
    trees.child(root, "c2", kind="unknown")
    trees.child(root, "c3", kind=None)
    assert first_of(trees, "succeeded") == first_of(trees, "finished") == "c2"
    trees.child(root, "c4", kind="failed")
    trees.child(root, "c5", kind="lost")
    assert first_of(trees, "succeeded") == "c4"
    assert first_of(trees, "finished") == "c5"
    assert first_of(trees, "ignored") is None


def test_the_first_that_was_too_late_is_one_that_nobody_told_of(trees: Trees) -> None:
    """Where ends are all that is expected: the others have ended."""
    root = trees.entry("a")
    trees.child(root, "c1", kind="timed_out", received=TOLD)
    trees.child(root, "c2", kind="timed_out")
    assert first_of(trees, "succeeded") == "c1"
    assert first_of(trees, "finished") == "c2"


# The verdict


@pytest.mark.parametrize("status", [one for one in get_args(VerdictStatus) if one != "passed"])
def test_a_job_that_has_not_passed_is_judged_by_itself(status: VerdictStatus) -> None:
    """Whatever it has started."""
    judged = verdict(status)
    ends = TreeEnds({"failed": 1}, (), first("failed"), noted("nobody told"), is_short=True)
    assert with_descendants(entry("finished"), judged, ends) is judged


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
    found = with_descendants(entry(descendants), verdict(), TreeEnds(counts))
    assert (found.verdict, found.sentence) == ("passed", said)


UNTOLD = (
    "The job passed, but what became of the tasks that it started is not known (nobody says); "
    "use workers with receipts and a Redis as result store, or take 'descendants' out of 'expect'."
)


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.parametrize(
    ("descendants", "is_known"),
    [
        (None, None),
        ("finished", False),
        ({"outcome": "ignored", "count": 0}, False),
        ("ignored", 1),
    ],
)
def test_what_nobody_can_tell_is_no_pass_where_it_matters(
    descendants: object, is_known: bool | None, *, is_short: bool
) -> None:
    """To an entry that says nothing of it, only where some are known to be missing."""
    ends = TreeEnds({"passed": 0}, untold=noted("nobody says"), is_short=is_short)
    found = with_descendants(entry(descendants), verdict(), ends)
    passes = not is_short if is_known is None else is_known
    assert bare(found) == bare(verdict() if passes else verdict("unknown", UNTOLD))


def test_what_is_short_and_was_told_of_all_the_same_passes() -> None:
    """It is the reason that counts."""
    ends = TreeEnds({"passed": 0}, is_short=True)
    assert with_descendants(entry("finished"), verdict(), ends).verdict == "passed"


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
    ends = TreeEnds({"passed": number, "skipped": 50})
    found = with_descendants(entry({"count": count}), verdict(), ends)
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
    judged = with_descendants(
        entry({"tasks": wanted}), verdict(), TreeEnds({"passed": len(found)}, found)
    )
    if said is None:
        assert judged.verdict == "passed"
        return
    (mismatch,) = judged.mismatches
    assert (mismatch.path, mismatch.expected, mismatch.actual) == ("descendants.tasks", *said)


def test_every_difference_is_listed() -> None:
    """The sentence has the first one."""
    ends = TreeEnds({"passed": 1}, {"a"})
    found = with_descendants(entry({"count": 2, "tasks": ["b"]}), verdict(), ends)
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
    ends = TreeEnds({"passed": 2, status: 1}, (), first(status))
    said = (
        f"The job passed, but its descendant 'jobs.page' (c1), started by 'jobs.book', "
        f"{WORDS[status]}: It says why. (it has 3 descendants)"
    )
    found = with_descendants(entry(), verdict(), ends)
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
    found = with_descendants(entry(descendants), verdict(), TreeEnds(counts, (), first("lost")))
    assert found.sentence.endswith(f"was lost: It says why. ({rest})")
    wanted = "each ended" if descendants == "finished" else "each succeeded"
    assert [(one.path, one.expected, one.actual) for one in found.mismatches] == [
        ("descendants", wanted, actual)
    ]


def test_the_differences_of_the_descendant_are_its_entrys_too() -> None:
    """Under a path of its own, after that of the tree."""
    one = Mismatch(path="result.a", expected="1", actual="2")
    ends = TreeEnds({"failed": 1}, (), first("failed", one))
    found = with_descendants(entry(), verdict(), ends)
    assert [each.path for each in found.mismatches] == ["descendants", "descendant.result.a"]
    assert (found.mismatches[1].expected, found.mismatches[1].actual) == ("1", "2")


def test_a_status_that_no_rule_calls_unexpected_has_words() -> None:
    told = verdict("skipped", "It says why.")
    assert " was held back: It says why." in part_failed(told)
    ends = TreeEnds({"skipped": 1}, (), first("skipped"))
    found = with_descendants(entry(), verdict(), ends)
    assert ", was held back: It says why. (it has 0 descendants)" in found.sentence


def test_names_are_told_without_what_a_terminal_obeys() -> None:
    """Whatever a worker sends."""
    failed = FailedDescendant("c\x07", "t\x1b[2J\x07", "p\x07", verdict("failed", "It did."))
    ends = TreeEnds({"failed": 1}, (), failed)
    said = with_descendants(entry(), verdict(), ends).sentence
    assert r"its descendant 't\\x07' (c\x07), started by 'p\\x07', failed" in said
    said = part_failed(verdict("failed", "It did."), "t\x07", "c\x07")
    assert r"'t\\x07' (c\x07) failed" in said


# Jobs that were handed on


def test_a_job_that_was_handed_on_failed_for_one_of_its_parts() -> None:
    """Where that one's end leaves no doubt."""
    lost = verdict("lost", "Nobody has it.")
    parts = TreeEnds({"failed": 1}, (), first("failed"))
    found = by_part(entry(), lost, parts)
    assert found.verdict == "failed"
    assert found.sentence == (
        "The job was handed on to others, and its descendant 'jobs.page' (c1), started by "
        "'jobs.book', failed: It says why. (it has 1 descendant)"
    )
    assert by_part(entry(), lost, TreeEnds({"passed": 1})) is lost
    for doubt in ("unknown", "pending"):
        assert by_part(entry(), lost, TreeEnds({doubt: 1}, (), first(doubt))) is lost


def test_what_ran_too_often_had_a_delay() -> None:
    """For which a worker held its message, until the broker gave it to another."""
    reason = Duplicated(state="succeeded", executions=2, allowed=1)
    judged = verdict_of("a", 1, "duplicated", reason)
    assert with_delay(judged, 0.0) is judged
    held = with_delay(judged, 90.0)
    due = " It had a countdown or an ETA of 90 s, for which a worker held its message."
    assert (held.verdict, held.sentence) == ("duplicated", judged.sentence + due)
