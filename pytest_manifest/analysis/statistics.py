"""Compute a run's counts, times, causes, workers and cost in one pass.

Times of work leave out the pauses between the run's segments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from heapq import heappush, heappushpop
from itertools import pairwise
from typing import Final

from pytest_manifest.analysis.advice import Signs, advice
from pytest_manifest.analysis.causes import Cause, Causes
from pytest_manifest.analysis.quantiles import Distribution, Times
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.ledger import RunInfo, RunSegment
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.receipts import exact
from pytest_manifest.schema.statuses import DEATHS, Outcome

__all__ = ["Cause", "Distribution", "Statistics", "TaskRow", "WorkerRow", "statistics"]

SLOWEST: Final = 5


@dataclass(frozen=True, slots=True)
class TaskRow:
    """The entries of one task.

    ``failed``: an expectation did not hold; ``errors``: the job's fate is unknown; ``wait`` and
    ``runtime`` of the attempts with a verdict, None where no receipt has them; ``throughput``: jobs
    that ended per second from the first start to the last end, None for less than two.
    """

    task: str
    count: int
    passed: int
    failed: int
    errors: int
    skipped: int
    pending: int
    wait: Distribution | None
    runtime: Distribution | None
    throughput: float | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """The work of a worker process, in all attempts; ``share``: of all busy seconds, 0 to 1."""

    worker: str
    host: str | None
    pid: int | None
    jobs: int
    busy: float
    share: float

    @property
    def place(self) -> str:
        return self.worker if self.pid is None else f"{self.worker}#{self.pid}"


@dataclass(frozen=True, slots=True)
class Statistics:
    """A run's statistics; times UTC, durations in seconds, ``cost`` in the entries' unit.

    ``reused``: entries judged by jobs of earlier runs, by these; they add no times and no cost.
    ``retries``: asked for by tasks; ``redeliveries``: attempts that the broker delivered more than
    once; ``attempts``: sendings beyond the first; ``began``: first sending; ``ended``: the
    last finish; ``duration``: how long it was worked on, in ``parts`` with ``pauses`` between;
    ``throughput``: jobs that ended per second; ``causes``, ``workers``: largest first; ``cost``:
    None where no receipt tells one.
    """

    run: str
    entries: int
    reused: Mapping[str, int]
    verdicts: Mapping[VerdictStatus, int]
    outcomes: Mapping[Outcome, int]
    tasks: tuple[TaskRow, ...]
    slowest: tuple[EntryRecord, ...]
    causes: tuple[Cause, ...]
    retries: int
    redeliveries: int
    attempts: int
    workers: tuple[WorkerRow, ...]
    cost: float | None
    began: datetime | None
    ended: datetime | None
    duration: float | None
    parts: int
    pauses: float | None
    throughput: float | None
    wait: Distribution | None
    runtime: Distribution | None
    advice: tuple[str, ...]


def statistics(
    records: Iterable[EntryRecord],
    run: RunInfo,
    parts: Sequence[RunSegment] = (),
    tree_end: datetime | None = None,
) -> Statistics:
    """Compute a run's statistics in one pass over its records.

    ``parts``: its segments; ``tree_end``: when the last descendant ended, None: there is none.
    """
    fold = _Fold(RunSegments(parts))
    for record in records:
        fold.add(record)
    if tree_end is not None:
        fold.add_end(tree_end)
    return fold.statistics(run)


class _Task:
    def __init__(self, parts: RunSegments) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.wait, self.runtime = Times(), Times()
        self._parts, self.worked = parts, WorkTime(parts)
        self.ended = 0

    def add(self, record: EntryRecord) -> None:
        self.outcomes[record.outcome] += 1
        last = record.last
        if last is None:
            return
        self.wait.add(last.wait)
        self.runtime.add(last.runtime)
        if (execution := self._parts.execution(last)) is not None:
            self.worked.add(*execution)
        self.ended += last.ended_at is not None

    def row(self, task: str) -> TaskRow:
        return TaskRow(
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

    def rows(self) -> tuple[WorkerRow, ...]:
        total = sum(busy for _, busy in self._jobs.values())
        rows = [
            WorkerRow(name, host, pid, int(jobs), busy, busy / total if total else 0.0)
            for (name, host, pid), (jobs, busy) in self._jobs.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.busy, row.worker, row.pid or 0)))


class _Fold:
    """All statistics of a run, added up record by record."""

    def __init__(self, parts: RunSegments) -> None:
        self.verdicts: Counter[VerdictStatus] = Counter()
        self.tasks: dict[str, _Task] = {}
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
        self._task(record.task).add(record)
        self.causes.add(record)
        self.attempts += max(len(record.attempts) - 1, 0)
        for attempt in record.attempts:
            self._add_attempt(attempt)
        if record.last is not None:
            self._add_times(record, record.last)

    def _task(self, name: str) -> _Task:
        if name not in self.tasks:
            self.tasks[name] = _Task(self.parts)
        return self.tasks[name]

    def _add_attempt(self, attempt: AttemptRecord) -> None:
        self.retries += attempt.retries
        self.deaths += attempt.kind in DEATHS
        self.redeliveries += attempt.redelivered
        self.workers.add(attempt)
        self._add_moments(attempt)
        self.ended += attempt.ended_at is not None
        self.cost_reported = self.cost_reported or attempt.cost is not None
        self.cost += exact(attempt.cost if attempt.billed_cost is None else attempt.billed_cost)

    def _add_moments(self, attempt: AttemptRecord) -> None:
        sent, ended = attempt.sent_at, attempt.ended_at
        if sent is not None:
            self.first_sent = min(sent, self.first_sent or sent)
            self.worked.add(sent, sent)
        if ended is not None:
            self.last_end = max(ended, self.last_end or ended)
        if (execution := self.parts.execution(attempt)) is not None:
            self.worked.add(*execution)
            self.run.add(*execution)

    def add_end(self, ended: datetime) -> None:
        """Have the run reach to the end of the last descendant, which is its work as well."""
        self.last_end = max(ended, self.last_end or ended)
        self.worked.add(ended, ended)

    def _add_times(self, record: EntryRecord, last: AttemptRecord) -> None:
        self.wait.add(last.wait)
        self.runtime.add(last.runtime)
        if self._was_free(record, last):
            self.free_wait.add(last.wait)
        if last.runtime is not None:
            # Of equal times the earlier entry is the slower one: the heap drops its smallest.
            rank = (last.runtime, -self.entries, record)
            if len(self.slowest) < SLOWEST:
                heappush(self.slowest, rank)
            else:
                heappushpop(self.slowest, rank)

    def _was_free(self, record: EntryRecord, last: AttemptRecord) -> bool:
        """Return whether only a lack of free workers can have made it wait."""
        if record.is_delayed:
            return False
        execution = self.parts.execution(last)
        if execution is None or last.sent_at is None:
            return True
        return self.parts.number(last.sent_at) == self.parts.number(execution[0])

    def statistics(self, run: RunInfo) -> Statistics:
        workers, runtime = self.workers.rows(), self.runtime.distribution()
        over = self.first_sent is not None and self.last_end is not None
        slowest = tuple(record for _, _, record in sorted(self.slowest, reverse=True))
        return Statistics(
            run=run.run,
            entries=self.entries,
            reused=dict(self.reused.most_common()),
            verdicts=dict(self.verdicts),
            outcomes=dict(sum((task.outcomes for task in self.tasks.values()), Counter())),
            tasks=tuple(self.tasks[task].row(task) for task in sorted(self.tasks)),
            slowest=slowest,
            causes=self.causes.largest_first(),
            retries=self.retries,
            redeliveries=self.redeliveries,
            attempts=self.attempts,
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
            advice=advice(self._signs(workers, runtime), takes_one=run.takes_one or run.is_private),
        )

    def _signs(self, workers: Sequence[WorkerRow], runtime: Distribution | None) -> Signs:
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


class RunSegments:
    """The segments of a run, to tell in which of them a time is."""

    def __init__(self, parts: Sequence[RunSegment] = ()) -> None:
        # Before the first recorded segment there may have been one that was not recorded.
        self.begins = [part.started for part in parts]
        self._stops = [None, *(part.stopped for part in parts)]
        self._last: tuple[AttemptRecord, tuple[datetime, datetime] | None] | None = None
        """The attempt requested last: several sums request the same one in a row."""

    def number(self, moment: datetime) -> int:
        """Return the number of the segment that a time is in."""
        return bisect_right(self.begins, moment)

    def execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        """Return from when to when a worker had the attempt; None where none had it.

        A job that a stop cut off ran until then. Where only one of both is known, it is both.
        """
        if self._last is None or self._last[0] is not attempt:
            self._last = attempt, self._execution(attempt)
        return self._last[1]

    def _execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        # A worker's clock may be behind ours, which dates the sending.
        started, ended = (
            _not_before(attempt.sent_at, moment)
            for moment in (attempt.started_at, attempt.ended_at)
        )
        if started is None:
            return None if ended is None else (ended, ended)
        part = self.number(started)
        # A death may have been noticed, and dated, when the run was resumed.
        noticed_late = attempt.runtime is None and ended is not None and self.number(ended) > part
        if ended is None or noticed_late:
            ended = self._stops[part] or started
        return started, max(started, ended)


class WorkTime:
    """The sum of the stretches of time in which something was done.

    A stretch goes from the first to the last work in a segment, and on into the next segment where
    work continued in between.
    """

    def __init__(self, parts: RunSegments) -> None:
        self._parts = parts
        self._stretches: dict[int, tuple[datetime, datetime]] = {}

    def add(self, started: datetime, ended: datetime) -> None:
        """Add work from one time to another."""
        first, last = self._parts.number(started), self._parts.number(ended)
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


def _not_before(earliest: datetime | None, moment: datetime | None) -> datetime | None:
    return moment if moment is None or earliest is None else max(earliest, moment)
