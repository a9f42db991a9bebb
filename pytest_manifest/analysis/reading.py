"""Read a run's ledger and manifest side by side, entry by entry, in constant memory.

For an entry that simply passed the stored JSON is parsed once, as far as reports need it; its
entry, verdict and receipt are built on request.

Records of entries that simply passed, made of the stored JSON as far as reports need it.

Their entry, verdict and receipt are built only on request.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Final

from msgspec import Raw, Struct
from msgspec.json import Decoder
from pydantic_core import from_json

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, Origin, TryRecord
from pytest_manifest.ledger import AttemptRow, History, Ledger, Start
from pytest_manifest.ledger.queries import StoredEntry
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.redaction import may_hold_secret
from pytest_manifest.schema import (
    Entry,
    Receipt,
    Retried,
    State,
    Verdict,
    VerdictStatus,
    actual_cost,
    exact,
    shown,
)
from pytest_manifest.schema.json_values import MSGSPEC_ERRORS
from pytest_manifest.schema.receipts import told_cost
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.schema.wire import parse_moment
from pytest_manifest.verdict import Costs
from pytest_manifest.verdict.explanation import error_place

_set: Final = object.__setattr__  # records are frozen


@dataclass(frozen=True, slots=True)
class Line:
    """An entry's line of the manifest: its number from 1, its bytes, and what it is about."""

    number: int
    raw: bytes
    entry: str
    task: str


class StoredRecord(EntryRecord):
    """An entry whose only attempt passed, with one start and one receipt, or was reused."""

    __slots__ = ("_line", "_manifest", "_receipt", "_sentence", "_verdict")
    _manifest: Manifest
    _line: Line
    _verdict: str
    _receipt: str
    _sentence: str

    def __init__(self, manifest: Manifest, line: Line, verdict: str, receipt: str) -> None:
        """Take verdict and receipt as the ledger's JSON; the attempts are added later."""
        _set(self, "line", line.number)
        _set(self, "outcome", "passed")
        _set(self, "error_place", None)
        _set(self, "reused_from", None)
        _set(self, "_manifest", manifest)
        _set(self, "_line", line)
        _set(self, "_verdict", verdict)
        _set(self, "_receipt", receipt)
        _set(self, "_sentence", from_json(verdict)["sentence"])  # made without secrets

    @property
    def entry(self) -> Entry:
        return shown.shown_line(self._manifest.parse(self._line.raw, self.line), self._line.raw)

    @property
    def verdict(self) -> Verdict:
        return shown.shown_verdict(Verdict.model_validate_json(self._verdict))

    @property
    def receipt(self) -> Receipt:
        receipt = Receipt.model_validate_json(self._receipt)
        if not (may_hold_secret(self._receipt) or may_hold_secret(self._line.raw.decode())):
            return receipt
        entry = self._manifest.parse(self._line.raw, self.line)
        return shown.shown_receipt(receipt, shown.secrets_of(entry, receipt))

    @property
    def id(self) -> str:
        return self._line.entry

    @property
    def task(self) -> str:
        return self._line.task

    @property
    def kind(self) -> VerdictStatus:
        return "passed"

    @property
    def sentence(self) -> str:
        return self._sentence

    @property
    def is_delayed(self) -> bool:
        raw = self._line.raw
        return (b'"countdown"' in raw or b'"eta"' in raw) and super().is_delayed


class _Fields(Struct, gc=False):
    """The fields of a stored receipt that reports show; the others are skipped, not built."""

    run: str
    entry: str
    task_id: str
    attempt: int
    state: State
    reused: Raw | None = None
    executions: int = 0
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    queue: str | None = None
    sent_at: str | None = None
    received_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    wait: float | None = None
    runtime: float | None = None
    redelivered: bool = False
    retries: int = 0
    evidence: Raw = Raw(b"null")
    result: Raw = Raw(b"null")


_decode_fields: Final = Decoder(_Fields).decode


def stored_record(
    manifest: Manifest,
    line: Line,
    verdict: str,
    receipt: str,
    unusual: Container[str],
    *,
    with_costs: bool,
) -> StoredRecord | None:
    """Return the record of a passed entry; None where the ledger's other tables are needed.

    ``unusual``: task ids of which those tables say more than the receipt; ``with_costs``: some
    receipt of the run reports a cost.
    """
    try:
        fields = _decode_fields(receipt)
    except MSGSPEC_ERRORS:  # not of this program: to be read, and refused, like any other
        return None
    if fields.reused is not None:  # what else is known of it is another run's
        record = StoredRecord(manifest, line, verdict, receipt)
        _set(record, "attempts", ())
        origin = Origin(fields.run, fields.entry, fields.attempt, fields.task_id)
        _set(record, "reused_from", origin)
        return record
    if fields.task_id in unusual or not _is_complete(fields):
        return None
    record = StoredRecord(manifest, line, verdict, receipt)
    cost = None
    if with_costs:
        cost = told_cost(from_json(bytes(fields.evidence)), from_json(bytes(fields.result)))
    _set(record, "attempts", (_stored_attempt(record, fields, cost, with_costs=with_costs),))
    return record


def _is_complete(fields: _Fields) -> bool:
    """Return whether a receipt has all that attempts and starts would add.

    Of a task's retries those know more.
    """
    if fields.state not in ("succeeded", "failed") or fields.retries:
        return False
    moments = fields.sent_at and fields.started_at
    return bool(fields.worker and moments and fields.executions)


def _stored_attempt(
    record: StoredRecord, fields: _Fields, cost: float | None, *, with_costs: bool
) -> AttemptRecord:
    return AttemptRecord(
        number=fields.attempt,
        task_id=fields.task_id,
        kind="passed",
        sentence=record.sentence,
        reason=None,
        sent_at=_moment(fields.sent_at),
        received_at=_moment(fields.received_at),
        started_at=_moment(fields.started_at),
        finished_at=_moment(fields.finished_at),
        wait=fields.wait,
        runtime=fields.runtime,
        worker=fields.worker,
        host=fields.host,
        pid=fields.pid,
        executions=fields.executions,
        redelivered=fields.redelivered,
        retries=fields.retries,
        cost=cost,
        billed_cost=_billed_cost(record, cost) if with_costs else None,
        queue=fields.queue,
    )


def _billed_cost(record: StoredRecord, cost: float | None) -> float:
    """Return the attempt's billed cost: as reported, or else the entry's estimate."""
    if cost is None:
        cost = record.entry.cost if b'"cost"' in record._line.raw else None
    return float(exact(cost))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else parse_moment(text)


_AT_ONCE = 64
"""Entries read together."""
_FEW = 4
"""The ids of a run's entries are read first if it has less than one in so many of the manifest."""
_UNUSUAL_LIMIT = 100_000
"""Unusual attempts kept in memory (some 150 bytes each)."""


def read_records(ledger: Ledger, manifest: Manifest) -> Generator[EntryRecord, None, None]:
    """Yield the run's entries in the manifest's order, without those no longer in the manifest.

    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    with ledger.parse_errors():
        costs = Costs(ledger, manifest) if ledger.queries.has_costs() else None
        unusual = ledger.queries.unusual_attempts(_UNUSUAL_LIMIT, executions=costs is not None)
        lines = _lines(ledger, manifest)
        while some := list(islice(lines, _AT_ONCE)):
            stored_entries = ledger.queries.stored_entries(line.entry for line in some)
            records = [
                None if unusual is None else _stored(manifest, line, stored, unusual, costs)
                for line, stored in zip(some, stored_entries, strict=True)
            ]
            left = [one.entry for one, record in zip(some, records, strict=True) if record is None]
            histories = ledger.queries.histories(left) if left else {}
            for line, record in zip(some, records, strict=True):
                if record is not None:
                    yield record
                elif (history := histories.pop(line.entry, None)) is not None:
                    entry = manifest.parse(line.raw, line.number)
                    yield _record(entry, line.number, history, costs)


def _stored(
    manifest: Manifest,
    line: Line,
    stored: StoredEntry,
    unusual: frozenset[str],
    costs: Costs | None,
) -> EntryRecord | None:
    """Return the record of an entry that simply passed; None for any other."""
    if stored.status != "passed" or stored.verdict is None or stored.receipt is None:
        return None
    with_costs = costs is not None
    return stored_record(
        manifest, line, stored.verdict, stored.receipt, unusual, with_costs=with_costs
    )


def read_some(ledger: Ledger | None, manifest: Manifest, ids: Sequence[str]) -> list[EntryRecord]:
    """Return the records of these entries, without their attempts' billed costs.

    Without a ledger, or for an entry that is not in it, only the entry is known.
    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    histories = {} if ledger is None else ledger.queries.histories(ids)
    return [
        _record(entry, manifest.line_of(entry.id), histories.get(entry.id, History()), None)
        for entry in manifest.some(ids)
    ]


def _lines(ledger: Ledger, manifest: Manifest) -> Iterator[Line]:
    """Yield the manifest's lines of entries that may be of the run."""
    small = ledger.attempts.count_entries() * _FEW < len(manifest)
    known = frozenset(ledger.queries.sent_entries()) if small else None
    for number, _, raw in manifest.lines():
        entry, task = id_and_task(raw)
        if known is None or entry in known:
            yield Line(number, raw, entry, task)


def _record(entry: Entry, line: int, history: History, costs: Costs | None) -> EntryRecord:
    entry_verdict = history.verdict
    receipt = None if entry_verdict is None else entry_verdict.receipt
    secrets = shown.secrets_of(entry, receipt)
    verdict = None if entry_verdict is None else shown.shown_verdict(entry_verdict.verdict, secrets)
    decided = None if verdict is None else verdict.attempt
    reused = next((row for row in history.attempts if row.attempt == decided), None)
    attempts = tuple(
        _attempt(
            row,
            receipt if row.attempt == decided else _received(row, history),
            history.starts.get(row.task_id, ()),
            None if costs is None else costs.of(row.task_id),
            secrets,
        )
        for row in history.attempts
        if row.reused_from is None
    )
    receipt = None if receipt is None else shown.shown_receipt(receipt, secrets)
    error = None if receipt is None else receipt.error
    return EntryRecord(
        entry=shown.shown_entry(entry, secrets),
        line=line,
        verdict=verdict,
        outcome=outcome_of(None if verdict is None else verdict.verdict),
        receipt=receipt,
        attempts=attempts,
        error_place=None if error is None else error_place(error.traceback),
        reused_from=None if reused is None else _origin(reused),
    )


def _origin(row: AttemptRow) -> Origin | None:
    origin = row.reused_from
    if origin is None:
        return None
    return Origin(origin.run, origin.entry, origin.attempt, row.task_id)


def _received(row: AttemptRow, history: History) -> Receipt | None:
    """Return the last receipt that arrived for an attempt and names it."""
    ours = (row.entry, row.attempt, row.task_id)
    for receipt in reversed(history.receipts.get(row.task_id, ())):
        if (receipt.entry, receipt.attempt, receipt.task_id) == ours:
            return receipt
    return None


def _attempt(
    row: AttemptRow,
    receipt: Receipt | None,
    starts: Sequence[Start],
    billed_cost: Decimal | None,
    secrets: shown.Secrets,
) -> AttemptRecord:
    reported = None if receipt is None else actual_cost(receipt)
    if row.status == "forged":
        receipt = None  # its times and places are not credible
    start = starts[-1] if starts else None
    origin = receipt if receipt is not None and receipt.worker else start or receipt
    started = None if receipt is None else receipt.started_at
    if started is None and start is not None:
        started = start.started_at
    retries = max((one.retries for one in starts), default=0)
    return AttemptRecord(
        number=row.attempt,
        task_id=row.task_id,
        kind=row.status,
        sentence=None if row.verdict is None else shown.shown_text(row.verdict.sentence, secrets),
        reason=row.reason,
        sent_at=row.sent_at or (None if receipt is None else receipt.sent_at),
        received_at=None if receipt is None else receipt.received_at,
        started_at=started,
        finished_at=None if receipt is None else receipt.finished_at,
        wait=_wait(receipt, row, start),
        # When a process died is unknown; the receipt has the time at which that was noticed.
        runtime=None if receipt is None or receipt.state == "crashed" else receipt.runtime,
        worker=None if origin is None else origin.worker,
        host=None if origin is None else origin.host,
        pid=None if origin is None else origin.pid,
        executions=max(0 if receipt is None else receipt.executions, _executions(starts)),
        redelivered=any(one.redelivered for one in (receipt, *starts) if one is not None),
        retries=retries if receipt is None else max(receipt.retries, retries),
        cost=reported,
        billed_cost=None if billed_cost is None else float(billed_cost),
        queue=None if receipt is None else receipt.queue,
        tries=_tries(receipt, starts, secrets) if retries or (receipt and receipt.retries) else (),
    )


def _tries(
    receipt: Receipt | None, starts: Sequence[Start], secrets: shown.Secrets
) -> tuple[TryRecord, ...]:
    """Return the retries' executions before the last, as starts and receipt report them."""
    last = max([one.retries for one in starts] + ([] if receipt is None else [receipt.retries]))
    started_by_retry = {one.retries: one for one in starts}
    reported = {} if receipt is None else {one.retries: one for one in receipt.retried}
    return tuple(
        _try(number, started_by_retry.get(number), reported.get(number), secrets)
        for number in sorted(started_by_retry.keys() | reported.keys())
        if number < last
    )


def _try(
    number: int, start: Start | None, reported: Retried | None, secrets: shown.Secrets
) -> TryRecord:
    error = None if reported is None else shown.shown_error(reported.error, secrets)
    started = None if reported is None else reported.started_at
    return TryRecord(
        retries=number,
        started_at=started if start is None or started is not None else start.started_at,
        ended_at=None if reported is None else reported.ended_at,
        host=None if start is None else start.host,
        pid=None if start is None else start.pid,
        error=None if error is None else f"{error.type}: {error.message}",
    )


def _wait(receipt: Receipt | None, row: AttemptRow, start: Start | None) -> float | None:
    if receipt is not None and receipt.wait is not None:
        return receipt.wait
    if receipt is not None or start is None or start.started_at is None or row.sent_at is None:
        return None
    return max((start.started_at - row.sent_at).total_seconds(), 0.0)


def _executions(starts: Sequence[Start]) -> int:
    """Return how often the same retry was started, as receipts count it."""
    by_retry: dict[int, int] = {}
    for start in starts:
        by_retry[start.retries] = by_retry.get(start.retries, 0) + 1
    return max(by_retry.values(), default=0)
