"""Compare two runs: new failures, fixes, slower and dearer tasks, different results.

Compare the trees of two runs: entries whose jobs started more, fewer or worse tasks.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from statistics import median
from typing import Final

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.receipts import exact
from pytest_manifest.schema.statuses import BAD, Outcome
from pytest_manifest.schema.summary import (
    SummaryChange,
    SummaryComparison,
    SummaryResultChange,
    SummarySide,
    SummaryTimeChange,
    SummaryTreeChange,
)
from pytest_manifest.schema.wire import json_sha256

Statuses = Mapping[VerdictStatus | None, int]


def compare_trees(
    before: Iterable[tuple[str, Statuses]], after: Iterable[tuple[str, Statuses]]
) -> Iterator[SummaryTreeChange]:
    """Yield the entries whose descendants differ; both in the order of the ids, read once.

    One that has none is in neither.
    """
    sides = (
        ((name, side, counts) for name, counts in some) for side, some in enumerate((before, after))
    )
    for name, both in groupby(heapq.merge(*sides, key=itemgetter(0)), key=itemgetter(0)):
        found = {side: counts for _, side, counts in both}
        was, now = found.get(0, {}), found.get(1, {})
        if was != now:
            yield SummaryTreeChange(id=name, before=_named(was), after=_named(now))


def _named(counts: Statuses) -> dict[str, int]:
    return {status or "pending": number for status, number in counts.items()}


THRESHOLD: Final = 1.25
SAMPLES: Final = 20
CHANCE: Final = 0.01
"""Largest p-value of a change that is reported."""
NOTICEABLE: Final = 0.01
"""Seconds below which a change of the median is not reported, whatever its ratio."""


def compare(
    before: Iterable[EntryRecord],
    after: Iterable[EntryRecord],
    *,
    threshold: float = THRESHOLD,
    samples: int = SAMPLES,
    before_run: str = "",
    after_run: str = "",
    known_before: Container[str] = (),
    known_after: Container[str] = (),
    trees: Iterable[SummaryTreeChange] = (),
) -> SummaryComparison:
    """Return what changed between two runs; each is read once, a digest is kept of the earlier.

    ``known_before`` and ``known_after`` are the entries of the two manifests: one that was only not
    selected in a run was neither added nor removed.

    ``trees``: how descendants differ, read after the entries.

    A task is slower or faster where its median runtime changed by more than the factor
    ``threshold`` and by at least 10 ms, both runs have ``samples`` entries of it that passed, and
    a rank sum test gives such a change a chance of less than 1 % to be none.
    """
    side = _Totals()
    earlier = {record.id: side.add(record) for record in before}
    fold = _Fold(earlier)
    later = _Totals()
    for record in after:
        fold.add(record, later.add(record))
    slower, faster = fold.times.changes(threshold, samples)
    return SummaryComparison(
        before=side.document(before_run),
        after=later.document(after_run),
        newly_failing=fold.newly_failing,
        fixed=fold.fixed,
        still_failing=fold.still_failing,
        added=[name for name in fold.added if name not in known_before],
        removed=[n for n in earlier if n not in fold.seen and n not in known_after],
        slower=slower,
        faster=faster,
        changed_results=fold.changed_results,
        threshold=threshold,
        samples=samples,
        changed_trees=[one for one in trees if one.id in fold.seen],
    )


@dataclass(frozen=True, slots=True)
class _Digest:
    """The values by which an entry is compared."""

    task: str
    kind: VerdictStatus | None
    outcome: Outcome
    runtime: float | None
    result: str | None

    @property
    def fails(self) -> bool:
        return self.outcome in BAD


class _Totals:
    """The totals of one of the two runs."""

    def __init__(self) -> None:
        self.entries = self.passed = 0
        self._cost, self._cost_reported = Decimal(0), False

    def add(self, record: EntryRecord) -> _Digest:
        self.entries += 1
        self.passed += record.outcome == "passed"
        for attempt in record.attempts:
            self._cost_reported = self._cost_reported or attempt.cost is not None
            self._cost += exact(
                attempt.cost if attempt.billed_cost is None else attempt.billed_cost
            )
        receipt, last = record.receipt, record.last
        return _Digest(
            task=record.entry.task,
            kind=record.kind,
            outcome=record.outcome,
            runtime=None if last is None else last.runtime,
            result=None if receipt is None or record.kind == "forged" else _result(receipt),
        )

    def document(self, run: str) -> SummarySide:
        cost = float(self._cost) if self._cost_reported else None
        return SummarySide(run=run, entries=self.entries, passed=self.passed, cost=cost)


def _result(receipt: Receipt) -> str | None:
    """Return the digest of a succeeded job's result, where it is known."""
    if receipt.state != "succeeded":
        return None
    if receipt.result_sha256 is not None or receipt.result is None:
        return receipt.result_sha256
    return json_sha256(receipt.result)


class _Fold:
    """The comparison of the later run's entries with their digests in the earlier one."""

    def __init__(self, earlier: dict[str, _Digest]) -> None:
        self._earlier = earlier
        self.times = _Times()
        for digest in earlier.values():
            self.times.add_earlier(digest)
        self.seen: set[str] = set()
        self.newly_failing: list[SummaryChange] = []
        self.fixed: list[SummaryChange] = []
        self.still_failing: list[SummaryChange] = []
        self.added: list[str] = []
        self.changed_results: list[SummaryResultChange] = []

    def add(self, record: EntryRecord, now: _Digest) -> None:
        before = self._earlier.get(record.id)
        self.times.add_later(before, now)
        if before is None:
            self.added.append(record.id)
        else:
            self.seen.add(record.id)
            self._compare_results(record.id, before, now)
        change = _change(record, before)
        if now.fails:
            still = before is not None and before.fails
            (self.still_failing if still else self.newly_failing).append(change)
        elif before is not None and before.fails and now.outcome == "passed":
            self.fixed.append(change)

    def _compare_results(self, name: str, before: _Digest, now: _Digest) -> None:
        if before.task != now.task or not before.result or not now.result:
            return
        if before.result != now.result:
            change = SummaryResultChange(
                id=name, task=now.task, before=before.result, after=now.result
            )
            self.changed_results.append(change)


def _change(record: EntryRecord, before: _Digest | None) -> SummaryChange:
    sentence = "" if record.verdict is None else record.verdict.sentence
    was = None if before is None else before.kind
    return SummaryChange(
        id=record.id, task=record.task, before=was, after=record.kind, sentence=sentence
    )


class _Times:
    """Runtimes by task: of entries in both runs, and of all."""

    def __init__(self) -> None:
        self._all: tuple[dict[str, array[float]], dict[str, array[float]]] = ({}, {})
        self._same: dict[str, tuple[array[float], array[float]]] = {}

    def add_earlier(self, digest: _Digest) -> None:
        self._add(0, digest)

    def add_later(self, before: _Digest | None, now: _Digest) -> None:
        self._add(1, now)
        if before is None or before.task != now.task:
            return
        then, present = _passed(before), _passed(now)
        if then is not None and present is not None:
            pair = self._same.setdefault(now.task, (array("d"), array("d")))
            pair[0].append(then)
            pair[1].append(present)

    def _add(self, side: int, digest: _Digest) -> None:
        runtime = _passed(digest)
        if runtime is not None:
            self._all[side].setdefault(digest.task, array("d")).append(runtime)

    def changes(
        self, threshold: float, samples: int
    ) -> tuple[list[SummaryTimeChange], list[SummaryTimeChange]]:
        """Return what became slower, largest ratio first, and faster, smallest first."""
        found = [self._change(task, samples) for task in sorted(self._all[1])]
        significant = sorted(
            (change for change in found if change is not None), key=lambda c: c.ratio
        )
        slower = [change for change in reversed(significant) if change.ratio > threshold]
        return slower, [change for change in significant if change.ratio < 1 / threshold]

    def _change(self, task: str, samples: int) -> SummaryTimeChange | None:
        """Return how a task's times changed, where that is more than chance."""
        nothing = array("d")
        same = task in self._same
        before, after = self._same.get(
            task, (self._all[0].get(task, nothing), self._all[1].get(task, nothing))
        )
        if min(len(before), len(after)) < max(samples, 1):
            return None
        then, now = median(before), median(after)
        if abs(now - then) < NOTICEABLE or then <= 0 or rank_sum_p(before, after) >= CHANCE:
            return None
        return SummaryTimeChange(
            task=task,
            before=then,
            after=now,
            ratio=now / then,
            samples_before=len(before),
            samples_after=len(after),
            same=same,
        )


def _passed(digest: _Digest) -> float | None:
    return digest.runtime if digest.outcome == "passed" else None


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Mann and Whitney's U test of two non-empty samples.

    Uses ranks, so outliers count little, and the normal approximation, corrected for ties and
    continuity: good from about eight values each. H. B. Mann, D. R. Whitney: On a Test of Whether
    one of Two Random Variables is Stochastically Larger than the Other (1947).
    """
    m, n = len(first), len(second)
    both = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    rank_sum, ties, before = 0.0, 0, 0
    for _, group in groupby(both, key=lambda pair: pair[0]):
        members = [which for _, which in group]
        size = len(members)
        rank_sum += (size - sum(members)) * (before + (size + 1) / 2)
        ties += size**3 - size
        before += size
    total = m + n
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all values are equal
    distance = abs(rank_sum - m * (m + 1) / 2 - m * n / 2) - 0.5
    return math.erfc(max(distance, 0.0) / math.sqrt(2 * variance))
