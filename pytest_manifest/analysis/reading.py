"""A run's ledger and manifest read side by side, entry by entry, in flat memory."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from decimal import Decimal
from itertools import islice

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, Outcome, TryRecord
from pytest_manifest.analysis.stored import Line, stored_record
from pytest_manifest.ledger import AttemptRow, History, Ledger, Start
from pytest_manifest.ledger.queries import StoredEntry
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.schema import Entry, Receipt, Retried, VerdictStatus, actual_cost
from pytest_manifest.verdict import Costs, outcome, printable
from pytest_manifest.verdict.explanation import task_traceback

_FRAME = re.compile(r'  File "([^"]*)", line (\d+)(?:, in (.*))?')
_BEGIN = "Traceback (most recent call last):"
_GROUP = re.compile(r"^ *[|+][-+]* ?")
"""What stands before each line of an exception group's traceback."""
_NAME_LIMIT = 80
_AT_ONCE = 64
"""Entries that are read together."""
_FEW = 4
"""Of a run of less than one in so many entries these are known beforehand."""
_ODD_LIMIT = 100_000
"""Attempts out of the ordinary that are kept in mind (some 150 bytes each)."""


def read_records(ledger: Ledger, manifest: Manifest) -> Generator[EntryRecord, None, None]:
    """The run's entries in the manifest's order; those that the manifest has no more are left out.

    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    charges = Costs(ledger, manifest) if ledger.has_costs() else None
    odd = ledger.unusual_attempts(_ODD_LIMIT, executions=charges is not None)
    lines = _lines(ledger, manifest)
    while some := list(islice(lines, _AT_ONCE)):
        standing = ledger.stored_entries(line.entry for line in some)
        records = [
            None if odd is None else _stored(manifest, line, stands, odd, charges)
            for line, stands in zip(some, standing, strict=True)
        ]
        left = [line.entry for line, record in zip(some, records, strict=True) if record is None]
        histories = ledger.histories(left) if left else {}
        for line, record in zip(some, records, strict=True):
            if record is not None:
                yield record
            elif (history := histories.pop(line.entry, None)) is not None:
                entry = manifest.parse(line.raw, line.number)
                yield _record(entry, line.number, history, charges)


def _stored(
    manifest: Manifest,
    line: Line,
    stands: StoredEntry,
    odd: frozenset[str],
    charges: Costs | None,
) -> EntryRecord | None:
    """The record of an entry that simply passed; None of any other."""
    if stands.status != "passed" or stands.verdict is None or stands.receipt is None:
        return None
    charged = charges is not None
    return stored_record(manifest, line, stands.verdict, stands.receipt, odd, charged=charged)


def read_some(ledger: Ledger | None, manifest: Manifest, ids: Sequence[str]) -> list[EntryRecord]:
    """The records of these entries, without what the run's account has for their attempts.

    Of an entry that the ledger does not have, or where there is none, only the entry is known.
    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    histories = {} if ledger is None else ledger.histories(ids)
    return [
        _record(entry, manifest.line_of(entry.id), histories.get(entry.id, History()), None)
        for entry in manifest.some(ids)
    ]


def _lines(ledger: Ledger, manifest: Manifest) -> Iterator[Line]:
    """The lines of entries that may be of the run."""
    small = ledger.count_entries() * _FEW < len(manifest)
    known = frozenset(ledger.sent_entries()) if small else None
    with manifest.open() as file:
        for number, raw in enumerate(file, manifest.first_line):
            entry, task = id_and_task(raw)
            if known is None or entry in known:
                yield Line(number, raw, entry, task)


def _record(entry: Entry, line: int, history: History, charges: Costs | None) -> EntryRecord:
    settled = history.verdict
    verdict = None if settled is None else settled.verdict
    receipt = None if settled is None else settled.receipt
    judged = None if verdict is None else verdict.attempt
    attempts = tuple(
        _attempt(
            row,
            receipt if row.attempt == judged else _received(row, history),
            history.starts.get(row.task_id, ()),
            None if charges is None else charges.of(row.task_id),
        )
        for row in history.attempts
    )
    error = None if receipt is None else receipt.error
    return EntryRecord(
        entry=entry,
        line=line,
        verdict=verdict,
        outcome=outcome_of(None if verdict is None else verdict.verdict),
        receipt=receipt,
        attempts=attempts,
        error_place=None if error is None else error_place(error.traceback),
    )


def outcome_of(kind: VerdictStatus | None) -> Outcome:
    """How pytest shows a verdict of this kind; what has none yet is pending."""
    return "pending" if kind in (None, "pending") else outcome(kind)


def _received(row: AttemptRow, history: History) -> Receipt | None:
    """The last receipt that came for an attempt and speaks of it."""
    ours = (row.entry, row.attempt, row.task_id)
    for receipt in reversed(history.receipts.get(row.task_id, ())):
        if (receipt.entry, receipt.attempt, receipt.task_id) == ours:
            return receipt
    return None


def _attempt(
    row: AttemptRow, receipt: Receipt | None, starts: Sequence[Start], charge: Decimal | None
) -> AttemptRecord:
    told = None if receipt is None else actual_cost(receipt)
    if row.status == "forged":
        receipt = None  # what it says of times and places is not to be believed
    start = starts[-1] if starts else None
    place = receipt if receipt is not None and receipt.worker else start or receipt
    began = None if receipt is None else receipt.started_at
    if began is None and start is not None:
        began = start.started_at
    retries = max((one.retries for one in starts), default=0)
    return AttemptRecord(
        number=row.attempt,
        task_id=row.task_id,
        kind=row.status,
        sentence=None if row.verdict is None else row.verdict.sentence,
        reason=row.reason,
        sent_at=row.sent_at or (None if receipt is None else receipt.sent_at),
        received_at=None if receipt is None else receipt.received_at,
        started_at=began,
        finished_at=None if receipt is None else receipt.finished_at,
        wait=_wait(receipt, row, start),
        # Of a job whose process died only the moment is known in which that was noticed.
        runtime=None if receipt is None or receipt.state == "crashed" else receipt.runtime,
        worker=None if place is None else place.worker,
        host=None if place is None else place.host,
        pid=None if place is None else place.pid,
        executions=max(0 if receipt is None else receipt.executions, _executions(starts)),
        redelivered=any(one.redelivered for one in (receipt, *starts) if one is not None),
        retries=retries if receipt is None else max(receipt.retries, retries),
        cost=told,
        charge=None if charge is None else float(charge),
        queue=None if receipt is None else receipt.queue,
        tries=_tries(receipt, starts) if retries or (receipt and receipt.retries) else (),
    )


def _tries(receipt: Receipt | None, starts: Sequence[Start]) -> tuple[TryRecord, ...]:
    """The tries before the last one, as far as starts or the receipt tell of them."""
    last = max([one.retries for one in starts] + ([] if receipt is None else [receipt.retries]))
    begun = {one.retries: one for one in starts}
    told = {} if receipt is None else {one.retries: one for one in receipt.retried}
    return tuple(
        _try(number, begun.get(number), told.get(number))
        for number in sorted(begun.keys() | told.keys())
        if number < last
    )


def _try(number: int, start: Start | None, told: Retried | None) -> TryRecord:
    error = None if told is None else told.error
    began = None if told is None else told.started_at
    return TryRecord(
        retries=number,
        started_at=began if start is None or began is not None else start.started_at,
        ended_at=None if told is None else told.ended_at,
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
    """How often it was begun for the same retry number, as receipts count it."""
    by_retry: dict[int, int] = {}
    for start in starts:
        by_retry[start.retries] = by_retry.get(start.retries, 0) + 1
    return max(by_retry.values(), default=0)


def error_place(traceback: str | None) -> str | None:
    """The last frame of a traceback, Celery's and our own left out, like ``jobs.py:12 in charge``.

    What looks like a frame in an error's message is none. None where there is no frame.
    """
    if not traceback:
        return None
    group = "Exception Group Traceback" in traceback
    place, inside = None, False
    for raw in task_traceback(printable(traceback)):
        line = _GROUP.sub("", raw) if group else raw
        if line.endswith(_BEGIN):
            inside = True
        elif inside and (frame := _FRAME.match(line)) is not None:
            place = _shown(frame)
        elif inside and line and not line.startswith("  "):
            inside = False
    return place


def _shown(frame: re.Match[str]) -> str:
    name = re.split(r"[/\\]", frame[1])[-1][-_NAME_LIMIT:]
    within = f" in {frame[3][:_NAME_LIMIT]}" if frame[3] else ""
    return f"{name}:{frame[2]}{within}"
