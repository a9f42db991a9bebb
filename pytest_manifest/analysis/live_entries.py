"""Count a run's entries and what runs of them, row by row as its ledger grows.

Entries and jobs are known by their numbers in the ledger; what is kept of each is a few bytes, as a
run may have a million.
"""

from __future__ import annotations

import json
import random
from array import array
from bisect import insort
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, get_args

from typing_extensions import Self

from pytest_manifest.analysis.pace import MINUTE
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import RunInfo
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import jsonl, manifest_digest
from pytest_manifest.manifest.yaml_file import open_lines
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import BAD, Outcome, outcome_of
from pytest_manifest.schema.wire import amount

_CODES: Final[tuple[VerdictStatus | None, ...]] = (None, *get_args(VerdictStatus))
_CODE_OF: Final = {status: code for code, status in enumerate(_CODES)}
_NOT_DONE: Final = (None, "pending")
SAMPLED: Final = 5_000
"""Runtimes of a task that are kept: quantiles are exact up to so many, and of a fair sample
beyond."""


class Spread:
    """Some values of many, in order."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311 - no secret

    def add(self, value: float) -> None:
        self._seen += 1
        if len(self.values) >= SAMPLED:
            place = self._random.randrange(self._seen)
            if place >= SAMPLED:
                return
            del self.values[place]
        insort(self.values, value)


@dataclass(slots=True)
class TaskFigures:
    """The entries of a task by how far they are; ``failed``: and those whose fate is unknown."""

    entries: int = 0
    done: int = 0
    passed: int = 0
    failed: int = 0
    runtimes: Spread = field(default_factory=Spread)


class Entries:
    """The statuses of a run's entries, by number."""

    def __init__(self, jobs: int) -> None:
        self.statuses = bytearray(jobs + 1)
        self.sent_ones = bytearray(jobs + 1)
        self.reused_jobs = bytearray(jobs + 1)
        self.task_of = array("H", bytes(2 * (jobs + 1)))
        """The index of the entry's task among ``tasks``; 0: it is not known."""
        self.tasks: list[tuple[str, TaskFigures]] = [("", TaskFigures())]
        self.counts: Counter[VerdictStatus] = Counter()
        self.total = self.sent = self.in_flight = self.reused = 0

    def make_room(self, number: int) -> None:
        """Make room for jobs up to this number."""
        more = number + 1 - len(self.statuses)
        if more > 0:
            self.statuses.extend(bytes(more))
            self.sent_ones.extend(bytes(more))
            self.reused_jobs.extend(bytes(more))
            self.task_of.extend(array("H", bytes(2 * more)))

    def status(self, entry: int) -> VerdictStatus | None:
        return _CODES[self.statuses[entry]]

    def is_done(self, entry: int) -> bool:
        """Return whether an entry has a verdict other than that it goes on."""
        return _CODES[self.statuses[entry]] not in _NOT_DONE

    @property
    def done(self) -> int:
        return self.counts.total() - self.counts["pending"]

    def set_sent(self, entry: int, *, is_sent: bool = True) -> None:
        """Note that an entry's message left, or that no broker took it."""
        if bool(self.sent_ones[entry]) != is_sent:
            self.sent_ones[entry] = is_sent
            change = 1 if is_sent else -1
            self.sent += change
            if not self.is_done(entry):
                self.in_flight += change

    def set_status(self, entry: int, status: VerdictStatus | None) -> None:
        """Note an entry's verdict; None: it was taken back."""
        before = _CODES[self.statuses[entry]]
        if before == status:
            return
        was_done = before not in _NOT_DONE
        self.statuses[entry] = _CODE_OF[status]
        task = self.tasks[self.task_of[entry]][1]
        for one, change in ((before, -1), (status, 1)):
            if one is not None:
                self.counts[one] += change
                if not self.counts[one]:
                    del self.counts[one]
            if one not in _NOT_DONE:
                outcome = outcome_of(one)
                task.done += change
                task.passed += change * (outcome == "passed")
                task.failed += change * (outcome in BAD)
        if self.sent_ones[entry]:
            self.in_flight += was_done - (status not in _NOT_DONE)

    def outcomes(self) -> Counter[Outcome]:
        """Count the entries by outcome; without a verdict they are pending."""
        found: Counter[Outcome] = Counter()
        found["pending"] = self.total - self.counts.total()
        for status, count in self.counts.items():
            found[outcome_of(status)] += count
        return found


@dataclass(slots=True)
class Execution:
    """A job that a worker has begun, since when, and where; ``is_lost``: its process is gone."""

    entry: int
    since: float
    worker: str | None
    pid: int | None
    is_lost: bool = False


@dataclass(slots=True)
class WorkerFigures:
    """A worker's jobs that have ended, and when it was last heard; ``is_silent``: it answers
    nobody."""

    done: int = 0
    heard: float | None = None
    is_silent: bool = False


class Running:
    """The jobs that workers have begun and that have not ended, by number."""

    def __init__(self) -> None:
        self.open: dict[int, Execution] = {}
        self.retrying: dict[int, tuple[int, float | None]] = {}
        """What waits for its next try: its entry, and when that is due."""
        self.workers: dict[str, WorkerFigures] = {}
        self._lost: dict[int, set[int]] = {}
        """The jobs of an entry whose processes are gone."""
        self._ends: deque[tuple[float, str]] = deque()
        self._recent: Counter[str] = Counter()

    def start(self, job: int, one: Execution) -> None:
        self.retrying.pop(job, None)
        self.open[job] = one
        self._heard(one.worker, one.since)

    def end(self, job: int, at: float, worker: str | None) -> Execution | None:
        """Note the end of a job; return its last execution, if it was known to run."""
        one = self.open.pop(job, None)
        self.retrying.pop(job, None)
        name = worker or (None if one is None else one.worker)
        figures = self._heard(name, at)
        if figures is not None and name is not None:
            figures.done += 1
            self._ends.append((at, name))
            self._recent[name] += 1
        return one

    def hand_on(self, job: int, entry: int, at: float, due: float | None, *, retries: bool) -> None:
        """Note that an execution ended, and that its job goes on by another one."""
        one = self.open.pop(job, None)
        if one is not None:
            self._heard(one.worker, at)
        if retries:
            self.retrying[job] = entry, due

    def lose(self, job: int) -> Execution | None:
        """Note that the process which ran a job is gone."""
        one = self.open.get(job)
        if one is not None:
            one.is_lost = True
            self._lost.setdefault(one.entry, set()).add(job)
        return one

    def settle(self, entry: int, newest: int | None = None) -> None:
        """Forget the jobs that an entry lost before its newest one: verdicts count them."""
        lost = self._lost.get(entry, set())
        for job in [one for one in lost if newest is None or one < newest]:
            lost.remove(job)
            if (one := self.open.get(job)) is not None and one.is_lost:
                del self.open[job]

    def silence(self, names: set[str]) -> None:
        """Note which workers answer nobody, by the last search."""
        for name, one in self.workers.items():
            one.is_silent = name in names

    def _heard(self, worker: str | None, at: float) -> WorkerFigures | None:
        if worker is None:
            return None
        figures = self.workers.get(worker)
        if figures is None:
            figures = self.workers[worker] = WorkerFigures()
        if figures.heard is None or at > figures.heard:
            figures.heard = at
        figures.is_silent = False
        return figures

    def ends_by_worker(self, now: float) -> Counter[str]:
        """Count the jobs that ended in the last minute, by worker."""
        while self._ends and self._ends[0][0] <= now - MINUTE:
            self._recent[self._ends.popleft()[1]] -= 1
        return self._recent


class Lines:
    """The lines of a run's manifest by the numbers of its entries: their tasks and estimates."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._offsets = array("Q")
        self.costs: dict[int, float] = {}
        """What entries are estimated to cost, where they are."""

    @classmethod
    def of(cls, path: Path, info: RunInfo) -> Self | None:
        """Open the run's copy of its manifest, or the file itself if it is as it was; else None."""
        kept = RunFiles(path).manifest(info.sha256)
        with suppress(ManifestError):
            if kept.is_file():
                return cls(jsonl.open_regular(kept))
            if manifest_digest(info.manifest) == info.sha256:
                return cls(open_lines(info.manifest))
        return None

    def close(self) -> None:
        self._file.close()

    def sort_into(self, entries: Entries, names: Mapping[str, int]) -> bool:
        """Note the tasks of a run's entries; return whether the lines could be read."""
        self._offsets = array("Q", bytes(8 * len(entries.statuses)))
        places: dict[str, int] = {}
        self._file.seek(0)
        offset = 0
        try:
            for raw in self._file:
                at, offset = offset, offset + len(raw)
                if jsonl.is_remark(raw) or (not at and raw.startswith(b'{"manifest"')):
                    continue
                name, task = jsonl.id_and_task(raw)
                entry = names.get(name)
                if entry is None:
                    continue
                place = places.get(task)
                if place is None:
                    place = places[task] = len(entries.tasks)
                    entries.tasks.append((task, TaskFigures()))
                entries.task_of[entry] = place
                entries.tasks[place][1].entries += 1
                self._offsets[entry] = at + 1
                if b'"cost"' in raw and (cost := amount(json.loads(raw).get("cost"))):
                    self.costs[entry] = cost
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        return True

    def raw(self, entry: int) -> bytes | None:
        """Return an entry's line; None: it has none."""
        place = self._offsets[entry] if entry < len(self._offsets) else 0
        if not place:
            return None
        self._file.seek(place - 1)
        return self._file.readline()
