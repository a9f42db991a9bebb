"""Hold the tasks that a job started against what its entry expects of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_manifest.ledger.descendants import Descendant, Descendants
from pytest_manifest.schema import Entry, Mismatch, Source, Verdict, VerdictStatus
from pytest_manifest.schema.models import CountRange, ExpectedDescendants
from pytest_manifest.schema.statuses import ENDS, NOT_SENT, OPEN, STATUSES
from pytest_manifest.text import listed, many, printable, short
from pytest_manifest.verdict.messages import (
    Duplicated,
    Resting,
    Reused,
    Unmet,
    Worded,
)
from pytest_manifest.verdict.problems import (
    ChildrenMissing,
    GrandchildrenMissing,
    GrandchildrenUnknown,
    NoTreeReports,
    NoTreeReportsYet,
)
from pytest_manifest.verdict.reasons import Problem, Reason, reason_of, verdict_of

PATH: Final = "descendants"
"""The path of a verdict's first mismatch where a descendant has not ended as expected."""
_NAMES_SHOWN: Final = 3


class ByDescendant(Resting):
    """A descendant that did not end as expected, the first one of ``more``, and why it did not.

    ``parent``: the task that started it; ``ended_only``: it was only to end, however;
    ``handed_on``: its job was handed on to it, and has no other end.
    """

    rule = "J"
    task: str
    task_id: str
    parent: str
    ended: VerdictStatus
    total: int
    more: int = 0
    ended_only: bool = False
    handed_on: bool = False

    @property
    def did(self) -> str:
        return "did not end" if self.ended_only else "did not succeed"

    @property
    def said(self) -> str:
        return self.why.sentence(self.ended)

    @property
    def came_to(self) -> str:
        return STATUSES[self.ended].words

    def sentence(self, status: VerdictStatus) -> str:  # noqa: ARG002 - that of the descendant
        itself = "The job was handed on to others, and" if self.handed_on else "The job passed, but"
        total = many(self.total, "descendant")
        rest = f"{self.more:,} more of its {total} {self.did}" if self.more else f"it has {total}"
        return (
            f"{itself} its descendant {printable(self.task)!r} ({printable(self.task_id)}), "
            f"started by {printable(self.parent)!r}, {self.came_to}: "
            f"{self.said} ({rest})"
        )

    def advice(self, status: VerdictStatus) -> str:  # noqa: ARG002 - that of the descendant
        return self.why.advice(self.ended)


class PartFailed(Resting):
    """A task that was handed on to others, of which this one failed it."""

    rule = "J"
    task: str
    task_id: str
    ended: VerdictStatus

    def sentence(self, status: VerdictStatus) -> str:  # noqa: ARG002 - that of the part
        name = f"{printable(self.task)!r} ({printable(self.task_id)})"
        said = f"{STATUSES[self.ended].words}: {self.why.sentence(self.ended)}"
        return f"The task was handed on to others, and {name} {said}"

    def advice(self, status: VerdictStatus) -> str:  # noqa: ARG002 - that of the part
        return self.why.advice(self.ended)


class DescendantsDiffer(Worded):
    rule = "J"
    path: str
    expected: str
    actual: str
    says = "The job passed, but {path} is {actual} where {expected} was expected"
    then = Unmet.then


class DescendantsUnknown(Worded):
    rule = "J"
    why: Problem
    says = "The job passed, but what became of the tasks that it started is not known ({phrase})"
    then = (
        "use workers with receipts and a Redis as result store, or take 'descendants' out of "
        "'expect'"
    )

    def words(self) -> dict[str, object]:
        return {"phrase": self.why.phrase()}


class ChildUnsent(Worded):
    rule = "J"
    says = "its parent could not send it"


class ChordDropped(Worded):
    rule = "J"
    says = "it is the body of a chord that was not completed"


@dataclass(frozen=True, slots=True)
class FailedDescendant:
    """A descendant that did not end as expected: its task, what started it, and its verdict."""

    task_id: str
    task: str
    parent_task: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class TreeEnds:
    """The ends of an attempt's descendants.

    ``counts``: how many there are by status, None: without a verdict. ``tasks``: the names of their
    tasks. ``first``: the first that counts among those with a status that is not expected, None
    where there is none. ``untold``: what the workers could not report, None where they could.
    ``is_short``: whether fewer are known than the receipts of the job, or of a descendant, count.
    """

    counts: Mapping[VerdictStatus | None, int]
    tasks: Collection[str] = ()
    first: FailedDescendant | None = None
    untold: Problem | None = None
    is_short: bool = False

    @property
    def total(self) -> int:
        """Return how many descendants ran, or should have."""
        return number_of(self.counts)


def number_of(counts: Mapping[VerdictStatus | None, int]) -> int:
    """Return how many descendants ran, or should have, by their numbers by status."""
    return sum(number for status, number in counts.items() if status != NOT_SENT)


def failed_of(counts: Mapping[VerdictStatus | None, int]) -> int:
    """Return how many descendants have an end that is no success, by their numbers by status."""
    others = (None, "passed", "pending", NOT_SENT)
    return sum(number for status, number in counts.items() if status not in others)


def counts_text(counts: Mapping[VerdictStatus | None, int]) -> str:
    """Return in words how many descendants there are, and how they ended."""
    return f"{many(number_of(counts), 'descendant')}: {ends_text(counts)}"


def ends_text(counts: Mapping[VerdictStatus | None, int]) -> str:
    """Return in words how descendants ended, like ``1 failed, 25 passed``."""
    ends = sorted((status or "pending", count) for status, count in counts.items())
    return ", ".join(f"{count:,} {status}" for status, count in ends)


def untold_of(
    part: Descendants, root: str, source: Source, children: int | None
) -> tuple[Problem | None, bool]:
    """Return why an attempt's descendants are not all known, by its ledger; None where they are.

    And whether fewer are known than receipts count. ``source`` and ``children`` are of the
    attempt's receipt.
    """
    told = part.number_of_children(root, root) if children else 0
    reason, is_short = untold(source, children, told), told < (children or 0)
    short, silent = part.number_untold(root)
    if reason is None and short:
        reason = GrandchildrenMissing(descendants=short)
    elif reason is None and silent:
        reason = GrandchildrenUnknown(descendants=silent)
    return reason, is_short or short > 0


def untold(source: Source, children: int | None, told: int) -> Problem | None:
    """Return what the workers could not report of an attempt's descendants; None for nothing.

    ``source`` and ``children`` are those of its receipt, ``told``: how many of its own children
    are known.
    """
    if source == "backend":
        return NoTreeReports()
    if children is None:
        return NoTreeReportsYet()
    return ChildrenMissing(children=children, known=told) if told < children else None


def expects_something(entry: Entry) -> bool:
    """Return whether the entry itself says what must become of its descendants."""
    return "descendants" in entry.expect.model_fields_set and not is_ignored(entry)


def is_ignored(entry: Entry) -> bool:
    """Return whether nothing about its descendants matters to the entry: none is awaited."""
    return entry.expect.of_descendants == ExpectedDescendants(outcome="ignored")


def unexpected(
    expected: ExpectedDescendants, counts: Mapping[VerdictStatus | None, int]
) -> list[VerdictStatus]:
    """Return which of these statuses are not expected, those first that leave no doubt."""
    if expected.outcome == "ignored":
        return []
    allowed = {"passed", NOT_SENT} if expected.outcome == "succeeded" else ENDS
    found: set[VerdictStatus] = {status or "pending" for status in counts}
    return sorted(found - allowed, key=lambda status: (status in OPEN, status))


def ends_as_expected(
    part: Descendants, expected: ExpectedDescendants, root: str
) -> Mapping[VerdictStatus | None, int]:
    """Count an attempt's descendants by status, as its entry's expectation sees them.

    A task that its worker stopped at a time limit has come to an end; where nobody tells of one,
    it has not. Only the latter are ``timed_out`` where ends are all that is expected.
    """
    counts = dict(part.statuses(root))
    if "timed_out" not in counts:
        return counts
    number = without = counts.pop("timed_out")
    if expected.outcome == "finished":
        without = part.number_without_end(root, "timed_out")
        counts["failed"] = counts.get("failed", 0) + number - without
    return {**counts, "timed_out": without} if without else counts


def first_unexpected(
    part: Descendants,
    expected: ExpectedDescendants,
    root: str,
    counts: Mapping[VerdictStatus | None, int],
) -> Descendant | None:
    """Return the first started of an attempt's descendants that did not end as expected.

    What leaves no doubt comes before what does. ``counts``: see :func:`ends_as_expected`.
    """
    found = unexpected(expected, counts)
    untold: VerdictStatus | None = "timed_out" if expected.outcome == "finished" else None
    doubtful = [status for status in found if status in OPEN]
    for some in ([status for status in found if status not in OPEN], doubtful):
        if some and (one := part.first(root, some, untold=untold)) is not None:
            return one
    return None


def with_descendants(entry: Entry, verdict: Verdict, ends: TreeEnds) -> Verdict:
    """Return an attempt's verdict, given the ends of its descendants.

    ``verdict`` is on the job itself: where that has not passed, it stands.
    """
    if verdict.verdict != "passed":
        return verdict
    expected = entry.expect.of_descendants
    if ends.first is not None:
        return _by_descendant(verdict, expected, ends, ends.first)
    if ends.untold and (expects_something(entry) or (ends.is_short and not is_ignored(entry))):
        return _otherwise(verdict, "unknown", DescendantsUnknown(why=ends.untold))
    differences = list(_differences(expected, ends))
    if differences:
        one = differences[0]
        reason = DescendantsDiffer(path=one.path, expected=one.expected, actual=one.actual)
        return _otherwise(verdict, "failed", reason, differences)
    if not ends.total or expected.outcome == "ignored":
        return verdict
    did = "succeeded" if expected.outcome == "succeeded" else "ended"
    return _otherwise(verdict, "passed", reason_of(verdict).with_tree(ends.total, did))


def by_part(entry: Entry, verdict: Verdict, ends: TreeEnds) -> Verdict:
    """Return the verdict on an attempt that was handed on to other tasks, and did not pass.

    Where one of its descendants has not ended as expected, that is why.
    """
    first = ends.first
    if first is None or first.verdict.verdict in OPEN:
        return verdict
    expected = entry.expect.of_descendants
    return _by_descendant(verdict, expected, ends, first, handed_on=True)


def with_delay(verdict: Verdict, delay: float) -> Verdict:
    """Return the verdict on a task that ran too often, given for how long its message was held.

    ``delay``: seconds of its countdown, or until its ETA.
    """
    reason = reason_of(verdict)
    if not delay or not isinstance(reason, Duplicated):
        return verdict
    return _otherwise(verdict, verdict.verdict, reason.having(delay=delay))


def _otherwise(
    verdict: Verdict,
    status: VerdictStatus,
    reason: Reason,
    mismatches: Sequence[Mismatch] | None = None,
) -> Verdict:
    """Return a verdict with another status and reason, and with these mismatches, where given."""
    found = verdict.mismatches if mismatches is None else mismatches
    return verdict_of(verdict.entry, verdict.attempt, status, reason, found)


def _by_descendant(
    verdict: Verdict,
    expected: ExpectedDescendants,
    ends: TreeEnds,
    first: FailedDescendant,
    *,
    handed_on: bool = False,
) -> Verdict:
    bad, ended_only = unexpected(expected, ends.counts), expected.outcome != "succeeded"
    number = sum(number for status, number in ends.counts.items() if (status or "pending") in bad)
    status = first.verdict.verdict
    reason = ByDescendant(
        task=first.task,
        task_id=first.task_id,
        parent=first.parent_task,
        ended=status,
        why=reason_of(first.verdict),
        total=ends.total,
        more=max(number - 1, 0),
        ended_only=ended_only,
        handed_on=handed_on,
    )
    wanted, did = "each ended" if ended_only else "each succeeded", reason.did
    mismatch = Mismatch(path=PATH, expected=wanted, actual=f"{number:,} of {ends.total:,} {did}")
    own = map(_of_descendant, first.verdict.mismatches)
    return _otherwise(verdict, status, reason, [mismatch, *own])


def descendant_of(verdict: Verdict) -> ByDescendant | None:
    """Return the descendant that a verdict rests on, and why; None where it rests on none."""
    reason = reason_of(verdict)
    reason = reason.why if isinstance(reason, Reused) else reason
    return reason if isinstance(reason, ByDescendant) else None


def _of_descendant(mismatch: Mismatch) -> Mismatch:
    return mismatch.model_copy(update={"path": f"descendant.{mismatch.path}"})


def _differences(expected: ExpectedDescendants, ends: TreeEnds) -> Iterator[Mismatch]:
    count = expected.count
    if count is not None and not _is_in(count, ends.total):
        yield Mismatch(
            path="descendants.count", expected=_range_text(count), actual=str(ends.total)
        )
    if expected.tasks is None:
        return
    wanted, found = set(expected.tasks), set(ends.tasks)
    if wanted != found:
        yield Mismatch(
            path="descendants.tasks",
            expected=listed([short(name) for name in sorted(wanted)], _NAMES_SHOWN) or "none",
            actual=listed([short(name) for name in sorted(found)], _NAMES_SHOWN) or "none",
        )


def _is_in(count: int | CountRange, number: int) -> bool:
    if isinstance(count, int):
        return number == count
    return count.min <= number and (count.max is None or number <= count.max)


def _range_text(count: int | CountRange) -> str:
    if isinstance(count, int):
        return str(count)
    if count.max is None:
        return f"at least {count.min}"
    return f"{count.min} to {count.max}"
