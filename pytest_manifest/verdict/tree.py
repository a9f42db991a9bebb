"""Fold the judged descendants of an attempt into what its entry's verdict takes of them (J)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Final

from pytest_manifest.schema import Entry, Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Announced, Closed, Job, Spawn
from pytest_manifest.schema.models import CountRange, ExpectedDescendants
from pytest_manifest.schema.run_facts import JobFact
from pytest_manifest.schema.statuses import DEATHS, ENDS, NOT_SENT, OPEN, SILENT, STATUSES
from pytest_manifest.schema.stream_records import HOW_AFTER
from pytest_manifest.text import listed, many, printable, short
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.messages import Resting, Reused, Unmet, Worded
from pytest_manifest.verdict.reasons import Finding, Problem, reason_of

PATH: Final = "descendants"
"""The path of a verdict's first mismatch where a descendant has not ended as expected."""
_UNREPORTED: Final = SILENT | DEATHS
"""Ends that no worker may have reported: nobody says then that a chord has no body any more."""
_NAMES_SHOWN: Final = 3
_LAST: Final = datetime.max.replace(tzinfo=timezone.utc)


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
class Descendant:
    """A judged descendant.

    ``has_end``: a worker has reported its end; ``children``: how many tasks its receipts count,
    ``is_silent``: its process has ended, and counts none; ``has_parts``: it was handed on to
    several tasks, and ``was_split``: the last of these has not begun.
    """

    job: Job
    finding: Finding
    has_end: bool = False
    children: int = 0
    is_silent: bool = False
    has_parts: bool = False
    was_split: bool = False

    @property
    def spawn(self) -> Spawn:
        spawn = self.job.spawn
        if spawn is None:
            raise ValueError(f"{self.job.task_id} was started by no task")
        return spawn

    @property
    def is_open(self) -> bool:
        return self.finding.status == "pending"

    @property
    def is_body(self) -> bool:
        """Return whether it stands for the body of a chord, which nobody has reported sent."""
        return self.spawn.how == "chord_body" and bool(self.spawn.announcement)


@dataclass(slots=True)
class _Awaited:
    """Messages that are announced under one key: so many, maybe under these ids."""

    number: int = 0
    task_ids: set[str] = field(default_factory=set)
    is_over: bool = False
    """Whether nothing more comes by it: it is off, or closed."""
    since: int = 0
    """The ``seq`` of the first fact that has announced something by it."""


class Tree:
    """The descendants of one attempt: add each with its last judgement, in any order."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._sent: dict[str, Descendant] = {}
        self._placeholders: dict[str, Descendant] = {}
        """What stands for something announced that nobody has reported sent; it is looked for."""
        self._open = 0
        self._came: Counter[str] = Counter()
        self._awaited: dict[str, _Awaited] = {}

    def __bool__(self) -> bool:
        return bool(self._sent or self._placeholders or self._awaited)

    def add(self, one: Descendant) -> None:
        """Add a descendant, or judge it anew."""
        task_id, spawn = one.job.task_id, one.spawn
        if spawn.announcement:
            self._placeholders[task_id] = one
            return
        before = self._sent.get(task_id)
        if before is not None:
            self._open -= before.is_open
        elif spawn.fulfils is not None:
            self._came[spawn.fulfils] += 1
        self._sent[task_id] = one
        self._open += one.is_open

    def announce(self, facts: Iterable[JobFact]) -> None:
        """Take from an attempt's facts what is announced of its tree."""
        for fact in facts:
            if isinstance(fact, Announced):
                one = self._awaited.setdefault(fact.key, _Awaited())
                one.number = max(one.number, fact.number)
                one.task_ids.update(fact.task_ids)
                one.since = min(one.since or fact.seq, fact.seq)
                one.is_over = one.is_over or fact.is_off
            elif isinstance(fact, Closed):
                self._awaited.setdefault(fact.key, _Awaited()).is_over = True

    # Whether it is complete

    def is_complete(self) -> bool:
        """Return whether all has ended that is known of, and all is known that is announced (J2).

        Or was looked for in vain.
        """
        if self._open or any(one.is_open for one in self._lacking()):
            return False
        return not self.missing_keys()

    def missing_keys(self) -> list[str]:
        """Return the keys of what is announced, not known, and to be looked for."""
        looked_for = {one.spawn.announcement for one in self._placeholders.values()}
        return [key for key in self._awaited if key not in looked_for and self._lacks(key)]

    def missing_since(self) -> int | None:
        """Return since which fact something is to be looked for; None: nothing is."""
        return max((self._awaited[key].since for key in self.missing_keys()), default=None)

    def _lacks(self, key: str) -> bool:
        awaited = self._awaited.get(key)
        if awaited is None or awaited.is_over:
            return False
        by_id = (self._sent[task_id] for task_id in awaited.task_ids if task_id in self._sent)
        known = sum(one.spawn.fulfils is None for one in by_id)
        return self._came[key] + known < awaited.number

    def _lacking(self) -> Iterator[Descendant]:
        """Yield what stands for something announced that has not come all the same."""
        return (one for one in self._placeholders.values() if self._lacks(one.spawn.announcement))

    # How it ended

    def ends(self) -> Sequence[Descendant]:
        """Return the descendants with what follows for some from others (J1): which were split
        off, and which were never sent as their chord was not complete."""
        # Of what a task's own handlers may start nobody says that there is something.
        others = (one for one in self._lacking() if one.is_open or one.spawn.how != HOW_AFTER)
        own = [*self._sent.values(), *others]
        if not any(one.was_split or one.is_body for one in own):
            return own
        whole = [one for one in own if not one.was_split]
        part = _failed_part(whole)
        return [self._following(one, part, whole) for one in own]

    def _following(
        self, one: Descendant, part: Finding | None, whole: Sequence[Descendant]
    ) -> Descendant:
        if one.was_split and part is not None:
            return replace(one, finding=part)
        is_lost = one.is_body and one.finding.status == "lost"
        if is_lost and any(_breaks(other, one.spawn.announcement) for other in whole):
            return replace(one, finding=Finding(NOT_SENT, ChordDropped()))
        return one

    def unknown_children(self, receipt: Receipt) -> tuple[Problem, bool] | None:
        """Return why not all descendants are known, None where they are (J4).

        And whether fewer are known than receipts count; ``receipt`` is the attempt's own.
        """
        known = Counter(one.spawn.parent for one in self._sent.values())
        children, own = receipt.children, known[self.root]
        short_ones = sum(one.children > known[one.job.task_id] for one in self._sent.values())
        silent_ones = sum(one.is_silent for one in self._sent.values())
        if children is None:
            by_store = receipt.source == "backend"
            why = problems.NoTreeReports() if by_store else problems.NoTreeReportsYet()
            return why, short_ones > 0
        if own < children:
            return problems.ChildrenMissing(children=children, known=own), True
        if short_ones:
            return problems.GrandchildrenMissing(descendants=short_ones), True
        if silent_ones:
            return problems.GrandchildrenUnknown(descendants=silent_ones), False
        return None

    @property
    def open_ones(self) -> int:
        """Return how many tasks have not ended, or are to be looked for."""
        return self._open + sum(one.is_open for one in self._lacking()) + len(self.missing_keys())

    @property
    def may_go_on(self) -> bool:
        """Return whether a descendant may run yet whose time was over."""
        return any(
            one.finding.status == "timed_out" and not one.has_end
            for one in (*self._sent.values(), *self._lacking())
        )

    def task_of(self, task_id: str) -> str:
        """Return the task of a descendant, or its id."""
        one = self._sent.get(task_id)
        return task_id if one is None else one.spawn.task


def _failed_part(whole: Sequence[Descendant]) -> Finding | None:
    """Return the finding on tasks that were handed on to others, by the first that failed."""
    part = first_of(whole, _unexpected(ExpectedDescendants(), whole) - OPEN)
    if part is None:
        return None
    found, task = part.finding, part.spawn.task
    reason = PartFailed(task=task, task_id=part.job.task_id, ended=found.status, why=found.reason)
    return Finding(found.status, reason, found.mismatches)


def _breaks(one: Descendant, chord: str) -> bool:
    """Return whether no body is sent of a chord of which this may be a member.

    Celery sends none where a member was not sent, has no end, or one that no worker stored. One of
    which nobody reports what chord it is of may be of this one.
    """
    chords, status = one.spawn.chords, one.finding.status
    if one.spawn.announcement:
        return False
    if chords is None:
        return status in _UNREPORTED
    return chord in chords and (status in _UNREPORTED or status == NOT_SENT)


def first_of(ends: Iterable[Descendant], statuses: Collection[VerdictStatus]) -> Descendant | None:
    """Return the first started of these with one of the statuses.

    One that was handed on to other tasks comes after these, and one that was announced and never
    sent after all that were.
    """

    def order(one: Descendant) -> tuple[bool, datetime, str]:
        return one.has_parts, one.spawn.spawned_at or _LAST, one.job.task_id

    return min((one for one in ends if one.finding.status in statuses), key=order, default=None)


def _unexpected(expected: ExpectedDescendants, ends: Iterable[Descendant]) -> Set[VerdictStatus]:
    """Return the statuses that are not expected."""
    if expected.outcome == "ignored":
        return frozenset()
    allowed = {"passed", NOT_SENT} if expected.outcome == "succeeded" else ENDS
    return {one.finding.status for one in ends if not _has_finished(expected, one)} - allowed


def _has_finished(expected: ExpectedDescendants, one: Descendant) -> bool:
    """Return whether a task that its worker stopped at a time limit has come to an end, where ends
    are all that is expected."""
    ended = one.finding.status == "timed_out" and one.has_end
    return ended and expected.outcome == "finished"


def is_ignored(entry: Entry) -> bool:
    """Return whether nothing about its descendants matters to the entry: none is awaited."""
    return entry.expect.of_descendants == ExpectedDescendants(outcome="ignored")


def expects_something(entry: Entry) -> bool:
    """Return whether the entry itself says what must become of its descendants."""
    return "descendants" in entry.expect.model_fields_set and not is_ignored(entry)


def descendant_of(verdict: Verdict) -> ByDescendant | None:
    """Return the descendant that a verdict rests on, and why; None where it rests on none."""
    reason = reason_of(verdict)
    reason = reason.why if isinstance(reason, Reused) else reason
    return reason if isinstance(reason, ByDescendant) else None


def with_tree(entry: Entry, own: Finding, tree: Tree, receipt: Receipt | None) -> Finding:
    """Return the finding on an attempt that has passed, given what its descendants came to (J3).

    ``receipt`` is the attempt's own; None: nobody has reported its end.
    """
    expected, ends = entry.expect.of_descendants, tree.ends()
    bad = _unexpected(expected, ends)
    if bad:
        return _by_descendant(entry, own, tree, ends, bad)
    unknown = None if receipt is None else tree.unknown_children(receipt)
    if unknown is not None:
        why, is_short = unknown
        asked = "descendants" in entry.expect.model_fields_set
        if (asked or is_short) and not is_ignored(entry):
            return Finding("unknown", DescendantsUnknown(why=why))
    differences = list(_differences(expected, ends))
    if differences:
        one = differences[0]
        reason = DescendantsDiffer(path=one.path, expected=one.expected, actual=one.actual)
        return Finding("failed", reason, differences)
    number = _number_of(ends)
    if not number or expected.outcome == "ignored":
        return own
    did = "succeeded" if expected.outcome == "succeeded" else "ended"
    return replace(own, reason=own.reason.with_tree(number, did))


def by_part(entry: Entry, own: Finding, tree: Tree) -> Finding:
    """Return the finding on an attempt that was handed on to other tasks, and did not pass.

    Where one of its descendants has not ended as expected, that is why.
    """
    ends = tree.ends()
    bad = _unexpected(entry.expect.of_descendants, ends) - OPEN
    return _by_descendant(entry, own, tree, ends, bad)


def _by_descendant(
    entry: Entry, own: Finding, tree: Tree, ends: Sequence[Descendant], bad: Set[VerdictStatus]
) -> Finding:
    expected = entry.expect.of_descendants
    counted = [one for one in ends if not _has_finished(expected, one)]
    first = first_of(counted, bad - OPEN or bad)  # those first that leave no doubt
    if first is None:
        return own
    found, parent = first.finding, first.spawn.parent
    number = sum(one.finding.status in bad for one in counted)
    total, ended_only = _number_of(ends), expected.outcome != "succeeded"
    reason = ByDescendant(
        task=first.spawn.task,
        task_id=first.job.task_id,
        parent=entry.task if parent == tree.root else tree.task_of(parent),
        ended=found.status,
        why=found.reason,
        total=total,
        more=number - 1,
        ended_only=ended_only,
        handed_on=own.status != "passed",
    )
    wanted, did = "each ended" if ended_only else "each succeeded", reason.did
    own_part = Mismatch(path=PATH, expected=wanted, actual=f"{number:,} of {total:,} {did}")
    parts = (one.model_copy(update={"path": f"descendant.{one.path}"}) for one in found.mismatches)
    return Finding(found.status, reason, [own_part, *parts])


def _number_of(ends: Iterable[Descendant]) -> int:
    """Return how many descendants ran, or should have."""
    return sum(one.finding.status != NOT_SENT for one in ends)


def _differences(expected: ExpectedDescendants, ends: Sequence[Descendant]) -> Iterator[Mismatch]:
    count, total = expected.count, _number_of(ends)
    if count is not None and not _is_in(count, total):
        yield Mismatch(path=f"{PATH}.count", expected=_range_text(count), actual=str(total))
    if expected.tasks is None:
        return
    wanted, found = set(expected.tasks), {one.spawn.task for one in ends}
    if wanted != found:
        yield Mismatch(path=f"{PATH}.tasks", expected=_names(wanted), actual=_names(found))


def _names(tasks: Collection[str]) -> str:
    return listed([short(name) for name in sorted(tasks)], _NAMES_SHOWN) or "none"


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
