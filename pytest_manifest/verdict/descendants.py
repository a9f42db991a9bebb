"""Hold the tasks that a job started against what its entry expects of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_manifest.ledger.descendants import Descendant, Descendants
from pytest_manifest.schema import Entry, Mismatch, Source, Verdict, VerdictStatus
from pytest_manifest.schema.models import CountRange, ExpectedDescendants
from pytest_manifest.schema.statuses import ENDS, NOT_SENT, OPEN, STATUSES
from pytest_manifest.text import listed, many, plural, printable, seconds, short

PATH: Final = "descendants"
"""The path of a verdict's first mismatch where a descendant has not ended as expected."""
_STOCK: Final = "its worker sends no receipts"
_OLDER: Final = "its worker reports nothing of them"
_NAMES_SHOWN: Final = 3
_NAMED: Final = re.compile(
    r" its descendant (?P<task>'[^']*'|\"[^\"]*\") \([^()]*\), started by .*?, "
    rf"(?P<end>{'|'.join(re.escape(one.words) for one in STATUSES.values())}): (?P<why>.*)"
    r" \((?:it has|[\d,]+ more of its) [^()]*\)$",
    re.DOTALL,
)


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
    where there is none. ``untold``: a phrase for what the workers could not tell, "" where they
    could. ``is_short``: whether fewer were told of than the receipts of the job, or of a
    descendant, count.
    """

    counts: Mapping[VerdictStatus | None, int]
    tasks: Collection[str] = ()
    first: FailedDescendant | None = None
    untold: str = ""
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
) -> tuple[str, bool]:
    """Return why an attempt's descendants are not all known, by its ledger; "" where they are.

    And whether fewer are known than receipts count. ``source`` and ``children`` are of the
    attempt's receipt.
    """
    told = part.number_of_children(root, root) if children else 0
    reason, is_short = untold(source, children, told), told < (children or 0)
    short, silent = part.number_untold(root)
    if not reason and short:
        reason = f"{plural(short, 'descendant')} started more tasks than were reported"
    elif not reason and silent:
        reason = f"it is not known what {plural(silent, 'descendant')} started"
    return reason, is_short or short > 0


def untold(source: Source, children: int | None, told: int) -> str:
    """Return a phrase for what the workers could not tell of an attempt's descendants, or "".

    ``source`` and ``children`` are those of its receipt, ``told``: how many of its own children
    were told of.
    """
    if source == "backend":
        return _STOCK
    if children is None:
        return _OLDER
    if told < children:
        return f"it started {children:,}, and {told:,} of them were reported"
    return ""


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
        sentence = (
            f"The job passed, but what became of the tasks that it started is not known "
            f"({ends.untold}); use workers with receipts and a Redis as result store, or take "
            "'descendants' out of 'expect'."
        )
        return verdict.model_copy(update={"verdict": "unknown", "sentence": sentence})
    differences = list(_differences(expected, ends))
    if differences:
        first = differences[0]
        sentence = (
            f"The job passed, but {first.path} is {first.actual} where {first.expected} was "
            "expected; find out whether the task or the entry's 'expect' is wrong, and correct it."
        )
        return verdict.model_copy(
            update={"verdict": "failed", "sentence": sentence, "mismatches": differences}
        )
    if not ends.total or expected.outcome == "ignored":
        return verdict
    did = "succeeded" if expected.outcome == "succeeded" else "ended"
    its = "its descendant" if ends.total == 1 else f"its {ends.total:,} descendants"
    sentence = f"{verdict.sentence.removesuffix('.')}; {its} {did}."
    return verdict.model_copy(update={"sentence": sentence})


def by_part(entry: Entry, verdict: Verdict, ends: TreeEnds) -> Verdict:
    """Return the verdict on an attempt that was handed on to other tasks, and did not pass.

    Where one of its descendants has not ended as expected, that is why.
    """
    first = ends.first
    if first is None or first.verdict.verdict in OPEN:
        return verdict
    expected = entry.expect.of_descendants
    return _by_descendant(verdict, expected, ends, first, "The job was handed on to others, and")


def with_delay(verdict: Verdict, delay: float) -> Verdict:
    """Return the verdict on a task that ran too often, given for how long its message was held.

    ``delay``: seconds of its countdown, or until its ETA.
    """
    if not delay:
        return verdict
    why = f" It had a countdown or an ETA of {seconds(delay)}, for which a worker held its message."
    return verdict.model_copy(update={"sentence": verdict.sentence + why})


def of_part(task: str, task_id: str, verdict: Verdict) -> str:
    """Return the sentence on a task that was handed on to others, of which this one failed it."""
    status = verdict.verdict
    return (
        f"The task was handed on to others, and {printable(task)!r} ({printable(task_id)}) "
        f"{STATUSES[status].words}: {verdict.sentence}"
    )


def _by_descendant(
    verdict: Verdict,
    expected: ExpectedDescendants,
    ends: TreeEnds,
    first: FailedDescendant,
    itself: str = "The job passed, but",
) -> Verdict:
    bad = unexpected(expected, ends.counts)
    others = sum(number for status, number in ends.counts.items() if (status or "pending") in bad)
    others -= 1  # the first
    total = many(ends.total, "descendant")
    did = "did not succeed" if expected.outcome == "succeeded" else "did not end"
    rest = f"{others:,} more of its {total} {did}" if others > 0 else f"it has {total}"
    status = first.verdict.verdict
    sentence = (
        f"{itself} its descendant {printable(first.task)!r} "
        f"({printable(first.task_id)}), started by {printable(first.parent_task)!r}, "
        f"{STATUSES[status].words}: {first.verdict.sentence} ({rest})"
    )
    wanted = "each succeeded" if expected.outcome == "succeeded" else "each ended"
    mismatch = Mismatch(
        path=PATH, expected=wanted, actual=f"{others + 1:,} of {ends.total:,} {did}"
    )
    return verdict.model_copy(
        update={
            "verdict": status,
            "sentence": sentence,
            "mismatches": [mismatch, *map(_of_descendant, first.verdict.mismatches)],
        }
    )


def named_descendant(verdict: Verdict) -> tuple[str, str, str] | None:
    """Return the task of the descendant that a verdict rests on, how it ended, and why.

    They are words of the verdict's sentence; None where it rests on none.
    """
    if not (verdict.mismatches and verdict.mismatches[0].path == PATH):
        return None
    found = _NAMED.search(verdict.sentence)
    return None if found is None else (found["task"][1:-1], found["end"], found["why"])


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
