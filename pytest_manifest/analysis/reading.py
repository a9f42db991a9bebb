"""Read a run's ledger and manifest side by side, entry by entry, in constant memory.

Of an entry that simply passed the verdict and its receipt say all, and the ledger's other tables,
which take five times as long, are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice

from pytest_manifest.analysis.dispositions import ACCEPTANCE, Judge
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, Origin, TryRecord
from pytest_manifest.ledger import AttemptRow, Ledger
from pytest_manifest.ledger.rows import EntryVerdict, receipt_of
from pytest_manifest.ledger.verdicts import History, StoredEntry
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.manifest.jsonl import Line
from pytest_manifest.schema import Entry, Receipt, Verdict, exact, shown
from pytest_manifest.schema.facts import Reused, Started
from pytest_manifest.schema.receipts import Retried, actual_cost
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.verdict.explanation import error_place
from pytest_manifest.verdict.judging import Costs

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
    accepts = _accepts(ledger)
    with ledger.parse_errors():
        costs = Costs(ledger, manifest) if ledger.queries.has_costs() else None
        unusual = ledger.queries.unusual_attempts(_UNUSUAL_LIMIT, executions=costs is not None)
        lines = _lines(ledger, manifest)
        while some := list(islice(lines, _AT_ONCE)):
            usual: dict[str, History] = {}
            plain: set[str] = set()
            if unusual is not None:
                stored = ledger.queries.stored_entries(name for name, _ in some)
                for (name, line), one in zip(some, stored, strict=True):
                    if (simple := _usual(one, unusual)) is not None:
                        usual[name] = simple
                        if not shown.may_hold_secret(f"{one.receipt}{line.raw.decode()}"):
                            plain.add(name)
            left = [name for name, _ in some if name not in usual]
            histories = usual | (ledger.queries.histories(left) if left else {})
            for name, line in some:
                if (history := histories.pop(name, None)) is not None:
                    entry = manifest.parse(line.raw)
                    hides, bill = name not in plain, None if costs is None else costs.of
                    if bill is not None and name in usual:
                        bill = partial(_usual_bill, entry, history)
                    yield _record(entry, line.number, history, bill, accepts, hides=hides)


def _usual(stored: StoredEntry, unusual: Container[str]) -> History | None:
    """Return the history of an entry that simply passed; None where other tables say more of it.

    ``unusual``: task ids of which they say more than the receipt.
    """
    if stored.status != "passed" or stored.verdict is None or stored.receipt is None:
        return None
    receipt = receipt_of(stored.receipt)
    by = receipt.reused
    if by is None and (receipt.task_id in unusual or not _is_complete(receipt)):
        return None
    verdict = Verdict.model_validate_json(stored.verdict)
    row = AttemptRow(
        task_id=receipt.task_id,
        entry=stored.entry,
        attempt=receipt.attempt if verdict.attempt is None else verdict.attempt,
        position=0,
        state="sent",
        sent_at=receipt.sent_at,
        note=None,
        status="passed",
        verdict=verdict,
        reused_from=None
        if by is None
        else Reused(
            run=receipt.run, entry=receipt.entry, attempt=receipt.attempt, by=by.run, at=by.at
        ),
    )
    return History([row], EntryVerdict(0, verdict, receipt))


def _usual_bill(entry: Entry, history: History, _task_id: str) -> Decimal:
    receipt = None if history.verdict is None else history.verdict.receipt
    cost = None if receipt is None else actual_cost(receipt)
    return exact(entry.cost if cost is None else cost)


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
    accepts, none = None if ledger is None else _accepts(ledger), History()
    return [
        _record(entry, manifest.line_of(entry.id), histories.get(entry.id, none), None, accepts)
        for entry in manifest.some(ids)
    ]


def _accepts(ledger: Ledger) -> Judge | None:
    return ACCEPTANCE.now.of_manifest(ledger.info.read().manifest)


def _lines(ledger: Ledger, manifest: Manifest) -> Iterator[tuple[str, Line]]:
    """Yield the entries that may be of the run, each with its line of the manifest."""
    small = ledger.attempts.count_entries() * _FEW < len(manifest)
    known = frozenset(ledger.queries.sent_entries()) if small else None
    for line in manifest.lines():
        entry, _ = id_and_task(line.raw)
        if known is None or entry in known:
            yield entry, line


def _record(
    entry: Entry,
    line: int,
    history: History,
    bill: Callable[[str], Decimal | None] | None,
    accepts: Judge | None = None,
    *,
    hides: bool = True,
) -> EntryRecord:
    """Make the record of an entry; ``hides``: it may have secrets, else nothing is looked for."""
    found = history.verdict
    verdict, receipt = (None, None) if found is None else (found.verdict, found.receipt)
    secrets = shown.secrets_of(entry, receipt) if hides else None
    decided = None if verdict is None else verdict.attempt
    attempts, reused = list[AttemptRecord](), None
    for row in history.attempts:
        if row.reused_from is None:
            own = receipt if row.attempt == decided else _received(row, history)
            starts = history.starts.get(row.task_id, ())
            billed = None if bill is None else bill(row.task_id)
            attempts.append(_attempt(row, own, starts, billed, secrets))
        elif row.attempt == decided:
            origin = row.reused_from
            reused = Origin(origin.run, origin.entry, origin.attempt, row.task_id)
    if secrets is not None:
        entry = shown.shown_entry(entry, secrets)
        verdict = None if verdict is None else shown.shown_verdict(verdict, secrets)
        receipt = None if receipt is None else shown.shown_receipt(receipt, secrets)
    error = None if receipt is None else receipt.error
    outcome, accepted = outcome_of(None if verdict is None else verdict.verdict), None
    if accepts is not None and verdict is not None and outcome == "failed":
        accepted = accepts(entry, verdict, receipt)
        outcome = "skipped" if accepted is not None and not accepted.is_over else outcome
    return EntryRecord(
        entry=entry,
        line=line,
        verdict=verdict,
        outcome=outcome,
        accepted=accepted,
        receipt=receipt,
        attempts=tuple(attempts),
        error_place=None if error is None else error_place(error.traceback),
        reused_from=reused,
    )


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
    secrets: shown.Secrets | None,
) -> AttemptRecord:
    reported = None if receipt is None else actual_cost(receipt)
    if row.status == "forged":
        receipt = None  # its times and places are not credible
    start = starts[-1] if starts else None
    origin = receipt if receipt is not None and receipt.worker else start or receipt
    started = None if receipt is None else receipt.started_at
    if started is None and start is not None:
        started = start.started_at
    retries, executions, redelivered = _counted(starts, receipt)
    sentence = None if row.verdict is None else row.verdict.sentence
    if sentence is not None and secrets is not None:
        sentence = shown.shown_text(sentence, secrets)
    return AttemptRecord(
        number=row.attempt,
        task_id=row.task_id,
        kind=row.status,
        sentence=sentence,
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
        executions=executions,
        redelivered=redelivered,
        retries=retries,
        cost=reported,
        billed_cost=None if billed_cost is None else float(billed_cost),
        queue=None if receipt is None else receipt.queue,
        tries=_tries(receipt, starts, secrets) if retries else (),
    )


def _counted(starts: Sequence[Started], receipt: Receipt | None) -> tuple[int, int, bool]:
    """Return how often it was retried and executed, and whether it was delivered again."""
    retries, executions, redelivered = 0, 0, False
    if starts:
        retries = max(one.retries for one in starts)
        # How often the same retry was started, as receipts count it.
        executions = max(Counter(one.retries for one in starts).values())
        redelivered = any(one.redelivered for one in starts)
    if receipt is not None:
        retries = max(receipt.retries, retries)
        executions = max(receipt.executions, executions)
        redelivered = receipt.redelivered or redelivered
    return retries, executions, redelivered


def _tries(
    receipt: Receipt | None, starts: Sequence[Started], secrets: shown.Secrets | None
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
    number: int, start: Started | None, reported: Retried | None, secrets: shown.Secrets | None
) -> TryRecord:
    error = None if reported is None else reported.error
    if secrets is not None:
        error = shown.shown_error(error, secrets)
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
