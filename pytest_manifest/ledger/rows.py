"""Data classes of the ledger's rows, and their conversion from and to SQLite's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter

from pytest_manifest.errors import LedgerError
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Reused
from pytest_manifest.schema.fields import RULE, is_identifier
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


def note_of(one: Reused) -> str:
    """Return the origin of a reused attempt as the ledger stores it."""
    parts = [one.run, one.entry, one.attempt, one.by, text(one.at)]
    return json.dumps(parts, ensure_ascii=False)


def origin_of(note: str | None) -> Reused | None:
    """Parse what :func:`note_of` returned; None for an attempt of the run's own.

    Raises ValueError or TypeError for anything else.
    """
    if note is None:
        return None
    run, entry, attempt, by, at = json.loads(note)
    if not all(isinstance(one, str) for one in (run, entry, by)) or type(attempt) is not int:
        raise TypeError("where an attempt was reused from is of another type")
    return Reused(run=run, entry=entry, attempt=attempt, by=by, at=datetime.fromisoformat(at))


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
    reused_from: Reused | None = None


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
    columns = {"status": "running", **asdict(info), "id": info.run, "manifest": str(info.manifest)}
    del columns["run"]
    return {**columns, "created_at": info.created_at.isoformat()}


_INFO: Final = TypeAdapter(RunInfo)


def info_of(row: Mapping[str, object]) -> RunInfo:
    """Build a run's description from its columns. Raises ValueError or TypeError for others."""
    for key, value in row.items():
        if isinstance(value, str) and "\0" in value:
            raise TypeError(f"the {key} of its run is no text")
    for key in ("id", "workflow", "mode"):
        if row[key] is not None:
            identifier(str(row[key]), {"id": "run"}.get(key, key))
    return _INFO.validate_python({**row, "run": row["id"], "takes_one": row["takes_one"] or 0})


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
    return Receipt.model_validate_json(text)
