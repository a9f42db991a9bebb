"""Records of entries that simply passed, made of the stored JSON as far as reports need it.

Their entry, verdict and receipt are built only on request.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec import Raw, Struct
from msgspec.json import Decoder
from pydantic_core import from_json

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, Origin
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction import may_hold_secret
from pytest_manifest.schema import Entry, Receipt, State, Verdict, VerdictStatus, exact
from pytest_manifest.schema.json_values import MSGSPEC_ERRORS
from pytest_manifest.schema.receipts import told_cost
from pytest_manifest.schema.shown import (
    secrets_of,
    shown_line,
    shown_receipt,
    shown_verdict,
)
from pytest_manifest.schema.wire import parse_moment

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
        return shown_line(self._manifest.parse(self._line.raw, self.line), self._line.raw)

    @property
    def verdict(self) -> Verdict:
        return shown_verdict(Verdict.model_validate_json(self._verdict))

    @property
    def receipt(self) -> Receipt:
        receipt = Receipt.model_validate_json(self._receipt)
        if not (may_hold_secret(self._receipt) or may_hold_secret(self._line.raw.decode())):
            return receipt
        entry = self._manifest.parse(self._line.raw, self.line)
        return shown_receipt(receipt, secrets_of(entry, receipt))

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
