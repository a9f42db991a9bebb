"""Compute a run's counts, times, causes, workers, cost and advice in one pass.

Times of work leave out the pauses between the run's segments. Advice is written where a bottleneck
shows; none where numbers are too small to tell.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from heapq import heappush, heappushpop
from itertools import pairwise
from typing import Final, NamedTuple

from pydantic import Field

from pytest_manifest.analysis.causes import Causes
from pytest_manifest.analysis.records import ENOUGH, AttemptRecord, EntryRecord, summary_fields
from pytest_manifest.ledger import RunInfo, RunSegment
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.receipts import exact
from pytest_manifest.schema.statuses import DEATHS, Outcome
from pytest_manifest.schema.summary import (
    SummaryDescendants,
    SummaryEntry,
    SummarySpread,
    SummaryStatistics,
    SummaryTask,
    SummaryWorker,
)
from pytest_manifest.text import middle, printable, seconds


class Times:
    """Times and their distribution; 8 bytes each."""

    def __init__(self) -> None:
        self._values = array("d")

    def add(self, value: float | None) -> None:
        if value is not None:
            self._values.append(value)

    def distribution(self) -> SummarySpread | None:
        """Return the distribution, None without any time."""
        return distribution(self._values)


def distribution(values: Sequence[float]) -> SummarySpread | None:
    """Return the distribution of values in any order; percentiles are interpolated."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95 = quantile(ordered, 0.5), quantile(ordered, 0.95)
    total = sum(ordered)
    return SummarySpread(count=len(ordered), p50=p50, p95=p95, max=ordered[-1], total=total)


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


@dataclass(frozen=True, slots=True)
class Signs:
    """The numbers behind advice: times in seconds, ``wait`` without jobs that were to wait.

    ``busy``: seconds that each worker process worked; ``duration``: from the first start to the
    last end, without pauses between the run's ``parts``; ``capacity``: seconds that the processes
    had together; ``slowest``: id and runtime of the entry that ran longest.
    """

    entries: int
    wait: SummarySpread | None
    runtime: SummarySpread | None
    busy: Sequence[float]
    duration: float | None
    capacity: float
    parts: int
    slowest: tuple[str, float] | None
    redeliveries: int
    retries: int
    deaths: int = 0
    """Attempts whose process died: its worker stands still until it has another one."""


def advice(signs: Signs, *, takes_one: bool = False) -> tuple[str, ...]:
    """Return what would help, the most important first.

    ``takes_one``: each process takes one job at a time, so that no job waits for a busy one.
    """
    if signs.entries < ENOUGH:
        return ()
    uneven = () if takes_one else _uneven(signs)
    return (*_waiting(signs), *_one_long_job(signs), *uneven, *_repeats(signs))


def _load(signs: Signs) -> float | None:
    """Return the share of their time that the workers were busy."""
    return sum(signs.busy) / signs.capacity if signs.capacity else None


def _waiting(signs: Signs) -> Iterator[str]:
    if signs.wait is None or signs.runtime is None or signs.wait.p50 < _LONG_WAIT:
        return
    ran = signs.runtime.p50
    if signs.wait.p50 < _MANY_TIMES * ran:
        return
    times = f"{signs.wait.p50 / ran:.0f} times as long as they ran" if ran >= 0.001 else "long"
    medians = f"median {_short(signs.wait.p50)} and {_short(ran)}"
    load = _load(signs)
    if load is None or load >= _BUSY:
        yield f"jobs waited {times} ({medians}): more workers would help"
    elif load < _IDLE:
        if signs.deaths:
            why = (
                f"{signs.deaths} jobs had killed their process, and a worker stands still until "
                "it has another one, for seconds where it has one alone; mend those jobs"
            )
        elif (signs.capacity - sum(signs.busy)) / signs.entries > _HANDING_OVER:
            why = "look in their logs for what they stood still for"
        else:
            why = "handing a job over takes longer than running it; put more work into each job"
        busy = f"though the workers were busy only {load:.0%} of the time"
        yield f"jobs waited {times} ({medians}) {busy}: {why}"


def _one_long_job(signs: Signs) -> Iterator[str]:
    if signs.slowest is None or signs.duration is None or signs.duration < _LONG_RUN:
        return
    name, took = signs.slowest
    others = signs.capacity - signs.duration
    if took >= signs.duration / 2 and sum(signs.busy) - took < others * _BUSY:
        yield (
            f"{middle(printable(name), _ID_LIMIT)!r} alone ran {_short(took)} of "
            f"{_short(signs.duration)} while other workers had nothing to do: put it first in the "
            "manifest, or split it"
        )


def _uneven(signs: Signs) -> Iterator[str]:
    if len(signs.busy) < 2 or signs.duration is None or signs.duration < _LONG_RUN:
        return
    if signs.parts > 1:  # the processes of a short part had less time than those of a long one
        return
    most, average = max(signs.busy), sum(signs.busy) / len(signs.busy)
    longest = 0.0 if signs.runtime is None else signs.runtime.max
    if most >= _UNEVEN * average and longest < most / 2 and signs.entries >= 4 * len(signs.busy):
        yield (
            f"the busiest of {len(signs.busy)} worker processes did {most / sum(signs.busy):.0%} "
            "of the work: worker_prefetch_multiplier = 1 would spread it evenly"
        )


def _repeats(signs: Signs) -> Iterator[str]:
    if signs.redeliveries >= max(2, signs.entries / 100):
        yield (
            f"the broker delivered {signs.redeliveries} jobs more than once: workers died, or its "
            "visibility timeout is shorter than a job takes"
        )
    if signs.retries > signs.entries / 2:
        yield (
            f"tasks asked for {signs.retries} retries in {signs.entries} jobs: find what they "
            "stumble over"
        )


def _short(value: float) -> str:
    return seconds(float(f"{value:.2g}"))


SLOWEST: Final = 5


class Statistics(SummaryStatistics):
    """A run's statistics with its ``cost``, which the document has elsewhere.

    Reused entries add no times and no cost.
    """

    cost: float | None = Field(default=None, exclude=True)


def statistics(
    records: Iterable[EntryRecord],
    run: RunInfo,
    parts: Sequence[RunSegment] = (),
    tree_end: datetime | None = None,
    trees: SummaryDescendants | None = None,
) -> Statistics:
    """Compute a run's statistics in one pass over its records.

    ``parts``: its segments; ``tree_end``: when the last descendant ended, None: there is none;
    ``trees``: what is known of its descendants.
    """
    fold = _Fold(RunSegments(parts))
    for record in records:
        fold.add(record)
    if tree_end is not None:
        fold.add_end(tree_end)
    return fold.statistics(run, trees)


class _Task:
    def __init__(self, parts: RunSegments) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.wait, self.runtime = Times(), Times()
        self.worked = WorkTime(parts)
        self.ended = 0

    def add(self, last: AttemptRecord, execution: Stretch | None) -> None:
        self.wait.add(last.wait)
        self.runtime.add(last.runtime)
        if execution is not None:
            self.worked.add(execution)
        self.ended += last.ended_at is not None

    def row(self, task: str) -> SummaryTask:
        return SummaryTask(
            task=task,
            count=self.outcomes.total(),
            passed=self.outcomes["passed"],
            failed=self.outcomes["failed"],
            errors=self.outcomes["error"],
            skipped=self.outcomes["skipped"],
            pending=self.outcomes["pending"],
            wait=self.wait.distribution(),
            runtime=self.runtime.distribution(),
            throughput=self.worked.rate(self.ended),
        )


class _Workers:
    def __init__(self, parts: RunSegments) -> None:
        self._jobs: dict[tuple[str, str | None, int | None], list[float]] = {}
        self._parts = parts
        self._seen: set[tuple[tuple[str, str | None, int | None], int]] = set()

    def add(self, attempt: AttemptRecord) -> None:
        name = attempt.worker or attempt.host
        if name is None or attempt.started_at is None:
            return
        worker = (name, attempt.host, attempt.pid)
        self._seen.add((worker, self._parts.number(attempt.started_at)))
        account = self._jobs.setdefault(worker, [0, 0.0])
        account[0] += 1
        account[1] += attempt.runtime or 0.0

    def capacity(self, worked: WorkTime) -> float:
        """Return the seconds of all workers, each counted in the segments in which it worked."""
        return sum(worked.seconds(part) or 0.0 for _, part in self._seen)

    def rows(self) -> list[SummaryWorker]:
        total = sum(busy for _, busy in self._jobs.values())
        rows = [
            SummaryWorker(
                worker=name,
                host=host,
                pid=pid,
                jobs=int(jobs),
                busy=busy,
                share=busy / total if total else 0.0,
            )
            for (name, host, pid), (jobs, busy) in self._jobs.items()
        ]
        return sorted(rows, key=lambda row: (-row.busy, row.worker, row.pid or 0))


class _Fold:
    """All statistics of a run, added up record by record."""

    def __init__(self, parts: RunSegments) -> None:
        self.verdicts: Counter[VerdictStatus] = Counter()
        self.tasks = defaultdict[str, _Task](partial(_Task, parts))
        self.parts = parts
        self.causes, self.workers = Causes(), _Workers(parts)
        self.slowest: list[tuple[float, int, EntryRecord]] = []
        self.wait, self.runtime, self.free_wait = Times(), Times(), Times()
        self.first_sent: datetime | None = None
        self.last_end: datetime | None = None
        self.worked, self.run = WorkTime(parts), WorkTime(parts)
        """The time worked with the sending, and the time in which workers had jobs."""
        self.entries = self.attempts = self.retries = self.redeliveries = self.ended = 0
        self.cost, self.cost_reported, self.deaths = Decimal(0), False, 0
        self.reused: Counter[str] = Counter()

    def add(self, record: EntryRecord) -> None:
        self.entries += 1
        if record.kind is not None:
            self.verdicts[record.kind] += 1
        self.reused.update([record.reused_from.run] if record.reused_from else [])
        task = self.tasks[record.task]
        task.outcomes[record.outcome] += 1
        self.causes.add(record)
        self.attempts += max(len(record.attempts) - 1, 0)
        execution = None
        for attempt in record.attempts:
            execution = self.parts.execution(attempt)
            self._add_attempt(attempt, execution)
        if (last := record.last) is not None:
            task.add(last, execution)
            self._add_times(record, last, execution)

    def _add_attempt(self, attempt: AttemptRecord, execution: Stretch | None) -> None:
        self.retries += attempt.retries
        self.deaths += attempt.kind in DEATHS
        self.redeliveries += attempt.redelivered
        self.workers.add(attempt)
        self._add_moments(attempt, execution)
        self.ended += attempt.ended_at is not None
        self.cost_reported = self.cost_reported or attempt.cost is not None
        self.cost += exact(attempt.cost if attempt.billed_cost is None else attempt.billed_cost)

    def _add_moments(self, attempt: AttemptRecord, execution: Stretch | None) -> None:
        sent, ended = attempt.sent_at, attempt.ended_at
        if sent is not None:
            self.first_sent = min(sent, self.first_sent or sent)
            self.worked.add(self.parts.stretch(sent, sent))
        if ended is not None:
            self.last_end = max(ended, self.last_end or ended)
        if execution is not None:
            self.worked.add(execution)
            self.run.add(execution)

    def add_end(self, ended: datetime) -> None:
        """Have the run reach to the end of the last descendant, which is its work as well."""
        self.last_end = max(ended, self.last_end or ended)
        self.worked.add(self.parts.stretch(ended, ended))

    def _add_times(
        self, record: EntryRecord, last: AttemptRecord, execution: Stretch | None
    ) -> None:
        self.wait.add(last.wait)
        self.runtime.add(last.runtime)
        if self._was_free(record, last, execution):
            self.free_wait.add(last.wait)
        if last.runtime is not None:
            # Of equal times the earlier entry is the slower one: the heap drops its smallest.
            rank = (last.runtime, -self.entries, record)
            if len(self.slowest) < SLOWEST:
                heappush(self.slowest, rank)
            else:
                heappushpop(self.slowest, rank)

    def _was_free(
        self, record: EntryRecord, last: AttemptRecord, execution: Stretch | None
    ) -> bool:
        """Return whether only a lack of free workers can have made it wait."""
        if record.is_delayed:
            return False
        if execution is None or last.sent_at is None:
            return True
        return self.parts.number(last.sent_at) == execution.first

    def statistics(self, run: RunInfo, trees: SummaryDescendants | None) -> Statistics:
        workers, runtime = self.workers.rows(), self.runtime.distribution()
        over = self.first_sent is not None and self.last_end is not None
        slowest = [
            SummaryEntry.model_validate(summary_fields(record))
            for _, _, record in sorted(self.slowest, reverse=True)
        ]
        return Statistics(
            entries=self.entries,
            reused=dict(self.reused.most_common()),
            verdicts=dict(self.verdicts),
            outcomes=dict(sum((task.outcomes for task in self.tasks.values()), Counter())),
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
            wait=self.wait.distribution(),
            runtime=runtime,
            advice=list(
                advice(self._signs(workers, runtime), takes_one=run.takes_one or run.is_private)
            ),
            descendants=trees or SummaryDescendants(),
        )

    def _signs(self, workers: Sequence[SummaryWorker], runtime: SummarySpread | None) -> Signs:
        slowest = max(self.slowest, default=None)
        return Signs(
            entries=self.entries,
            wait=self.free_wait.distribution(),
            runtime=runtime,
            busy=[row.busy for row in workers],
            duration=self.run.seconds(),
            capacity=self.workers.capacity(self.run),
            parts=self.run.count,
            slowest=None if slowest is None else (slowest[2].id, slowest[0]),
            redeliveries=self.redeliveries,
            retries=self.retries,
            deaths=self.deaths,
        )


class Stretch(NamedTuple):
    """A stretch of time, and the numbers of the segments that it begins and ends in."""

    started: datetime
    ended: datetime
    first: int
    last: int


class RunSegments:
    """The segments of a run, to tell in which of them a time is."""

    def __init__(self, parts: Sequence[RunSegment] = ()) -> None:
        # Before the first recorded segment there may have been one that was not recorded.
        self.begins = [part.started for part in parts]
        self._stops = [None, *(part.stopped for part in parts)]

    def number(self, moment: datetime) -> int:
        """Return the number of the segment that a time is in."""
        return bisect_right(self.begins, moment)

    def stretch(self, started: datetime, ended: datetime) -> Stretch:
        first = bisect_right(self.begins, started)
        is_short = started is ended or (first == len(self.begins) and ended >= started)
        last = first if is_short else bisect_right(self.begins, ended)
        return Stretch(started, ended, first, last)

    def execution(self, attempt: AttemptRecord) -> Stretch | None:
        """Return from when to when a worker had the attempt; None where none had it.

        A job that a stop cut off ran until then. Where only one of both is known, it is both.
        """
        started, ended, sent = attempt.started_at, attempt.ended_at, attempt.sent_at
        if sent is not None:  # a worker's clock may be behind ours, which dates the sending
            started = None if started is None else max(started, sent)
            ended = None if ended is None else max(ended, sent)
        if started is None:
            return None if ended is None else self.stretch(ended, ended)
        found = self.stretch(started, started if ended is None else ended)
        # A death may have been noticed, and dated, when the run was resumed.
        noticed_late = attempt.runtime is None and found.last > found.first
        if ended is not None and ended >= started and not noticed_late:
            return found
        stop = self._stops[found.first] if ended is None or noticed_late else None
        return self.stretch(started, max(started, stop or started))


class WorkTime:
    """The sum of the stretches of time in which something was done.

    A stretch goes from the first to the last work in a segment, and on into the next segment where
    work continued in between.
    """

    def __init__(self, parts: RunSegments) -> None:
        self._parts = parts
        self._stretches: dict[int, tuple[datetime, datetime]] = {}

    def add(self, stretch: Stretch) -> None:
        """Add work from one time to another."""
        started, ended, first, last = stretch
        for number in range(first, last + 1):
            start = started if number == first else self._parts.begins[number - 1]
            stop = ended if number == last else self._parts.begins[number]
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
