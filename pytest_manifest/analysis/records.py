"""Define the records that reports show: one for each entry and each of its attempts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis.dispositions import Accepted
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES, Outcome
from pytest_manifest.text import short

ENOUGH: Final = 10
"""Entries below which no advice is given."""


@dataclass(frozen=True, slots=True)
class TryRecord:
    """An execution of a task after which it asked Celery for a retry; times are UTC.

    ``retries``: how often it had been retried before; ``error``: its type and message. Unknown
    values are None.
    """

    retries: int
    started_at: datetime | None
    ended_at: datetime | None
    host: str | None
    pid: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt of an entry. Times are UTC, ``wait`` and ``runtime`` seconds.

    ``reason``: why it was sent, None for the first; ``cost`` and ``queue`` as its receipt reports
    them; ``billed_cost``: the reported cost or else the estimate, None where no receipt of the run
    reports a cost; ``tries``: executions before the last one, oldest first.
    """

    number: int
    task_id: str
    kind: VerdictStatus | None
    sentence: str | None
    reason: str | None
    sent_at: datetime | None
    received_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    wait: float | None
    runtime: float | None
    worker: str | None
    host: str | None
    pid: int | None
    executions: int
    redelivered: bool
    retries: int
    cost: float | None
    billed_cost: float | None = None
    queue: str | None = None
    tries: tuple[TryRecord, ...] = ()

    @property
    def ended_at(self) -> datetime | None:
        """Return when the job ended, or None, also for a job that was revoked before it ran."""
        never_ran = self.started_at is None and self.kind in NEVER_STARTED_STATES
        return None if never_ran else self.finished_at

    @property
    def was_found_dead(self) -> bool:
        """Return whether the job's process died; ``finished_at`` is then when that was noticed."""
        known = self.started_at is not None and self.finished_at is not None
        return known and self.runtime is None

    @property
    def place(self) -> str | None:
        """Return worker and pid as ``worker#pid``, or None where no worker received the job."""
        return place_of(self.worker or self.host, self.pid)


@dataclass(frozen=True, slots=True)
class Origin:
    """The attempt of an earlier run by which an entry was judged."""

    run: str
    entry: str
    attempt: int
    task_id: str


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """An entry of a run with everything that reports show of it.

    ``line``: its line in the manifest file, from 1; ``verdict``: None where it has none yet;
    ``attempts``: oldest first, the verdict is on the last one; ``error_place``: the last frame of
    its traceback like ``jobs.py:12 in charge``, None without one. ``reused_from``: the attempt that
    it was judged by where that was an earlier run's, which is none of its ``attempts``.
    ``accepted``: whose failure somebody knows; its ``outcome`` is ``skipped``, unless that is over.
    """

    entry: Entry
    line: int
    verdict: Verdict | None
    outcome: Outcome
    receipt: Receipt | None
    attempts: tuple[AttemptRecord, ...]
    error_place: str | None
    reused_from: Origin | None = None
    accepted: Accepted | None = None

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def task(self) -> str:
        return self.entry.task

    @property
    def sentence(self) -> str | None:
        """Return its verdict's message, after why it is accepted, or is no longer."""
        said = None if self.verdict is None else self.verdict.sentence
        return said if self.accepted is None else f"{self.accepted.sentence} {said}"

    @property
    def kind(self) -> VerdictStatus | None:
        return None if self.verdict is None else self.verdict.verdict

    @property
    def meta(self) -> dict[str, JsonValue]:
        return self.entry.meta

    @property
    def last(self) -> AttemptRecord | None:
        """Return the attempt that the verdict is on, or that is in progress."""
        return self.attempts[-1] if self.attempts else None


def place_of(name: str | None, pid: int | None) -> str | None:
    """Return a worker's or host's name and a pid as ``worker#pid``; None where none is known."""
    return name if name is None or pid is None else f"{name}#{pid}"


def origin_text(origin: Origin) -> str:
    """Return in words which attempt of which run an entry was judged by."""
    return f"run {origin.run}, entry {short(origin.entry)}, attempt {origin.attempt}"


def summary_fields(record: EntryRecord) -> dict[str, JsonValue]:
    """Return the fields of a ``SummaryEntry`` as a plain dict.

    Making a model of each of a million entries would take longer than all else about them.
    """
    last, origin = record.last, record.reused_from
    return {
        "id": record.id,
        "task": record.task,
        "line": record.line,
        "verdict": record.kind,
        "sentence": record.sentence,
        "task_id": None if last is None else last.task_id,
        "attempts": len(record.attempts),
        "wait": None if last is None else last.wait,
        "runtime": None if last is None else last.runtime,
        "place": None if last is None else last.place,
        "reused_from": None if origin is None else asdict(origin),
    }
