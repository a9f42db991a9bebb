"""Data classes of the ledger's rows, and their conversion from and to SQLite's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pytest_manifest.errors import LedgerError
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.fields import PARSED, RULE, is_identifier
from pytest_manifest.schema.statuses import STATUSES

SendState = Literal["planned", "intent", "sent", "uncertain", "withheld", "withdrawn", "reused"]
"""planned: selected, not sent; intent: about to be published; sent: the broker has it; uncertain:
the broker failed while it was being published; withheld: never sent, the attempt's note says why
(its task is unknown, its predecessor failed, the run stopped sending); withdrawn: sent, and taken
back before any worker had begun it; reused: never sent by this run, but by an earlier one, in which
it passed."""
RunStatus = Literal["running", "finished", "stopped", "detached"]

BAD_ROW_ERRORS: Final = (
    *(ValueError, TypeError, KeyError, AttributeError, OverflowError),
    RecursionError,  # of JSON that is nested too deeply
)
"""Exceptions raised by converting a row that this program did not write; pydantic's is one."""
_MAX_ERROR_CHARS: Final = 200
"""Characters of such an error that a message repeats."""

EXPORTED_INSTEAD: Final = (
    "what was exported beside it can be judged by --manifest-audit --manifest-receipts=FILE"
)
"""What is left to do without a ledger."""

Row: TypeAlias = tuple[Any, ...]
"""A row as SQLite returns it: its values carry no types."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The description of a run; ``broker`` and ``backend`` are URLs without passwords.

    ``number``: its number among the runs in its folder, in the order in which they began, from 1.
    ``takes_one``: whether each process of
    its workers took one job at a time.
    """

    run: str
    manifest: Path
    sha256: str
    workflow: str | None
    mode: str | None
    entries: int
    created_at: datetime
    broker: str
    backend: str
    is_private: bool
    stream_ttl: int
    number: int = 0
    takes_one: bool = False

    @property
    def age(self) -> tuple[int, datetime]:
        """Return a key that orders runs by their beginning."""
        return self.number, self.created_at


@dataclass(frozen=True, slots=True)
class RunSegment:
    """A stretch of a run: the first begins at its dispatch, later ones at each resume.

    ``stopped``: when sending and jobs were ended before all was done; None where they were not,
    where the workers went on, or where the process died before recording it.
    """

    started: datetime
    stopped: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReusedFrom:
    """Hold where a reused attempt had run: the run, its entry, and the attempt's number there.

    ``by``: the run that has reused it, ``at`` (UTC): when.
    """

    run: str
    entry: str
    attempt: int
    by: str
    at: datetime

    def note(self) -> str:
        """Return it as the ledger stores it."""
        parts = [self.run, self.entry, self.attempt, self.by, text(self.at)]
        return json.dumps(parts, ensure_ascii=False)

    @classmethod
    def from_note(cls, note: str) -> ReusedFrom:
        """Parse what :meth:`note` returned. Raises ValueError or TypeError for anything else."""
        run, entry, attempt, by, at = json.loads(note)
        if not all(isinstance(one, str) for one in (run, entry, by)) or type(attempt) is not int:
            raise TypeError("where an attempt was reused from is of another type")
        return cls(run, entry, attempt, by, datetime.fromisoformat(at))


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of one entry; ``sent_at`` is UTC.

    ``reason``: why it was made, None for a first attempt; ``status`` and ``verdict``: the last
    verdict on it, None before that. ``reused_from``: of one that an earlier run has sent, whose
    number here is 0.
    """

    task_id: str
    entry: str
    attempt: int
    position: int
    state: SendState
    sent_at: datetime | None
    note: str | None
    reason: str | None = None
    status: VerdictStatus | None = None
    verdict: Verdict | None = None
    reused_from: ReusedFrom | None = None


@dataclass(frozen=True, slots=True)
class EntryVerdict:
    """An entry's verdict and its receipt; ``seq`` grows in the order in which verdicts came."""

    seq: int
    verdict: Verdict
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """An entry's verdict as it is stored: ``verdict`` and ``receipt`` are JSON, not parsed.

    ``attempts``: how many the entry has had; ``task_id``: of the one that the verdict is on.
    """

    seq: int
    status: VerdictStatus
    attempt: int | None
    verdict: str
    receipt: str | None
    attempts: int
    task_id: str | None

    def parse(self) -> EntryVerdict:
        """Parse and validate it. Raises LedgerError where that fails."""
        try:
            return entry_verdict_of_row((self.seq, self.verdict, self.receipt))
        except BAD_ROW_ERRORS as error:
            raise damaged(f"attempt {self.task_id}", error) from error


def damaged(where: Path | str, error: Exception) -> LedgerError:
    """Build the error for a ledger with content that this program cannot have written."""
    said = " ".join(str(error).split())[:_MAX_ERROR_CHARS]
    if isinstance(error, KeyError):
        said = f"there is no {said}"
    return LedgerError(
        f"{where}: the ledger is damaged, as it holds what cannot be read ({said}); restore it "
        f"from a copy: {EXPORTED_INSTEAD}"
    )


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def text(moment: datetime | None) -> str | None:
    """Format a time as the ledger stores it."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def moment(text: str | None) -> datetime | None:
    """Parse a time that :func:`text` formatted."""
    return None if text is None else datetime.fromisoformat(text)


def columns_of(info: RunInfo) -> dict[str, str | int | None]:
    """Return the columns that describe a run, as :func:`info_of` takes them."""
    return {
        "status": "running",
        "id": info.run,
        "manifest": str(info.manifest),
        "sha256": info.sha256,
        "workflow": info.workflow,
        "mode": info.mode,
        "entries": info.entries,
        "created_at": info.created_at.isoformat(),
        "broker": info.broker,
        "backend": info.backend,
        "is_private": int(info.is_private),
        "stream_ttl": info.stream_ttl,
        "number": info.number,
        "takes_one": int(info.takes_one),
    }


def info_of(row: Mapping[str, object]) -> RunInfo:
    """Build a run's description from its columns. Raises ValueError or TypeError for others."""
    for key in ("id", "workflow", "mode"):
        if row[key] is not None:
            identifier(_text(row, key), {"id": "run"}.get(key, key))
    return RunInfo(
        run=_text(row, "id"),
        manifest=Path(_text(row, "manifest")),
        sha256=_text(row, "sha256"),
        workflow=None if row["workflow"] is None else _text(row, "workflow"),
        mode=None if row["mode"] is None else _text(row, "mode"),
        entries=_number(row, "entries"),
        created_at=datetime.fromisoformat(_text(row, "created_at")),
        broker=_text(row, "broker"),
        backend=_text(row, "backend"),
        is_private=_number(row, "is_private") == 1,
        stream_ttl=_number(row, "stream_ttl"),
        number=_number(row, "number"),
        takes_one=row["takes_one"] == 1,
    )


def _text(row: Mapping[str, object], key: str) -> str:
    found = row[key]
    if not isinstance(found, str) or "\0" in found:
        raise TypeError(f"the {key} of its run is no text")
    return found


def _number(row: Mapping[str, object], key: str) -> int:
    found = row[key]
    if not isinstance(found, int):
        raise TypeError(f"the {key} of its run is no number")
    return found


def identifier(name: str, of: str = "run") -> str:
    """Return a name that may be part of a path. Raises ValueError for any other."""
    if not is_identifier(name):
        raise ValueError(f"its {of} {name!r} {RULE}")
    return name


def refuse_no_status(kind: object) -> None:
    """Raise ValueError for what is no verdict's status, where there is one."""
    if kind is not None and kind not in STATUSES:
        raise ValueError(f"{str(kind)!r} is no status")


def attempt_of_row(row: Row) -> AttemptRow:
    """Build an attempt from the table's columns in their order; two of them: its last verdict."""
    task_id, entry, attempt, ordinal, state, sent_at, note, reason, kind, verdict, origin = row
    refuse_no_status(kind)
    judged = None if verdict is None else Verdict.model_validate_json(verdict)
    sent = moment(sent_at)
    return AttemptRow(
        *(task_id, entry, attempt, ordinal, state, sent, note, reason, kind, judged),
        reused_from=origin_of(origin),
    )


def origin_of(note: str | None) -> ReusedFrom | None:
    """Parse where an attempt was reused from; None for one of the run's own."""
    return None if note is None else ReusedFrom.from_note(note)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """Return a moment as the tables have it: microseconds since the epoch."""
    return (at - _EPOCH) // _MICROSECOND


def moment_of(at: int) -> datetime:
    """Return the moment (UTC) of such a number."""
    return _EPOCH + timedelta(microseconds=at)


OLDEST_FIRST: Final = "hop, retries, redelivered, started_at, execution"
NEWEST_FIRST: Final = "hop DESC, retries DESC, redelivered DESC, started_at DESC"
"""The order of an attempt's starts: what its messages count comes before the times, which are by
the clocks of several machines."""


def entry_verdict_of_row(row: Row) -> EntryVerdict:
    """Build an entry's verdict from ``seq, verdict, receipt``."""
    seq, verdict, receipt = row
    received = None if receipt is None else receipt_of(receipt)
    return EntryVerdict(seq, Verdict.model_validate_json(verdict), received)


def receipt_of(text: str) -> Receipt:
    """Parse a stored receipt, whose content was checked when it arrived."""
    return Receipt.model_validate_json(text, context=PARSED)
