"""Record verdicts on attempts and on entries, and check them for contradictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import JsonValue

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.facts import OF_ENTRY, Facts, Owned
from pytest_manifest.ledger.rows import (
    EntryVerdict,
    Row,
    StoredVerdict,
    entry_verdict_of_row,
    moment,
    text,
    utc_now,
)
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Kind, TakenUp
from pytest_manifest.schema.statuses import OPEN

Reason: TypeAlias = Literal["resume", "audit", "keys"]
"""Why a verdict is taken back."""

# Verdicts are long, so an entry's present one is stored once, in `settled`. Before such a row is
# deleted, it is copied to its attempt; a condition on those rows completes the statement.
_KEEP = """
    UPDATE attempts SET (kind, verdict) = (
        SELECT s.kind, s.verdict FROM settled s
        WHERE s.entry = attempts.entry AND s.attempt = attempts.attempt
    )
    WHERE (entry, attempt) IN (SELECT entry, attempt FROM settled WHERE """

_COLUMNS = "INTO settled (seq, entry, attempt, kind, verdict, receipt, settled_at) VALUES "
_INSERT = f"INSERT {_COLUMNS} (?, ?, ?, ?, ?, ?, ?)"
_REPLACE = f"INSERT OR REPLACE {_COLUMNS} (?, ?, ?, ?, ?, ?, ?)"
_STORED_VERDICTS = """
    SELECT s.entry, s.seq, s.kind, s.attempt, s.verdict, s.receipt,
        (SELECT count(*) FROM attempts a WHERE a.entry = s.entry AND a.state <> 'reused'),
        (SELECT a.task_id FROM attempts a WHERE a.entry = s.entry AND a.attempt = s.attempt)
    FROM settled s WHERE s.seq >= (SELECT seq FROM settled WHERE entry = ?) ORDER BY s.seq LIMIT ?
"""
# Each row of `settled` must agree with its document, and its receipt, except for what start
# records add to it, must be one that arrived. SQLite checks a row in a few microseconds; validating
# each row by a model is left to an audit.
_REASONS: Final = """
    SELECT entry, seq, kind, json_extract(verdict, '$.reason') FROM settled WHERE entry IN ({})
"""
_JUDGED_JOBS: Final = """
    SELECT s.entry, a.task_id, s.kind FROM settled s JOIN attempts a ON a.entry = s.entry
    WHERE a.attempt = coalesce(
        s.attempt, (SELECT max(b.attempt) FROM attempts b WHERE b.entry = s.entry)
    )
"""
_MISMATCH: Final = """
    SELECT entry, kind, json_extract(verdict, '$.verdict') FROM settled
    WHERE kind IS NOT json_extract(verdict, '$.verdict')
        OR entry IS NOT json_extract(verdict, '$.entry')
    LIMIT 1
"""
_SAME: Final = " AND ".join(
    f"json_extract(r.receipt, '$.{field}') IS json_extract(s.receipt, '$.{field}')"
    for field in ("entry", "state", "result", "error")
)
# Of an end that did not count when it was reported there is a fact alone.
_SAME_FACT: Final = " AND ".join(
    f"json_extract(f.data, '$.receipt.{field}') IS json_extract(s.receipt, '$.{field}')"
    for field in ("entry", "state", "result", "error.type", "error.message")
)
_UNKNOWN_RECEIPT: Final = f"""
    SELECT s.entry FROM settled s WHERE s.receipt IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM attempts a JOIN receipts r ON r.task_id = a.task_id
        WHERE a.entry = s.entry AND (r.receipt = s.receipt OR {_SAME})
    ) AND NOT EXISTS (
        SELECT 1 FROM facts f JOIN numbers e ON e.n = f.entry
        WHERE e.kind = {OF_ENTRY} AND e.name = s.entry
            AND f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d}) AND {_SAME_FACT}
    )
    LIMIT 1
"""  # noqa: S608 - fixed text
_ADVICE: Final = (
    "it was changed from outside, so it is not used; restore it from a copy, or judge what was "
    "exported beside it by --manifest-audit --manifest-receipts=FILE"
)


class StoredReason(NamedTuple):
    """A verdict's status and reason, which is empty where it has none, and its ``seq``."""

    seq: int
    status: VerdictStatus
    reason: Mapping[str, JsonValue]


class Verdicts(LedgerPart):
    """Verdicts of entries and attempts."""

    def record(self, verdicts: Iterable[tuple[Verdict, Receipt | None]]) -> None:
        """Record the verdicts of entries, replacing earlier ones of the same entries.

        A verdict also counts for the attempt that it is about.
        """
        now = text(utc_now())
        rows = [self._row(verdict, receipt, now) for verdict, receipt in verdicts]
        if not rows:
            return
        with self._db.writing() as db:
            numbered = enumerate(rows, self._db.take_seq(len(rows)))
            if self._are_new([row[0] for row in rows]):
                db.executemany(_INSERT, ((seq, *row) for seq, row in numbered))
                return
            for seq, row in numbered:
                db.execute(_KEEP + "entry = ? AND (attempt IS NOT ? OR kind <> ?))", row[:3])
                db.execute(_REPLACE, (seq, *row))

    def _row(self, verdict: Verdict, receipt: Receipt | None, now: str | None) -> Row:
        received = None if receipt is None else self._db.receipt_text(receipt)
        kind, document = verdict.verdict, verdict.model_dump_json()
        return verdict.entry, verdict.attempt, kind, document, received, now

    def _are_new(self, entries: Sequence[str]) -> bool:
        """Return whether these entries are distinct and none of them has a verdict yet."""
        if len(set(entries)) < len(entries):
            return False
        for some in chunks(entries):
            query = f"SELECT 1 FROM settled WHERE entry IN ({placeholders(some)}) LIMIT 1"  # noqa: S608 - question marks
            if self._db.read_one(query, some) is not None:
                return False
        return True

    def note_correction(self, entry: str, attempt: int | None, status: VerdictStatus) -> None:
        """Record that an entry's verdict, told already, is about to become one of this status."""
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
                "SELECT entry, ?, kind, ?, settled_at, ? FROM settled WHERE entry = ?",
                (attempt, status, text(utc_now()), entry),
            )

    def end_attempt(self, task_id: str, verdict: Verdict) -> None:
        """Record the verdict on an attempt that another one follows; the entry gets none."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE attempts SET kind = ?, verdict = ? WHERE task_id = ?",
                (verdict.verdict, verdict.model_dump_json(), task_id),
            )
            # A verdict that the entry has on this attempt is no longer the attempt's last one.
            db.execute(
                "UPDATE settled SET attempt = NULL WHERE (entry, attempt) = "
                "(SELECT entry, attempt FROM attempts WHERE task_id = ?)",
                (task_id,),
            )

    def reopen_not_final(self, entries: Iterable[str]) -> None:
        """Withdraw those verdicts of these entries that are not final."""
        kinds = self.statuses()
        self.reopen([one for one in entries if kinds.get(one) in OPEN])

    def reopen(self, entries: Iterable[str], *, why: Reason = "resume") -> None:
        """Withdraw the verdicts of these entries; those on their attempts stay.

        ``why`` is kept as a fact, but of an audit that looks again at what goes on: that takes
        nothing back.
        """
        entries = list(entries)
        with self._db.writing() as db:
            self._take_up(entries, why)
            for entry in entries:
                db.execute(_KEEP + "entry = ?)", (entry,))
                db.execute("DELETE FROM settled WHERE entry = ?", (entry,))

    def _take_up(self, entries: Sequence[str], why: Reason) -> None:
        """Record that what these verdicts are on is awaited again."""
        now, facts = utc_now(), list[Owned]()
        for some in chunks(entries):
            query = f"{_JUDGED_JOBS} AND s.entry IN ({placeholders(some)})"
            for entry, job, kind in self._db.read(query, some):
                if why == "resume" or kind != "pending":
                    facts.append((entry, TakenUp(seq=0, at=now, job=job, why=why)))
        Facts(self._db).append(facts)

    def since(self, seq: int) -> list[tuple[int, str]]:
        """Return ``(seq, entry)`` of the verdicts after ``seq``, in order."""
        rows = self._db.read("SELECT seq, entry FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        return [(int(row[0]), str(row[1])) for row in rows]

    def statuses_since(self, seq: int) -> list[tuple[int, str, VerdictStatus]]:
        """Return ``(seq, entry, status)`` of the verdicts after ``seq``, in order."""
        return list(
            self._db.read("SELECT seq, entry, kind FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        )

    def of_entry(self, entry: str) -> EntryVerdict | None:
        query = "SELECT seq, verdict, receipt FROM settled WHERE entry = ?"
        return next(self._db.build_each(entry_verdict_of_row, query, (entry,)), None)

    def moment_of(self, entry: str) -> datetime | None:
        """Return when an entry's verdict was recorded; None where it has none."""
        query = "SELECT settled_at FROM settled WHERE entry = ?"
        return next(self._db.build_each(lambda row: moment(row[0]), query, (entry,)), None)

    def stored_from(self, entry: str, number: int) -> Iterator[tuple[str, StoredVerdict]]:
        """Yield ``number`` verdicts by entry: this entry's and those that came next, unparsed.

        Yields nothing where the entry has no verdict.
        """
        for of, *row in self._db.read(_STORED_VERDICTS, (entry, number)):
            yield of, StoredVerdict(*row)

    def reasons(self, entries: Sequence[str]) -> dict[str, StoredReason]:
        """Return status and reason of those of these entries that have a verdict."""
        rows = list(self._db.read(_REASONS.format(placeholders(entries)), entries))
        with self._db.parse_errors():
            return {
                entry: StoredReason(seq, kind, json.loads(reason) if reason else {})
                for entry, seq, kind, reason in rows
            }

    def statuses(self) -> dict[str, VerdictStatus]:
        """Return the verdict's status of every entry that has one, by entry."""
        return {entry: kind for entry, kind in self._db.read("SELECT entry, kind FROM settled")}  # noqa: C416

    def any_without_receipt(self) -> bool:
        """Return whether some entry that was sent has a final verdict without a receipt."""
        query = """
            SELECT 1 FROM settled s JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
            WHERE s.receipt IS NULL AND a.state NOT IN ('planned', 'withheld') LIMIT 1
        """
        return self._db.read_one(query) is not None

    def counts(self) -> Mapping[VerdictStatus, int]:
        rows = self._db.read("SELECT kind, count(*) FROM settled GROUP BY kind")
        return {kind: int(count) for kind, count in rows}

    def refuse_contradictions(self) -> None:
        """Raise LedgerError where a verdict differs from its row, or its receipt never arrived."""
        row = self._db.read_one(_MISMATCH)
        if row is not None:
            entry, kind, said = row
            raise LedgerError(
                f"{self._db.path}: the ledger is not consistent: entry {entry!r} is recorded as "
                f"{kind}, and its verdict says {said}; {_ADVICE}"
            )
        row = self._db.read_one(_UNKNOWN_RECEIPT)
        if row is not None:
            raise LedgerError(
                f"{self._db.path}: the ledger is not consistent: entry {row[0]!r} was judged by a "
                f"receipt that it does not have; {_ADVICE}"
            )
