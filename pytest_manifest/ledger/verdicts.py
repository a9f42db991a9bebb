"""What the ledger knows of verdicts: on attempts, and on entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pytest_manifest.ledger.file import Database, chunks, placeholders
from pytest_manifest.ledger.rows import (
    EntryVerdict,
    Row,
    StoredVerdict,
    entry_verdict_of_row,
    text,
    utc_now,
)
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus

# Verdicts are long, so the one that stands is kept once, in `settled`. Before such a row goes, its
# attempt takes over what it said; a condition on the rows that go completes the statement.
_KEEP = """
    UPDATE attempts SET (kind, verdict) = (
        SELECT s.kind, s.verdict FROM settled s
        WHERE s.entry = attempts.entry AND s.attempt = attempts.attempt
    )
    WHERE (entry, attempt) IN (SELECT entry, attempt FROM settled WHERE """

_COLUMNS = "INTO settled (entry, attempt, kind, verdict, receipt, settled_at) VALUES "
_INSERT = f"INSERT {_COLUMNS} (?, ?, ?, ?, ?, ?)"
_REPLACE = f"INSERT OR REPLACE {_COLUMNS} (?, ?, ?, ?, ?, ?)"
_STORED_VERDICTS = """
    SELECT s.entry, s.seq, s.kind, s.attempt, s.verdict, s.receipt,
        (SELECT count(*) FROM attempts a WHERE a.entry = s.entry),
        (SELECT a.task_id FROM attempts a WHERE a.entry = s.entry AND a.attempt = s.attempt)
    FROM settled s WHERE s.seq >= (SELECT seq FROM settled WHERE entry = ?) ORDER BY s.seq LIMIT ?
"""


class Verdicts(Database):
    """Verdicts; an entry that has one is settled."""

    def record_verdicts(self, verdicts: Iterable[tuple[Verdict, Receipt | None]]) -> None:
        """Record the verdicts of entries; an earlier verdict of the same entry is replaced.

        The attempt that a verdict is about is judged by it too.
        """
        now = text(utc_now())
        rows = [self._row(verdict, receipt, now) for verdict, receipt in verdicts]
        with self._writing() as db:
            if self._are_new([row[0] for row in rows]):
                db.executemany(_INSERT, rows)
                return
            for row in rows:
                db.execute(_KEEP + "entry = ? AND attempt IS NOT ?)", row[:2])
                db.execute(_REPLACE, row)

    def _row(self, verdict: Verdict, receipt: Receipt | None, now: str | None) -> Row:
        received = None if receipt is None else self._receipt_text(receipt)
        kind, document = verdict.verdict, verdict.model_dump_json()
        return verdict.entry, verdict.attempt, kind, document, received, now

    def _are_new(self, entries: Sequence[str]) -> bool:
        """Whether these are different entries, and none of them has a verdict yet."""
        if len(set(entries)) < len(entries):
            return False
        for some in chunks(entries):
            query = f"SELECT 1 FROM settled WHERE entry IN ({placeholders(some)}) LIMIT 1"  # noqa: S608 - question marks
            if self._read_one(query, some) is not None:
                return False
        return True

    def end_attempt(self, task_id: str, verdict: Verdict) -> None:
        """Record the verdict on an attempt that another one follows; the entry stays open."""
        with self._writing() as db:
            db.execute(
                "UPDATE attempts SET kind = ?, verdict = ? WHERE task_id = ?",
                (verdict.verdict, verdict.model_dump_json(), task_id),
            )
            # Where the entry has a verdict on this attempt, that is no longer the attempt's last.
            db.execute(
                "UPDATE settled SET attempt = NULL WHERE (entry, attempt) = "
                "(SELECT entry, attempt FROM attempts WHERE task_id = ?)",
                (task_id,),
            )

    def reopen_not_final(self, entries: Iterable[str]) -> None:
        """Take back the verdicts of these entries that a new look at the stack may change."""
        kinds = self.statuses()
        self.reopen([one for one in entries if kinds.get(one) in ("pending", "unknown")])

    def reopen(self, entries: Iterable[str] | None = None) -> None:
        """Take back the verdicts of these entries, or all that a new look at the stack may change.

        What was said of their attempts stays.
        """
        with self._writing() as db:
            if entries is None:
                db.execute(_KEEP + "kind IN ('pending', 'unknown'))")
                db.execute("DELETE FROM settled WHERE kind IN ('pending', 'unknown')")
            else:
                for entry in entries:
                    db.execute(_KEEP + "entry = ?)", (entry,))
                    db.execute("DELETE FROM settled WHERE entry = ?", (entry,))

    def verdicts_since(self, seq: int) -> list[tuple[int, str]]:
        """``(seq, entry)`` of what settled after ``seq``, in order."""
        rows = self._read("SELECT seq, entry FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        return [(int(row[0]), str(row[1])) for row in rows]

    def statuses_since(self, seq: int) -> list[tuple[int, str, VerdictStatus]]:
        """``(seq, entry, kind of verdict)`` of what settled after ``seq``, in order."""
        return list(
            self._read("SELECT seq, entry, kind FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        )

    def entry_verdict(self, entry: str) -> EntryVerdict | None:
        query = "SELECT seq, verdict, receipt FROM settled WHERE entry = ?"
        return next(self._each(entry_verdict_of_row, query, (entry,)), None)

    def stored_verdicts_from(self, entry: str, number: int) -> Iterator[tuple[str, StoredVerdict]]:
        """An entry's verdict and those of the entries that settled next, so many in all.

        As :meth:`settled`, by entry, with nothing parsed, and with what tests report of the
        attempts. Nothing where the entry has no verdict.
        """
        for of, *row in self._read(_STORED_VERDICTS, (entry, number)):
            yield of, StoredVerdict(*row)

    def statuses(self) -> dict[str, VerdictStatus]:
        """The kind of verdict of every entry that is settled, by its id."""
        return {entry: kind for entry, kind in self._read("SELECT entry, kind FROM settled")}  # noqa: C416

    def has_verdict_without_receipt(self) -> bool:
        """Whether some entry that was sent has a final verdict and no receipt."""
        query = """
            SELECT 1 FROM settled s JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
            WHERE s.receipt IS NULL AND a.state NOT IN ('planned', 'withheld') LIMIT 1
        """
        return self._read_one(query) is not None

    def verdict_counts(self) -> Mapping[str, int]:
        rows = self._read("SELECT kind, count(*) FROM settled GROUP BY kind")
        return {kind: int(count) for kind, count in rows}
