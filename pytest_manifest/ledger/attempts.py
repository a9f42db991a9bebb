"""Record attempts: planned, sent, withheld, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.rows import (
    AttemptRow,
    ReusedFrom,
    SendState,
    attempt_of_row,
    moment,
    text,
)
from pytest_manifest.ledger.tables import PRESENT
from pytest_manifest.schema.statuses import OPEN, in_sql

PlanRow: TypeAlias = tuple[str, str, int, int] | tuple[str, str, int, int, str | None]
"""``(task_id, entry, attempt, position)``, and the reason of an attempt that is not the first."""

ADD_ATTEMPT = """
    INSERT INTO jobs (
        n, id, name, attempt, position, state, reason, cause, sent_at, reused_from, seq, entry
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
        coalesce((SELECT entry FROM jobs WHERE name = ? LIMIT 1), ?))
    ON CONFLICT (id) DO UPDATE SET (
        name, attempt, position, state, reason, cause, sent_at, reused_from, seq, entry
    ) = (
        excluded.name, excluded.attempt, excluded.position, excluded.state, excluded.reason,
        excluded.cause, excluded.sent_at, excluded.reused_from, excluded.seq,
        CASE WHEN name IS NOT NULL OR how IS NOT NULL THEN NULL
            WHEN excluded.entry = excluded.n THEN n ELSE excluded.entry END
    )
"""
"""Add an attempt, or to a job of which its id is known; of another with this id that fails."""
# An attempt's last verdict is the entry's, or, once another attempt has followed it, its own.
_ATTEMPTS = """
    SELECT a.id, a.name, a.attempt, a.position, a.state, a.sent_at, a.note, a.reason,
        v.status, v.verdict, a.reused_from
    FROM jobs a LEFT JOIN verdicts v ON v.seq = (
        SELECT max(seq) FROM verdicts w
        WHERE w.entry = a.entry AND w.job = a.n AND w.status IS NOT NULL
    )
"""
_NEWEST = """
    WHERE a.name IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jobs b WHERE b.name = a.name AND b.attempt > a.attempt
    )
"""
# Without a verdict, or with one that may change later.
_FINAL = f"""
    SELECT 1 FROM verdicts v WHERE v.seq = {PRESENT.format("a.entry")}
        AND v.status NOT IN {in_sql(OPEN)}
"""  # noqa: S608 - fixed text
_UNDECIDED = f"{_NEWEST} AND NOT EXISTS ({_FINAL}) "
_FIRST_UNDECIDED = f"SELECT 1 FROM jobs a {_UNDECIDED} LIMIT 1"  # noqa: S608 - fixed text

_FIRST_OPEN = f"""
    SELECT 1 FROM jobs a LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.entry")}
    {_NEWEST} AND (
        v.status IS NULL
        OR (v.status IN {in_sql(OPEN)} AND (v.status = 'pending' OR a.state = 'planned'))
    ) LIMIT 1
"""  # noqa: S608 - fixed text


class Attempts(LedgerPart):
    """Attempts and their sending states."""

    def plan(
        self, rows: Iterable[PlanRow], *, why: Literal["retry", "resume"] | None = None
    ) -> None:
        """Record ``(task_id, entry, attempt, position[, reason])`` of all that is to be sent.

        ``why``: what makes an attempt that is not the first, see ``facts.Why``.
        """
        with self._db.writing() as db:
            first, seq = self._db.next_job(), self._db.take_seq()
            db.executemany(
                ADD_ATTEMPT,
                (
                    (
                        *(n, *row[:4], "planned", row[4] if len(row) == 5 else None, why),
                        *(None, None, seq, row[1], n),
                    )
                    for n, row in enumerate(rows, first)
                ),
            )

    def known_entries(self, entries: Sequence[str]) -> set[str]:
        """Return those of these entries that have attempts."""
        return self._present("SELECT DISTINCT name FROM jobs WHERE name IN ({})", entries)

    def known(self, task_ids: Sequence[str]) -> set[str]:
        """Return those of these task ids that are attempts'."""
        query = "SELECT id FROM jobs WHERE id IN ({}) AND name IS NOT NULL"
        return self._present(query, task_ids)

    def mark(
        self,
        task_ids: Iterable[str],
        state: SendState,
        *,
        sent_at: datetime | None = None,
        note: str | None = None,
    ) -> int:
        """Set the sending state of attempts; ``sent_at`` and ``note`` stay where not given.

        With ``sent_at`` they are about to be sent, and have their place in the order by that, which
        is returned.
        """
        changes, values, seq = "state = ?", list[str | None]([state]), 0
        if note is not None:
            changes, values = f"{changes}, note = ?", [*values, note]
        with self._db.writing() as db:
            if sent_at is not None:
                seq = self._db.take_seq()
                changes += f", sent_at = ?, sending = {seq}"
                values.append(text(sent_at))
            query = f"UPDATE jobs SET {changes} WHERE id = ?"  # noqa: S608 - fixed text
            db.executemany(query, ((*values, task_id) for task_id in task_ids))
        return seq

    def last_sent_at(self) -> datetime | None:
        """Return the latest time at which an attempt was sent; None where none was."""
        query = "SELECT max(sent_at) FROM jobs WHERE state <> 'reused'"
        return next(self._db.build_each(lambda row: moment(row[0]), query), None)

    def send_states(self) -> Mapping[str, int]:
        """Count the attempts in each sending state."""
        rows = self._db.read("SELECT state, count(*) FROM attempts GROUP BY state")
        return {state: int(count) for state, count in rows}

    def reasons(self) -> Mapping[str, int]:
        """Count the attempts made for each reason."""
        query = "SELECT reason, count(*) FROM jobs WHERE reason IS NOT NULL GROUP BY reason"
        return {reason: int(count) for reason, count in self._db.read(query)}

    def get(self, task_id: str) -> AttemptRow | None:
        """Return the attempt with this task id."""
        return next(self._attempts("WHERE a.id = ? AND a.name IS NOT NULL", task_id), None)

    def all(self, *, undecided: bool = False) -> Iterator[AttemptRow]:
        """Yield all attempts in the manifest's order.

        ``undecided``: only the newest attempt of each entry without a final verdict.
        """
        which = _UNDECIDED if undecided else "WHERE a.name IS NOT NULL "
        return self._attempts(which + "ORDER BY a.position, a.attempt")

    def of_entry(self, entry: str) -> list[AttemptRow]:
        """Return every attempt of an entry, by number."""
        return list(self.of_entries([entry]))

    def of_entries(self, entries: Sequence[str]) -> Iterator[AttemptRow]:
        """Yield every attempt of these entries, entry by entry, by number."""
        for some in chunks(entries):
            which = f"WHERE a.name IN ({placeholders(some)}) ORDER BY a.name, a.attempt"
            yield from self._attempts(which, *some)

    def newest(self) -> Iterator[AttemptRow]:
        """Yield the newest attempt of each entry, in the manifest's order."""
        return self._attempts(_NEWEST + "ORDER BY a.position, a.name")

    def has_open(self) -> bool:
        """Return whether some entry has no verdict or a pending one.

        ``unknown`` counts as an end, unless the entry was never sent.
        """
        return self._db.read_one(_FIRST_OPEN) is not None

    def has_undecided(self) -> bool:
        """Return whether some entry has no final verdict."""
        return self._db.read_one(_FIRST_UNDECIDED) is not None

    def reused(self, task_id: str) -> ReusedFrom | None:
        """Return where an attempt was reused from; None for one of the run's own."""
        query = "SELECT reused_from FROM jobs WHERE id = ? AND reused_from IS NOT NULL"
        found = self._db.build_each(lambda row: ReusedFrom.from_note(row[0]), query, (task_id,))
        return next(found, None)

    def count_entries(self) -> int:
        """Count the entries that have an attempt."""
        row = self._db.read_one("SELECT count(DISTINCT name) FROM jobs")
        return 0 if row is None else int(row[0])

    def _attempts(self, which: str, *values: str) -> Iterator[AttemptRow]:
        return self._db.build_each(attempt_of_row, _ATTEMPTS + which, values)
