"""Compute a run's counts, times, causes, workers, cost and advice in one pass.

Times of work leave out the pauses between the run's segments. Advice is written where a bottleneck
shows; none where numbers are too small to tell.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import chain, pairwise
from typing import Final, TypeAlias

from pydantic import Field

from pytest_manifest.analysis.causes import Causes
from pytest_manifest.analysis.records import ENOUGH, AttemptRecord, EntryRecord, summary_fields
from pytest_manifest.ledger import RunInfo, RunSegment
from pytest_manifest.schema import VerdictStatus, summary
from pytest_manifest.schema.receipts import exact
from pytest_manifest.schema.statuses import BAD, DEATHS, Outcome
from pytest_manifest.text import middle, printable, seconds


def distribution(values: Iterable[float]) -> summary.SummarySpread | None:
    """Return the distribution of values in any order, None without any.

    Percentiles are interpolated.
    """
    ordered = sorted(values)
    if not ordered:
        return None
    p50, p95 = quantile(ordered, 0.5), quantile(ordered, 0.95)
    total = sum(ordered)
    return summary.SummarySpread(count=len(ordered), p50=p50, p95=p95, max=ordered[-1], total=total)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of ascending values (at least one) by linear interpolation."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


_LONG_WAIT = 1.0  # s
_MANY_TIMES = 10
_BUSY = 0.5
_IDLE = 0.25
_LONG_RUN = 5.0  # s
_HANDING_OVER = 0.1
"""Seconds of a worker process that passing it one job may take; it usually takes some ms."""
_UNEVEN = 2.0
_ID_LIMIT = 60


def advice(
    fold: _Fold,
    busy: Sequence[float],
    runtime: summary.SummarySpread | None,
    *,
    takes_one: bool = False,
) -> tuple[str, ...]:
    """Return what would help, the most important first.

    ``busy``: seconds that each worker process worked. ``takes_one``: each takes one job at a time,
    so that no job waits for a busy one.
    """
    if fold.entries < ENOUGH:
        return ()
    uneven = () if takes_one else _uneven(fold, busy, runtime)
    return (*_waiting(fold, busy, runtime), *_one_long_job(fold, busy), *uneven, *_repeats(fold))


def _waiting(
    fold: _Fold, busy: Sequence[float], runtime: summary.SummarySpread | None
) -> Iterator[str]:
    wait = distribution(fold.free_wait)
    if wait is None or runtime is None or wait.p50 < max(_LONG_WAIT, _MANY_TIMES * runtime.p50):
        return
    ran = runtime.p50
    times = f"{wait.p50 / ran:.0f} times as long as they ran" if ran >= 0.001 else "long"
    medians = f"median {_short(wait.p50)} and {_short(ran)}"
    capacity = fold.capacity
    load = sum(busy) / capacity if capacity else None
    if load is None or load >= _BUSY:
        yield f"jobs waited {times} ({medians}): more workers would help"
    elif load < _IDLE:
        if fold.deaths:
            why = (
                f"the processes of {fold.deaths} jobs had died, and a worker stands still until "
                "it has another one, for seconds where it has one alone; see what ended them"
            )
        elif (capacity - sum(busy)) / fold.entries > _HANDING_OVER:
            why = "look in their logs for what they stood still for"
        else:
            why = "handing a job over takes longer than running it; put more work into each job"
        idle = f"though the workers were busy only {load:.0%} of the time"
        yield f"jobs waited {times} ({medians}) {idle}: {why}"


def _one_long_job(fold: _Fold, busy: Sequence[float]) -> Iterator[str]:
    duration = fold.run.seconds()
    if not fold.slowest or duration is None or duration < _LONG_RUN:
        return
    took, _, record = fold.slowest[0]
    others = fold.capacity - duration
    if took >= duration / 2 and sum(busy) - took < others * _BUSY:
        yield (
            f"{middle(printable(record.id), _ID_LIMIT)!r} alone ran {_short(took)} of "
            f"{_short(duration)} while other workers had nothing to do: put it first in the "
            "manifest, or split it"
        )


def _uneven(
    fold: _Fold, busy: Sequence[float], runtime: summary.SummarySpread | None
) -> Iterator[str]:
    # The processes of a short part had less time than those of a long one.
    if len(busy) < 2 or fold.run.count > 1 or (fold.run.seconds() or 0.0) < _LONG_RUN:
        return
    most, average = max(busy), sum(busy) / len(busy)
    longest = 0.0 if runtime is None else runtime.max
    if most >= _UNEVEN * average and longest < most / 2 and fold.entries >= 4 * len(busy):
        yield (
            f"the busiest of {len(busy)} worker processes did {most / sum(busy):.0%} "
            "of the work: worker_prefetch_multiplier = 1 would spread it evenly"
        )


def _repeats(fold: _Fold) -> Iterator[str]:
    if fold.redeliveries >= max(2, fold.entries / 100):
        yield (
            f"the broker delivered {fold.redeliveries} jobs more than once: workers died, or its "
            "visibility timeout is shorter than a job takes"
        )
    if fold.retries > fold.entries / 2:
        yield (
            f"tasks asked for {fold.retries} retries in {fold.entries} jobs: find what they "
            "stumble over"
        )


def _short(value: float) -> str:
    return seconds(float(f"{value:.2g}"))


SLOWEST: Final = 5


class Statistics(summary.SummaryStatistics):
    """A run's statistics with its ``cost``, which the document has elsewhere.

    Reused entries add no times and no cost.
    """

    cost: float | None = Field(default=None, exclude=True)


def statistics(
    records: Iterable[EntryRecord],
    run: RunInfo,
    parts: Sequence[RunSegment] = (),
    tree_end: datetime | None = None,
    trees: summary.SummaryDescendants | None = None,
) -> Statistics:
    """Compute a run's statistics in one pass over its records.

    ``parts``: its segments; ``tree_end``: when the last descendant ended, None: there is none;
    ``trees``: what is known of its descendants.
    """
    fold = _Fold(parts)
    for record in records:
        fold.add(record)
    if tree_end is not None:
        fold.add_end(tree_end)
    return fold.statistics(run, trees)


class _Task:
    """A task's outcomes, and the times (s) of its entries' last attempts; 8 bytes each."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.wait, self.runtime = array("d"), array("d")
        self.worked, self.ended = WorkTime(), 0

    def row(self, task: str) -> summary.SummaryTask:
        return summary.SummaryTask(
            task=task,
            count=self.outcomes.total(),
            passed=self.outcomes["passed"],
            failed=self.outcomes["failed"],
            errors=self.outcomes["error"],
            skipped=self.outcomes["skipped"],
            pending=self.outcomes["pending"],
            wait=distribution(self.wait),
            runtime=distribution(self.runtime),
            throughput=self.worked.rate(self.ended),
        )


_Worker: TypeAlias = tuple[str, str | None, int | None]
_Stretch: TypeAlias = tuple[int, datetime, datetime]
"""The number of a segment, and from when to when something was done in it."""


class _Fold:
    """All statistics of a run, added up record by record."""

    def __init__(self, parts: Sequence[RunSegment]) -> None:
        # Before the first recorded segment there may have been one that was not recorded.
        self._begins = [part.started for part in parts]
        self._stops = [None, *(part.stopped for part in parts)]
        self.number = partial(bisect_right, self._begins)
        """Which segment a time is in."""
        self.verdicts: Counter[VerdictStatus] = Counter()
        self.tasks = defaultdict[str, _Task](_Task)
        self.causes, self.reused = Causes(), Counter[str]()
        self.workers: dict[_Worker, list[float]] = {}
        """How many jobs each worker had, and for how long it worked (s)."""
        self.seen: set[tuple[_Worker, int]] = set()
        """The workers, and the segments in which they worked."""
        self.slowest: list[tuple[float, int, EntryRecord]] = []
        self.free_wait = array("d")
        """The waits that only a lack of free workers can have caused."""
        self.first_sent: datetime | None = None
        self.last_end: datetime | None = None
        self.worked, self.run = WorkTime(), WorkTime()
        """The time worked with the sending, and the time in which workers had jobs."""
        self.entries = self.attempts = self.retries = self.redeliveries = self.ended = 0
        self.cost, self.cost_reported, self.deaths = Decimal(0), False, 0
        """Deaths: attempts whose process died; its worker stands still until it has another."""

    def add(self, record: EntryRecord) -> None:
        self.entries += 1
        if record.verdict is not None:
            self.verdicts[record.verdict.verdict] += 1
        if record.reused_from is not None:
            self.reused[record.reused_from.run] += 1
        task = self.tasks[record.entry.task]
        task.outcomes[record.outcome] += 1
        if record.outcome in BAD:
            self.causes.add(record.entry.id, record.verdict, record.receipt)
        if record.attempts:
            for attempt in record.attempts[:-1]:
                self._add_attempt(attempt)
            self.attempts += len(record.attempts) - 1
            self._add_last(record, record.attempts[-1], task)

    def _add_attempt(self, attempt: AttemptRecord) -> tuple[Sequence[_Stretch], bool]:
        """Add an attempt; return when a worker had it, and whether it has ended."""
        self.retries += attempt.retries
        self.deaths += attempt.kind in DEATHS
        self.redeliveries += attempt.redelivered
        self.cost_reported = self.cost_reported or attempt.cost is not None
        cost = attempt.cost if attempt.billed_cost is None else attempt.billed_cost
        if cost:
            self.cost += exact(cost)
        name, started = attempt.worker or attempt.host, attempt.started_at
        sent, ended = attempt.sent_at, attempt.ended_at
        if name is not None and started is not None:
            worker = (name, attempt.host, attempt.pid)
            self.seen.add((worker, self.number(started)))
            account = self.workers.setdefault(worker, [0, 0.0])
            account[0] += 1
            account[1] += attempt.runtime or 0.0
        if ended is not None:
            self.ended += 1
            self.last_end = max(ended, self.last_end or ended)
        had = self._had(attempt, ended)
        with_sending = had
        if sent is not None:
            self.first_sent = min(sent, self.first_sent or sent)
            with_sending = [(self.number(sent), sent, sent), *had]
        self.worked.add(with_sending)
        self.run.add(had)
        return had, ended is not None

    def _had(self, attempt: AttemptRecord, ended: datetime | None) -> Sequence[_Stretch]:
        """Return from when to when a worker had the attempt, in each segment; () where none had.

        A job that a stop cut off ran until then. Where only one of both is known, it is both.
        """
        started, sent = attempt.started_at, attempt.sent_at
        if sent is not None:  # a worker's clock may be behind ours, which dates the sending
            started = None if started is None else max(started, sent)
            ended = None if ended is None else max(ended, sent)
        if started is None:
            return () if ended is None else [(self.number(ended), ended, ended)]
        first = self.number(started)
        # A death may have been noticed, and dated, when the run was resumed.
        if ended is None or (attempt.runtime is None and self.number(ended) > first):
            ended = self._stops[first] or started
        ended = max(started, ended)
        last = self.number(ended)
        if first == last:
            return [(first, started, ended)]
        begins = [started, *self._begins[first:last]]
        return list(zip(range(first, last + 1), begins, [*begins[1:], ended], strict=True))

    @property
    def capacity(self) -> float:
        """Return the seconds that the workers had, each in the segments in which it worked."""
        return sum(self.run.seconds(part) or 0.0 for _, part in self.seen)

    def add_end(self, ended: datetime) -> None:
        """Have the run reach to the end of the last descendant, which is its work as well."""
        self.last_end = max(ended, self.last_end or ended)
        self.worked.add([(self.number(ended), ended, ended)])

    def _add_last(self, record: EntryRecord, last: AttemptRecord, task: _Task) -> None:
        had, has_ended = self._add_attempt(last)
        task.worked.add(had)
        task.ended += has_ended
        if last.wait is not None:
            task.wait.append(last.wait)
            is_delayed = record.entry.countdown is not None or record.entry.eta is not None
            unknown = not had or last.sent_at is None
            if not is_delayed and (unknown or self.number(last.sent_at) == had[0][0]):
                self.free_wait.append(last.wait)
        if last.runtime is not None:
            task.runtime.append(last.runtime)
            # Of equal times the earlier entry is the slower one.
            self.slowest.append((last.runtime, -self.entries, record))
            self.slowest.sort(reverse=True)
            del self.slowest[SLOWEST:]

    def _rows_of_workers(self) -> list[summary.SummaryWorker]:
        total = sum(busy for _, busy in self.workers.values())
        rows = [
            summary.SummaryWorker(
                worker=name,
                host=host,
                pid=pid,
                jobs=int(jobs),
                busy=busy,
                share=busy / total if total else 0.0,
            )
            for (name, host, pid), (jobs, busy) in self.workers.items()
        ]
        return sorted(rows, key=lambda row: (-row.busy, row.worker, row.pid or 0))

    def statistics(self, run: RunInfo, trees: summary.SummaryDescendants | None) -> Statistics:
        workers, tasks = self._rows_of_workers(), self.tasks.values()
        runtime = distribution(chain.from_iterable(task.runtime for task in tasks))
        busy = [row.busy for row in workers]
        over = self.first_sent is not None and self.last_end is not None
        slowest = [
            summary.SummaryEntry.model_validate(summary_fields(record))
            for _, _, record in self.slowest
        ]
        return Statistics(
            entries=self.entries,
            reused=dict(self.reused.most_common()),
            verdicts=dict(self.verdicts),
            outcomes=dict(sum((task.outcomes for task in tasks), Counter())),
            tasks=[self.tasks[task].row(task) for task in sorted(self.tasks)],
            slowest=slowest,
            causes=list(self.causes.largest_first()),
            retries=self.retries,
            redeliveries=self.redeliveries,
            further_sendings=self.attempts,
            workers=workers,
            cost=float(self.cost) if self.cost_reported else None,
            began=self.first_sent,
            ended=self.last_end,
            duration=self.worked.seconds() if over else None,
            parts=self.worked.count,
            pauses=self.worked.pauses() if over else None,
            throughput=self.worked.rate(self.ended) if over else None,
            wait=distribution(chain.from_iterable(task.wait for task in tasks)),
            runtime=runtime,
            advice=list(advice(self, busy, runtime, takes_one=run.takes_one or run.is_private)),
            descendants=trees or summary.SummaryDescendants(),
        )


class WorkTime:
    """The sum of the stretches of time in which something was done.

    A stretch goes from the first to the last work in a segment, and on into the next segment where
    work continued in between.
    """

    def __init__(self) -> None:
        self._stretches: dict[int, tuple[datetime, datetime]] = {}

    def add(self, stretches: Iterable[_Stretch]) -> None:
        """Add work of some segments, each from one time to another."""
        for number, start, stop in stretches:
            known = self._stretches.get(number, (start, stop))
            self._stretches[number] = min(start, known[0]), max(stop, known[1])

    @property
    def count(self) -> int:
        """Return the number of segments in which something was done."""
        return len(self._stretches)

    def seconds(self, number: int | None = None) -> float | None:
        """Return the length of all stretches, or of one segment's; None where nothing was done."""
        chosen = [
            (stop - start).total_seconds()
            for part, (start, stop) in self._stretches.items()
            if number is None or part == number
        ]
        return sum(chosen) if chosen else None

    def pauses(self) -> float:
        """Return the sum of the seconds between the stretches."""
        ordered = sorted(self._stretches.values())
        return sum((later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(ordered))

    def rate(self, count: int) -> float | None:
        """Return ``count`` per second of all stretches; None for less than two."""
        took = self.seconds()
        return count / took if took and count > 1 else None
