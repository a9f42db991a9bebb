"""Record verdicts on attempts and on entries, and check them for contradictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import JsonValue

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import Database, LedgerPart
from pytest_manifest.ledger.facts import Facts, Owned
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Kind, TakenUp
from pytest_manifest.schema.statuses import OPEN

Reason: TypeAlias = Literal["resume", "audit", "keys"]
"""Why a verdict is taken back."""

_RECORD: Final = """
    INSERT INTO verdicts (seq, entry, job, status, at, corrects, "end", added, verdict)
    SELECT ?, a.entry, a.n, ?, ?, ?, ?, ?, ? FROM jobs a WHERE a.name = ? AND a.attempt =
        coalesce(?, (SELECT max(b.attempt) FROM jobs b WHERE b.name = a.name))
    LIMIT 1
"""
_END_ALONE: Final = """
    INSERT INTO verdicts (seq, entry, job, alone, status, at, "end", added, verdict)
    SELECT ?, a.entry, a.n, 1, ?, ?, ?, ?, ? FROM jobs a WHERE a.id = ?
"""
_TAKE_UP: Final = """
    INSERT INTO verdicts (seq, entry, job, at) SELECT ?, s.number, s.job, ? FROM settled s
    WHERE s.entry = ?
"""
_PRESENT: Final = "SELECT seq FROM settled WHERE entry = ?"
_ENDS: Final = f"""
    SELECT f.seq, f.receipt FROM facts f
    WHERE f.job = (SELECT n FROM jobs WHERE name = ? AND attempt IS ?)
        AND f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d}) AND f.receipt IS NOT NULL
    ORDER BY f.aside DESC, f.seq
"""  # noqa: S608 - fixed text
ADDED: Final = frozenset(
    {
        *("executions", "redelivered", "started_at", "wait", "worker", "host", "pid"),
        *("signature", "reused", "retries", "replaced"),
    }
)
"""Fields of a receipt that the starts of its job, or its reuse, may have filled in or struck."""
_ADDED: Final = ", ".join(f"'{name}'" for name in sorted(ADDED))
_STORED_VERDICTS = """
    SELECT s.entry, s.seq, s.kind, s.attempt, s.verdict, s.receipt,
        (SELECT count(*) FROM jobs a WHERE a.entry = s.number AND a.name IS NOT NULL
            AND a.state <> 'reused'),
        (SELECT a.id FROM jobs a WHERE a.n = s.job)
    FROM settled s WHERE s.seq >= (SELECT seq FROM settled WHERE entry = ?) ORDER BY s.seq LIMIT ?
"""
# Each row of `settled` must agree with its document, and its receipt, except for what start
# records add to it, must be one that arrived. SQLite checks a row in a few microseconds; validating
# each row by a model is left to an audit.
_REASONS: Final = """
    SELECT entry, seq, kind, json_extract(verdict, '$.reason') FROM settled WHERE entry IN ({})
"""
_JUDGED_JOBS: Final = """
    SELECT s.entry, a.id, s.kind FROM settled s JOIN jobs a ON a.n = s.job WHERE s.entry IN ({})
"""
_MISMATCH: Final = """
    SELECT entry, kind, json_extract(verdict, '$.verdict') FROM settled
    WHERE kind IS NOT json_extract(verdict, '$.verdict')
        OR entry IS NOT json_extract(verdict, '$.entry')
    LIMIT 1
"""
_ADVICE: Final = (
    "it was changed from outside, so it is not used; restore it from a copy, or judge what was "
    "exported beside it by --manifest-audit --manifest-receipts=FILE"
)


_UNKNOWN_RECEIPT: Final = f"""
    SELECT s.entry FROM settled s WHERE (s."end" IS NOT NULL OR s.added IS NOT NULL) AND (
        NOT EXISTS (
            SELECT 1 FROM facts f JOIN jobs j ON j.n = f.job WHERE f.seq = s."end"
                AND j.entry = s.number AND f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d})
        ) OR EXISTS (SELECT 1 FROM json_each(s.added) a WHERE a.key NOT IN ({_ADDED}))
    ) LIMIT 1
"""  # noqa: S608 - fixed text


class StoredReason(NamedTuple):
    """A verdict's status and reason, which is empty where it has none, and its ``seq``."""

    seq: int
    status: VerdictStatus
    reason: Mapping[str, JsonValue]


class Verdicts(LedgerPart):
    """Verdicts of entries and attempts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._corrected: dict[str, int] = {}
        """The verdicts that are about to be corrected, by entry."""

    def record(self, verdicts: Iterable[tuple[Verdict, Receipt | None]]) -> None:
        """Record the verdicts of entries; earlier ones of the same entries stay beside them.

        A verdict also counts for the attempt that it is about.
        """
        given = list(verdicts)
        if not given:
            return
        now = rows.microseconds(rows.utc_now())
        with self._db.writing() as db:
            values = [
                (
                    *(seq, one.verdict, now),
                    self._corrected.pop(one.entry, None),
                    *self._end(one, receipt),
                    *(one.model_dump_json(), one.entry, one.attempt),
                )
                for seq, (one, receipt) in enumerate(given, self._db.take_seq(len(given)))
            ]
            if db.executemany(_RECORD, values).rowcount < len(values):
                raise LedgerError(
                    f"{self._db.path}: a verdict is of an entry or an attempt that the ledger does "
                    f"not have; {_ADVICE}"
                )

    def _end(self, on: Verdict, receipt: Receipt | None) -> tuple[int | None, str | None]:
        """Return the number of the end that a receipt is, and what it has beside it, as JSON."""
        if receipt is None:
            return None, None
        found = _closest(receipt, self._db.ends_of(receipt.task_id))
        if found is None:
            ends = self._db.build_each(_end_of_row, _ENDS, (on.entry, on.attempt or 0))
            found = _closest(receipt, list(ends))
        if found is None:
            return None, receipt.model_dump_json()
        seq, names = found
        if not names:
            return seq, None
        if names == _EXECUTIONS:
            return seq, f'{{"executions":{receipt.executions}}}'
        return seq, receipt.model_dump_json(include=set(names))

    def note_correction(self, entry: str) -> None:
        """Note that the next verdict of an entry corrects the one that it has, as it was told."""
        row = self._db.read_one(_PRESENT, (entry,))
        if row is not None:
            self._corrected[entry] = int(row[0])

    def end_attempt(self, task_id: str, verdict: Verdict, receipt: Receipt | None = None) -> None:
        """Record the verdict on an attempt that another one follows; the entry gets none."""
        with self._db.writing() as db:
            db.execute(
                _END_ALONE,
                (
                    *(self._db.take_seq(), verdict.verdict, rows.microseconds(rows.utc_now())),
                    *self._end(verdict, receipt),
                    *(verdict.model_dump_json(), task_id),
                ),
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
            now, first = rows.microseconds(rows.utc_now()), self._db.take_seq(len(entries))
            db.executemany(_TAKE_UP, ((n, now, entry) for n, entry in enumerate(entries, first)))

    def _take_up(self, entries: Sequence[str], why: Reason) -> None:
        """Record that what these verdicts are on is awaited again."""
        now, facts = rows.utc_now(), list[Owned]()
        for entry, job, kind in self._db.of_each(_JUDGED_JOBS, entries):
            if why == "resume" or kind != "pending":
                facts.append((entry, TakenUp(seq=0, at=now, job=job, why=why)))
        Facts(self._db).append(facts)

    def since(self, seq: int) -> list[tuple[int, str, VerdictStatus]]:
        """Return ``(seq, entry, status)`` of the verdicts after ``seq``, in order."""
        return list(
            self._db.read("SELECT seq, entry, kind FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        )

    def of_entry(self, entry: str) -> rows.EntryVerdict | None:
        query = "SELECT seq, verdict, receipt FROM settled WHERE entry = ?"
        return next(self._db.build_each(rows.entry_verdict_of_row, query, (entry,)), None)

    def each(self, entry: str) -> Iterator[tuple[int, datetime, Verdict]]:
        """Yield all verdicts that an entry and its attempts ever had, in order, with their time."""
        query = """
            SELECT v.seq, v.at, v.verdict FROM verdicts v JOIN jobs a ON a.n = v.job
            WHERE a.name = ? AND v.status IS NOT NULL ORDER BY v.seq
        """
        for seq, at, text in self._db.read(query, (entry,)):
            with self._db.parse_errors():
                yield seq, rows.moment_of(at), Verdict.model_validate_json(text)

    def stored_from(self, entry: str, number: int) -> Iterator[tuple[str, rows.StoredVerdict]]:
        """Yield ``number`` verdicts by entry: this entry's and those that came next, unparsed.

        Yields nothing where the entry has no verdict.
        """
        for of, *row in self._db.read(_STORED_VERDICTS, (entry, number)):
            yield of, rows.StoredVerdict(*row)

    def reasons(self, entries: Sequence[str]) -> dict[str, StoredReason]:
        """Return status and reason of those of these entries that have a verdict."""
        given = list(self._db.of_each(_REASONS, entries))
        with self._db.parse_errors():
            return {
                entry: StoredReason(int(seq), kind, json.loads(reason) if reason else {})
                for entry, seq, kind, reason in given
            }

    def statuses(self) -> dict[str, VerdictStatus]:
        """Return the verdict's status of every entry that has one, by entry."""
        return {entry: kind for entry, kind in self._db.read("SELECT entry, kind FROM settled")}  # noqa: C416

    def any_without_receipt(self) -> bool:
        """Return whether some entry that was sent has a final verdict without a receipt."""
        query = """
            SELECT 1 FROM settled s JOIN jobs a ON a.n = s.job
            WHERE s.receipt IS NULL AND a.state NOT IN ('planned', 'withheld') LIMIT 1
        """
        return self._db.read_one(query) is not None

    def counts(self) -> Mapping[VerdictStatus, int]:
        given = self._db.read("SELECT kind, count(*) FROM settled GROUP BY kind")
        return {kind: int(count) for kind, count in given}

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


_EXECUTIONS: Final = ["executions"]


def _end_of_row(row: rows.Row) -> tuple[int, Receipt]:
    return int(row[0]), rows.receipt_of(row[1])


def _closest(
    receipt: Receipt, ends: Sequence[tuple[int, Receipt]]
) -> tuple[int, Sequence[str]] | None:
    """Return which of these ends a receipt is, and by which fields it differs; None: none."""
    found: tuple[int, Sequence[str]] | None = None
    mine = receipt.__dict__
    for seq, end in reversed(ends):
        if end is receipt:
            return seq, ()
        its, names = end.__dict__, list[str]()
        for name, one in mine.items():  # not by a comprehension, of which each step is a call
            if one is not its[name] and one != its[name]:
                names.append(name)
        if ADDED.issuperset(names) and (found is None or len(names) < len(found[1])):
            found = seq, names
    return found
