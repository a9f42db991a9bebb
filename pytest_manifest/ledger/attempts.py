"""Record attempts: planned, sent, withheld, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.rows import (
    AttemptRow,
    ReusedFrom,
    SendState,
    attempt_of_row,
    moment,
    text,
)
from pytest_manifest.schema.statuses import OPEN, in_sql

PlanRow: TypeAlias = tuple[str, str, int, int] | tuple[str, str, int, int, str | None]
"""``(task_id, entry, attempt, position)``, and the reason of an attempt that is not the first."""

# An entry's present verdict is stored once, in `settled`; an attempt's own row has earlier ones.
_ATTEMPTS = """
    SELECT a.task_id, a.entry, a.attempt, a.ordinal, a.state, a.sent_at, a.note, a.reason,
        coalesce(s.kind, a.kind), coalesce(s.verdict, a.verdict), a.reused_from
    FROM attempts a LEFT JOIN settled s ON s.entry = a.entry AND s.attempt = a.attempt
"""
_NEWEST = "WHERE a.attempt = (SELECT max(b.attempt) FROM attempts b WHERE b.entry = a.entry) "
# Without a verdict, or with one that may change later.
_FINAL = f"SELECT entry FROM settled WHERE kind NOT IN {in_sql(OPEN)}"  # noqa: S608 - fixed text
_UNDECIDED = f"{_NEWEST} AND a.entry NOT IN ({_FINAL}) "
_FIRST_UNDECIDED = f"SELECT 1 FROM attempts a {_UNDECIDED} LIMIT 1"  # noqa: S608 - fixed text

_FIRST_OPEN = f"""
    SELECT 1 FROM attempts a LEFT JOIN settled s ON s.entry = a.entry
    {_NEWEST} AND (
        s.kind IS NULL
        OR (s.kind IN {in_sql(OPEN)} AND (s.kind = 'pending' OR a.state = 'planned'))
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
        cause = "NULL" if why is None else f"'{why}'"
        with self._db.writing() as db:
            db.executemany(
                "INSERT INTO attempts "  # noqa: S608 - fixed text, and a number
                "(task_id, entry, attempt, ordinal, reason, state, cause, seq) "
                f"VALUES (?, ?, ?, ?, ?, 'planned', {cause}, {self._db.take_seq()})",
                (row if len(row) == 5 else (*row, None) for row in rows),
            )

    def known_entries(self, entries: Sequence[str]) -> set[str]:
        """Return those of these entries that have attempts."""
        return self._present("SELECT DISTINCT entry FROM attempts WHERE entry IN ({})", entries)

    def known(self, task_ids: Sequence[str]) -> set[str]:
        """Return those of these task ids that are attempts'."""
        return self._present("SELECT task_id FROM attempts WHERE task_id IN ({})", task_ids)

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
            query = f"UPDATE attempts SET {changes} WHERE task_id = ?"  # noqa: S608 - fixed text
            db.executemany(query, ((*values, task_id) for task_id in task_ids))
        return seq

    def last_sent_at(self) -> datetime | None:
        """Return the latest time at which an attempt was sent; None where none was."""
        query = "SELECT max(sent_at) FROM attempts WHERE state <> 'reused'"
        return next(self._db.build_each(lambda row: moment(row[0]), query), None)

    def send_states(self) -> Mapping[str, int]:
        """Count the attempts in each sending state."""
        rows = self._db.read("SELECT state, count(*) FROM attempts GROUP BY state")
        return {state: int(count) for state, count in rows}

    def reasons(self) -> Mapping[str, int]:
        """Count the attempts made for each reason."""
        query = "SELECT reason, count(*) FROM attempts WHERE reason IS NOT NULL GROUP BY reason"
        return {reason: int(count) for reason, count in self._db.read(query)}

    def get(self, task_id: str) -> AttemptRow | None:
        """Return the attempt with this task id."""
        return next(self._attempts("WHERE a.task_id = ?", task_id), None)

    def all(self, *, undecided: bool = False) -> Iterator[AttemptRow]:
        """Yield all attempts in the manifest's order.

        ``undecided``: only the newest attempt of each entry without a final verdict.
        """
        which = _UNDECIDED if undecided else ""
        return self._attempts(which + "ORDER BY a.ordinal, a.attempt")

    def of_entry(self, entry: str) -> list[AttemptRow]:
        """Return every attempt of an entry, by number."""
        return list(self._attempts("WHERE a.entry = ? ORDER BY a.attempt", entry))

    def newest(self) -> Iterator[AttemptRow]:
        """Yield the newest attempt of each entry, in the manifest's order."""
        return self._attempts(_NEWEST + "ORDER BY a.ordinal, a.entry")

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
        query = "SELECT reused_from FROM attempts WHERE task_id = ? AND reused_from IS NOT NULL"
        found = self._db.build_each(lambda row: ReusedFrom.from_note(row[0]), query, (task_id,))
        return next(found, None)

    def count_entries(self) -> int:
        """Count the entries that have an attempt."""
        row = self._db.read_one("SELECT count(DISTINCT entry) FROM attempts")
        return 0 if row is None else int(row[0])

    def _attempts(self, which: str, *values: str) -> Iterator[AttemptRow]:
        return self._db.build_each(attempt_of_row, _ATTEMPTS + which, values)
