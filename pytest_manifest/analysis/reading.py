"""Read a run's ledger and manifest side by side, entry by entry, in constant memory.

Of an entry that simply passed the verdict and its receipt say all, and the ledger's other tables,
which take five times as long, are not read.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, Origin, TryRecord
from pytest_manifest.ledger import AttemptRow, Ledger
from pytest_manifest.ledger.queries import History, StoredEntry
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.schema import Entry, Receipt, Verdict, exact, shown
from pytest_manifest.schema.facts import Started
from pytest_manifest.schema.receipts import Retried, actual_cost
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.verdict import Costs
from pytest_manifest.verdict.explanation import error_place


class Line(NamedTuple):
    """An entry's line of the manifest: its number from 1, its bytes, and whose it is."""

    number: int
    raw: bytes
    entry: str


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
        with_costs = costs is not None
        while some := list(islice(lines, _AT_ONCE)):
            records: list[EntryRecord | None] = [None] * len(some)
            if unusual is not None:
                stored = ledger.queries.stored_entries(line.entry for line in some)
                records = [
                    _usual(manifest, line, one, unusual, with_costs=with_costs)
                    for line, one in zip(some, stored, strict=True)
                ]
            left = [one.entry for one, record in zip(some, records, strict=True) if record is None]
            histories = ledger.queries.histories(left) if left else {}
            for line, record in zip(some, records, strict=True):
                if record is not None:
                    yield record
                elif (history := histories.pop(line.entry, None)) is not None:
                    entry = manifest.parse(line.raw)
                    yield _record(entry, line.number, history, costs)


def _usual(
    manifest: Manifest,
    line: Line,
    stored: StoredEntry,
    unusual: Container[str],
    *,
    with_costs: bool,
) -> EntryRecord | None:
    """Return the record of an entry that simply passed; None where other tables say more of it.

    ``unusual``: task ids of which they say more than the receipt; ``with_costs``: some receipt of
    the run reports a cost.
    """
    if stored.status != "passed" or stored.verdict is None or stored.receipt is None:
        return None
    receipt = receipt_of(stored.receipt)
    if receipt.reused is None and (receipt.task_id in unusual or not _is_complete(receipt)):
        return None
    entry = manifest.parse(line.raw)
    verdict = Verdict.model_validate_json(stored.verdict)  # its sentence is made without secrets
    cost = actual_cost(receipt)
    if shown.may_hold_secret(stored.receipt + line.raw.decode()):
        secrets = shown.secrets_of(entry, receipt)
        receipt = shown.shown_receipt(receipt, secrets)
        entry, verdict = shown.shown_entry(entry, secrets), shown.shown_verdict(verdict, secrets)
    attempts: tuple[AttemptRecord, ...] = ()
    if receipt.reused is None:  # what else is known of one that is reused is another run's
        billed = float(exact(entry.cost if cost is None else cost)) if with_costs else None
        attempts = (_only_attempt(receipt, verdict.sentence, cost, billed),)
    return EntryRecord(
        entry=entry,
        line=line.number,
        verdict=verdict,
        outcome="passed",
        receipt=receipt,
        attempts=attempts,
        error_place=None if receipt.error is None else error_place(receipt.error.traceback),
        reused_from=None
        if receipt.reused is None
        else Origin(receipt.run, receipt.entry, receipt.attempt, receipt.task_id),
    )


def _only_attempt(
    receipt: Receipt, sentence: str, cost: float | None, billed: float | None
) -> AttemptRecord:
    return AttemptRecord(
        number=receipt.attempt,
        task_id=receipt.task_id,
        kind="passed",
        sentence=sentence,
        reason=None,
        sent_at=receipt.sent_at,
        received_at=receipt.received_at,
        started_at=receipt.started_at,
        finished_at=receipt.finished_at,
        wait=receipt.wait,
        runtime=receipt.runtime,
        worker=receipt.worker,
        host=receipt.host,
        pid=receipt.pid,
        executions=receipt.executions,
        redelivered=receipt.redelivered,
        retries=receipt.retries,
        cost=cost,
        billed_cost=billed,
        queue=receipt.queue,
    )


def _is_complete(receipt: Receipt) -> bool:
    """Return whether a receipt has all that attempts and starts would add.

    Of a task's retries those know more.
    """
    if receipt.state not in ("succeeded", "failed") or receipt.retries:
        return False
    moments = receipt.sent_at and receipt.started_at
    return bool(receipt.worker and moments and receipt.executions)


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
        entry, _ = id_and_task(raw)
        if known is None or entry in known:
            yield Line(number, raw, entry)


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
    starts: Sequence[Started],
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
    receipt: Receipt | None, starts: Sequence[Started], secrets: shown.Secrets
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
    number: int, start: Started | None, reported: Retried | None, secrets: shown.Secrets
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


def _wait(receipt: Receipt | None, row: AttemptRow, start: Started | None) -> float | None:
    if receipt is not None and receipt.wait is not None:
        return receipt.wait
    if receipt is not None or start is None or start.started_at is None or row.sent_at is None:
        return None
    return max((start.started_at - row.sent_at).total_seconds(), 0.0)


def _executions(starts: Sequence[Started]) -> int:
    """Return how often the same retry was started, as receipts count it."""
    by_retry: dict[int, int] = {}
    for start in starts:
        by_retry[start.retries] = by_retry.get(start.retries, 0) + 1
    return max(by_retry.values(), default=0)
