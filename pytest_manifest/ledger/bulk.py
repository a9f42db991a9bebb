"""What the ledger knows of many entries that are asked for at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from pytest_manifest.ledger.file import Built, Database
from pytest_manifest.ledger.rows import (
    EntryVerdict,
    Row,
    SendState,
    entry_verdict_of_row,
    text,
    utc_now,
)
from pytest_manifest.schema import Verdict, VerdictStatus

BATCH: Final = 500
"""Entries that are asked for in one statement."""

# SQLite goes through the left side of such a join as it stands, and looks up the right one for each
# row: so rows come in the order that was asked for, and none is read before its turn.
_REQUESTED = "FROM json_each(?) j LEFT JOIN settled s ON s.entry = j.value"
_RUNTIME = f"SELECT total(json_extract(s.receipt, '$.runtime')) {_REQUESTED}"
_NOT_PASSED = (
    f"SELECT j.value, s.seq, s.verdict, s.receipt {_REQUESTED} WHERE s.kind IS NOT 'passed'"
)

_PASSED = f"""
    SELECT s.entry, s.attempt, a.task_id, a.sent_at, s.receipt {_REQUESTED}
    JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt WHERE s.kind = 'passed'
"""

_FINAL = """
    SELECT (SELECT count(*) FROM settled WHERE kind NOT IN ('pending', 'unknown'))
        = (SELECT count(DISTINCT entry) FROM attempts)
"""
_VERDICTS = f"SELECT s.seq, s.verdict, s.receipt {_REQUESTED}"
_RECEIPT = f"SELECT s.receipt {_REQUESTED}"
# Of a manifest that was changed in the meantime, the newest attempt has the order.
_IN_ORDER = """
    SELECT a.entry FROM attempts a
    WHERE a.attempt = (SELECT max(b.attempt) FROM attempts b WHERE b.entry = a.entry)
    ORDER BY a.ordinal, a.entry
"""
_IDS = f"SELECT j.value {_REQUESTED} WHERE "
_WITHOUT_VERDICT = f"SELECT count(*) {_REQUESTED} WHERE s.seq IS NULL"

_STORED_ENTRIES = f"SELECT j.value, s.kind, s.verdict, s.receipt {_REQUESTED}"
_UNUSUAL = """
    SELECT task_id FROM attempts WHERE reason IS NOT NULL
        OR entry IN (SELECT entry FROM attempts WHERE attempt > 1)
    UNION SELECT task_id FROM starts GROUP BY task_id
        HAVING count(*) > 1 OR max(retries) > 0 OR max(redelivered) > 0 OR max(hop) > 0
    UNION SELECT task_id FROM receipts GROUP BY task_id HAVING count(*) > 1
"""
_OTHER_EXECUTION = """
    UNION SELECT r.task_id FROM receipts r JOIN starts s ON s.task_id = r.task_id
        WHERE s.execution <> r.execution
"""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """How an entry stands, as it is written in the ledger: JSON, None where there is nothing."""

    entry: str
    status: VerdictStatus | None
    verdict: str | None
    receipt: str | None


@dataclass(frozen=True, slots=True)
class StoredPass:
    """What is written of an entry that is said to have passed; ``receipt``: JSON, not read yet."""

    entry: str
    attempt: int
    task_id: str
    sent_at: str | None
    receipt: str | None


@dataclass(frozen=True, slots=True)
class ImportedEntry:
    """All that there is of an entry in a ledger that others have made the receipts of: its only
    attempt, the verdict, and, as JSON, the receipt that came and the one that was judged by."""

    task_id: str
    attempt: int
    position: int
    sent_at: datetime | None
    verdict: Verdict
    received: str | None
    verdict_receipt: str | None


class BulkQueries(Database):
    """Entries by their ids, in batches; memory does not grow with their number."""

    def not_passed(self, entries: Iterable[str]) -> Iterator[tuple[str, EntryVerdict | None]]:
        """Those of these entries that have not passed, in the order given; None: no verdict."""
        return self._built_in_batches(_entry_and_verdict, _NOT_PASSED, entries)

    def stored_entries(self, entries: Iterable[str]) -> Iterator[StoredEntry]:
        """Each of these entries, in the order given."""
        return (StoredEntry(*row) for row in self._in_batches(_STORED_ENTRIES, entries))

    def unusual_attempts(self, limit: int, *, executions: bool) -> frozenset[str] | None:
        """Task ids of attempts that are not an entry's only one, made for no particular reason,
        begun at most once, and with at most one receipt; None: more than ``limit``.

        ``executions``: also those whose receipt is of another execution than was begun.
        """
        query = f"{_UNUSUAL}{_OTHER_EXECUTION if executions else ''} LIMIT ?"
        found = frozenset(row[0] for row in self._read(query, (limit + 1,)))
        return found if len(found) <= limit else None

    def sent_entries(self) -> Iterator[str]:
        """The entries that have an attempt, in no order that means anything."""
        return (row[0] for row in self._read("SELECT DISTINCT entry FROM attempts"))

    def all_final(self) -> bool:
        """Whether every entry has a verdict that no later look will change."""
        row = self._read_one(_FINAL)
        return row is not None and bool(row[0])

    def ids_of_not_passed(self, entries: Iterable[str]) -> Iterator[str]:
        """Those of these entries that have not passed, also what has no verdict."""
        return (row[0] for row in self._in_batches(f"{_IDS} s.kind IS NOT 'passed'", entries))

    def stored_passes(self, entries: Iterable[str]) -> Iterator[StoredPass]:
        """Those of these entries that are said to have passed."""
        return (StoredPass(*row) for row in self._in_batches(_PASSED, entries))

    def ids_of_not_final(self, entries: Iterable[str]) -> Iterator[str]:
        """Those of these entries without a verdict, or with one that a later look may change."""
        query = f"{_IDS} s.kind IS NULL OR s.kind IN ('pending', 'unknown')"
        return (row[0] for row in self._in_batches(query, entries))

    def import_entries(self, passages: Sequence[ImportedEntry]) -> None:
        """Record entries of which nothing is recorded yet; one that has no receipt was not sent."""
        now = text(utc_now())
        with self._writing() as db:
            db.executemany(
                "INSERT INTO attempts (task_id, entry, attempt, ordinal, state, sent_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                map(_attempt_values, passages),
            )
            db.executemany(
                "INSERT INTO receipts (task_id, execution, receipt, arrived_at) "
                "VALUES (?, NULL, ?, ?)",
                ((p.task_id, p.received, now) for p in passages if p.received is not None),
            )
            db.executemany(
                "INSERT INTO settled (entry, attempt, kind, verdict, receipt, settled_at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                ((*_verdict_values(p.verdict), p.verdict_receipt, now) for p in passages),
            )

    def all_have_verdicts(self, entries: Iterable[str]) -> bool:
        """Whether each of these entries is settled."""
        return all(row[0] == 0 for row in self._in_batches(_WITHOUT_VERDICT, entries))

    def verdicts_after(self, seq: int) -> Iterator[tuple[int, str]]:
        """``(seq, entry)`` of what settled after ``seq``, in order, as it is asked for."""
        yield from self._read("SELECT seq, entry FROM settled WHERE seq > ? ORDER BY seq", (seq,))

    def all_verdicts(self) -> Iterator[EntryVerdict]:
        """Every entry's verdict and receipt, in the manifest's order."""
        found = self._built_in_batches(_verdict_or_none, _VERDICTS, self._in_order())
        return (settled for settled in found if settled is not None)

    def raw_receipts(self) -> Iterator[str]:
        """The receipts that entries were judged by, as JSON, in the manifest's order."""
        for (receipt,) in self._in_batches(_RECEIPT, self._in_order()):
            if receipt is not None:
                yield receipt

    def verdicts_version(self) -> str:
        """What changes whenever an entry's verdict, or the receipt that it was judged by, does."""
        row = self._read_one("SELECT count(*), max(seq) FROM settled")
        return "" if row is None else f"{row[0]}/{row[1]}"

    def _in_order(self) -> Iterator[str]:
        return (row[0] for row in self._read(_IN_ORDER))

    def runtime_of(self, entries: Iterable[str]) -> float:
        """What these entries' jobs ran by what their receipts say, together, in seconds."""
        return float(sum(row[0] for row in self._in_batches(_RUNTIME, entries)))

    def _in_batches(self, query: str, entries: Iterable[str]) -> Iterator[Row]:
        left = iter(entries)
        while some := list(islice(left, BATCH)):
            yield from self._read(query, (json.dumps(some, ensure_ascii=False),))

    def _built_in_batches(
        self, make: Callable[[Row], Built], query: str, entries: Iterable[str]
    ) -> Iterator[Built]:
        left = iter(entries)
        while some := list(islice(left, BATCH)):
            yield from self._each(make, query, (json.dumps(some, ensure_ascii=False),))


def _verdict_or_none(row: Row) -> EntryVerdict | None:
    return None if row[0] is None else entry_verdict_of_row(row)


def _entry_and_verdict(row: Row) -> tuple[str, EntryVerdict | None]:
    return row[0], _verdict_or_none(row[1:])


def _attempt_values(one: ImportedEntry) -> Row:
    state: SendState = "planned" if one.received is None else "sent"
    entry = one.verdict.entry
    return one.task_id, entry, one.attempt, one.position, state, text(one.sent_at)


def _verdict_values(verdict: Verdict) -> Row:
    return verdict.entry, verdict.attempt, verdict.verdict, verdict.model_dump_json()
