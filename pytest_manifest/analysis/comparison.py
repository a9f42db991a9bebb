"""Compare two runs: new failures, fixes, slower and dearer tasks, different results.

Compare the trees of two runs: entries whose jobs started more, fewer or worse tasks.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, partial
from itertools import accumulate, groupby
from operator import itemgetter
from statistics import median
from typing import Final

from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Receipt, VerdictStatus, summary
from pytest_manifest.schema.receipts import exact
from pytest_manifest.schema.statuses import BAD, Outcome
from pytest_manifest.schema.wire import json_sha256

Statuses = Mapping[VerdictStatus | None, int]


def compare_trees(
    before: Iterable[tuple[str, Statuses]], after: Iterable[tuple[str, Statuses]]
) -> Iterator[summary.SummaryTreeChange]:
    """Yield the entries whose descendants differ; both in the order of the ids, read once.

    One that has none is in neither.
    """
    sides = ((*one, 0) for one in before), ((*one, 1) for one in after)
    for name, both in groupby(heapq.merge(*sides, key=itemgetter(0)), key=itemgetter(0)):
        found = {side: counts for _, counts, side in both}
        was, now = found.get(0, {}), found.get(1, {})
        if was != now:
            yield summary.SummaryTreeChange(id=name, before=_named(was), after=_named(now))


def _named(counts: Statuses) -> dict[str, int]:
    return {status or "pending": number for status, number in counts.items()}


THRESHOLD: Final = 1.25
SAMPLES: Final = 20
CHANCE: Final = 0.01
"""Largest p-value of a change that is reported."""
NOTICEABLE: Final = 0.01
"""Seconds below which a change of the median is not reported, whatever its ratio."""


def compare_ledgers(
    before: Ledger, known_before: Manifest, after: Ledger, known_after: Manifest
) -> summary.SummaryComparison:
    """Return what changed between two runs, by their ledgers and manifests.

    Raises LedgerError or ManifestError.
    """
    with (
        closing(read_records(before, known_before)) as earlier,
        closing(read_records(after, known_after)) as later,
    ):
        return compare(
            earlier,
            later,
            before_run=before.info.read().run,
            after_run=after.info.read().run,
            known_before=known_before.ids,
            known_after=known_after.ids,
            trees=compare_trees(before.trees.by_entry(), after.trees.by_entry()),
        )


def compare(
    before: Iterable[EntryRecord],
    after: Iterable[EntryRecord],
    *,
    before_run: str = "",
    after_run: str = "",
    known_before: Container[str] = (),
    known_after: Container[str] = (),
    trees: Iterable[summary.SummaryTreeChange] = (),
) -> summary.SummaryComparison:
    """Return what changed between two runs; each is read once, and digests are kept.

    ``known_before`` and ``known_after`` are the entries of the two manifests: one that was only not
    selected in a run was neither added nor removed.

    ``trees``: how descendants differ, read after the entries.

    A task is slower or faster where its median runtime changed by more than the factor
    ``THRESHOLD`` and by at least 10 ms, both runs have ``SAMPLES`` entries of it that passed, and
    a rank sum test gives such a change a chance of less than 1 % to be none.
    """
    one, other = _Totals(), _Totals()
    was = {record.id: one.add(record) for record in before}
    failed = {name for name, digest in was.items() if digest.fails}
    now = {record.id: other.add(record) for record in after}
    both = {name: (was[name], digest) for name, digest in now.items() if name in was}
    failing = [name for name, digest in now.items() if digest.fails]
    fixed = [name for name, digest in now.items() if name in failed and digest.outcome == "passed"]
    times = sorted(_time_changes(was, now), key=lambda change: change.ratio)
    changes = partial(_changes, was, now)
    return summary.SummaryComparison(
        before=one.document(before_run),
        after=other.document(after_run),
        newly_failing=changes(name for name in failing if name not in failed),
        fixed=changes(fixed),
        still_failing=changes(name for name in failing if name in failed),
        added=[name for name in now if name not in was and name not in known_before],
        removed=[name for name in was if name not in now and name not in known_after],
        slower=[change for change in reversed(times) if change.ratio > THRESHOLD],
        faster=[change for change in times if change.ratio < 1 / THRESHOLD],
        changed_results=list(_result_changes(both)),
        threshold=THRESHOLD,
        samples=SAMPLES,
        changed_trees=[one for one in trees if one.id in both],
    )


@dataclass(frozen=True, slots=True)
class _Digest:
    """The values by which an entry is compared; ``passed_in``: its runtime (s), if it passed."""

    task: str
    kind: VerdictStatus | None
    outcome: Outcome
    passed_in: float | None
    result: str | None
    sentence: str

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
            passed_in=last.runtime if last is not None and record.outcome == "passed" else None,
            result=None if receipt is None or record.kind == "forged" else _result(receipt),
            sentence=record.sentence or "",
        )

    def document(self, run: str) -> summary.SummarySide:
        cost = float(self._cost) if self._cost_reported else None
        return summary.SummarySide(run=run, entries=self.entries, passed=self.passed, cost=cost)


def _changes(
    was: Mapping[str, _Digest], now: Mapping[str, _Digest], names: Iterable[str]
) -> list[summary.SummaryChange]:
    return [
        summary.SummaryChange(
            id=name,
            task=now[name].task,
            before=was[name].kind if name in was else None,
            after=now[name].kind,
            sentence=now[name].sentence,
        )
        for name in names
    ]


def _result(receipt: Receipt) -> str | None:
    """Return the digest of a succeeded job's result, where it is known."""
    if receipt.state != "succeeded":
        return None
    if receipt.result_sha256 is not None or receipt.result is None:
        return receipt.result_sha256
    return json_sha256(receipt.result)


def _result_changes(
    both: Mapping[str, tuple[_Digest, _Digest]],
) -> Iterator[summary.SummaryResultChange]:
    for name, (early, late) in both.items():
        is_same_task = early.task == late.task
        if is_same_task and early.result and late.result and early.result != late.result:
            yield summary.SummaryResultChange(
                id=name, task=late.task, before=early.result, after=late.result
            )


def _time_changes(
    was: Mapping[str, _Digest], now: Mapping[str, _Digest]
) -> Iterator[summary.SummaryTimeChange]:
    """Yield how tasks' times changed, by task, where that is more than chance.

    Times of entries that both runs have are compared with one another; of a task that has none of
    these, all of each run.
    """
    same: dict[str, tuple[list[float], list[float]]] = {}
    for name, late in now.items():
        early = was.get(name)
        if early is None or early.passed_in is None or late.passed_in is None:
            continue
        if early.task == late.task:
            pair = same.setdefault(late.task, ([], []))
            pair[0].append(early.passed_in)
            pair[1].append(late.passed_in)
    earlier, later = _by_task(was.values()), _by_task(now.values())
    for task in sorted(later):
        before, after = same.get(task, (earlier[task], later[task]))
        if min(len(before), len(after)) < SAMPLES:
            continue
        then, present = median(before), median(after)
        if abs(present - then) < NOTICEABLE or then <= 0 or rank_sum_p(before, after) >= CHANCE:
            continue
        yield summary.SummaryTimeChange(
            task=task,
            before=then,
            after=present,
            ratio=present / then,
            samples_before=len(before),
            samples_after=len(after),
            same=task in same,
        )


def _by_task(digests: Iterable[_Digest]) -> defaultdict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for one in digests:
        if one.passed_in is not None:
            found[one.task].append(one.passed_in)
    return found


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


def rank_sum_chance(before: Sequence[float], later: Sequence[float]) -> float:
    """Return how likely ``later`` ranks as high above ``before`` by chance, of non-empty samples.

    One-sided and exact, for few values, where :func:`rank_sum_p` approximates; of equal ones, that
    of ``later`` counts as not larger.
    """
    ordered = sorted(before)
    larger = sum(bisect_left(ordered, one) for one in later)
    return _ways_from(len(later), len(ordered))[larger]


@lru_cache(maxsize=4096)
def _ways_from(m: int, n: int) -> Sequence[float]:
    """Return the share of the orders of m and n values in which at least u pairs are larger, by u.

    The orders are counted by the coefficients of the Gaussian binomial.
    """
    ways = [1] + [0] * (m * n)
    for factor in range(1, m + 1):
        for place in range(m * n, n + factor - 1, -1):
            ways[place] -= ways[place - n - factor]
        for place in range(factor, m * n + 1):
            ways[place] += ways[place - factor]
    total = sum(ways)
    return [one / total for one in reversed(list(accumulate(reversed(ways))))]
