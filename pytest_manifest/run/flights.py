"""The attempts that have no final receipt yet, and when the harness must speak for them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from pytest_manifest.dispatch.attempt import Attempt
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema import Entry, VerdictKind

TIMEOUT_GRACE = 5.0
"""Seconds an overdue job's own receipt is waited for before the harness speaks for it."""
CRASH_GRACE = 3.0
"""Seconds a job has to turn up again, or its receipt to arrive, after its worker process died."""


@dataclass(slots=True)
class InFlight:
    """An attempt without a final receipt; times are of the monotonic clock, in seconds."""

    run: str
    entry: Entry
    number: int
    sent: float
    started: float | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    when: float
    task_id: str
    kind: VerdictKind
    note: str
    since: float | None = None
    """The start that it is about; None: about the attempt, whatever it does."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """An attempt that the harness speaks for, with the verdict and why."""

    flight: InFlight
    kind: VerdictKind
    note: str


class Flights:
    """The attempts in flight by task id, oldest first."""

    def __init__(self) -> None:
        self.by_task_id: dict[str, InFlight] = {}
        self._due: list[_Due] = []

    def __len__(self) -> int:
        return len(self.by_task_id)

    def follow(self, attempt: Attempt, sent: float) -> None:
        """Wait for this attempt, which was sent at this moment."""
        entry = attempt.entry
        self.by_task_id[attempt.task_id] = InFlight(attempt.run, entry, attempt.number, sent)
        if entry.deadline is not None:
            note = f"its deadline of {entry.deadline:g} s from dispatch is over"
            when = sent + entry.deadline
            heapq.heappush(self._due, _Due(when, attempt.task_id, "timed_out", note))

    def started(self, task_id: str, worker: str | None, now: float) -> None:
        """A worker began it: its timeout counts from now."""
        flight = self.by_task_id.get(task_id)
        if flight is None:
            return
        flight.started = now
        flight.worker = worker
        timeout = flight.entry.timeout
        note = f"it ran longer than its timeout of {timeout:g} s and its worker sent no receipt"
        when = now + timeout + TIMEOUT_GRACE
        heapq.heappush(self._due, _Due(when, task_id, "timed_out", note, since=now))

    def worker_lost(self, loss: WorkerLoss, now: float) -> None:
        """A worker process died: what it was running is lost unless it turns up soon."""
        note = f"worker {loss.worker} ended (exit code {loss.returncode}) while it was running it"
        for task_id, flight in self.by_task_id.items():
            if _node(flight.worker) == loss.worker:
                due = _Due(now + CRASH_GRACE, task_id, "crashed", note, since=flight.started)
                heapq.heappush(self._due, due)

    def unstarted(self) -> set[str]:
        """The task ids that have been sent and that no worker has begun."""
        return {i for i, flight in self.by_task_id.items() if flight.started is None}

    def land(self, task_id: str) -> InFlight | None:
        """It has its final receipt; None where it had one before, or is not ours."""
        return self.by_task_id.pop(task_id, None)

    def overdue(self, now: float) -> dict[str, Overdue]:
        """What time is over for, by task id; each is handed out once, and stays in flight."""
        found: dict[str, Overdue] = {}
        while self._due and self._due[0].when <= now:
            due = heapq.heappop(self._due)
            flight = self.by_task_id.get(due.task_id)
            if flight is None or (due.since is not None and flight.started != due.since):
                continue  # settled meanwhile, or started once more: a retry, another worker
            found[due.task_id] = Overdue(flight, due.kind, due.note)
        return found

    def clear(self) -> None:
        self.by_task_id.clear()
        self._due.clear()


def _node(worker: str | None) -> str | None:
    """A worker's node name without its host."""
    return None if worker is None else worker.partition("@")[0]
