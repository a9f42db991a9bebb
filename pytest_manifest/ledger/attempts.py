"""Record attempts: planned, sent, withheld, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.descendants import DESCENDANT_COLUMNS
from pytest_manifest.ledger.facts import ADD_FACT, FACT_COLUMNS
from pytest_manifest.ledger.tables import PRESENT
from pytest_manifest.schema.facts import Reused
from pytest_manifest.schema.statuses import GIVEN_UP, OPEN, in_sql


class Planned(NamedTuple):
    """An attempt that is recorded; ``reason``: of one that is not the first.

    ``sent_at`` and ``reused_from`` as the ledger has them, of one that was sent already.
    """

    task_id: str
    entry: str
    attempt: int
    position: int
    reason: str | None = None
    state: rows.SendState = "planned"
    sent_at: str | None = None
    reused_from: str | None = None


_AS_PLANNED: Final = (None, "planned", None, None)
"""The defaults of :class:`Planned`."""
PlanRow: TypeAlias = Planned | tuple[str, str, int, int] | tuple[str, str, int, int, str | None]

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
_FIRST_UNENDED = f"""
    SELECT 1 FROM jobs a LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.entry")}
    {_NEWEST} AND a.state IN ('intent', 'uncertain', 'sent')
    AND (v.status IS NULL OR v.status IN {in_sql(OPEN | GIVEN_UP)}) LIMIT 1
"""  # noqa: S608 - fixed text


_ADD_DESCENDANT: Final = f"""
    INSERT INTO jobs (
        {DESCENDANT_COLUMNS.replace("task_id", "id").replace("kind", "status")}, entry, seq
    )
    SELECT ?, r.n, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, r.entry, ? FROM jobs r WHERE r.id = ?
"""  # noqa: S608 - fixed text
_FACTS: Final = f"""
    SELECT j.id, {FACT_COLUMNS}
    FROM jobs j JOIN facts f ON f.job = j.n WHERE j.id IN ({{}}) ORDER BY f.seq
"""  # noqa: S608 - fixed text
_NUMBERS: Final = "SELECT n, id FROM jobs WHERE id IN ({})"
_DESCENDANTS: Final = f"SELECT {DESCENDANT_COLUMNS} FROM descendants WHERE root IN ({{}})"  # noqa: S608 - fixed text


@dataclass(frozen=True, slots=True)
class ReusedAttempt:
    """An attempt of an earlier run that is to be taken over.

    ``entry`` and ``position`` are those of the entry that reuses it; ``sent_at``: as the earlier
    ledger has it.
    """

    task_id: str
    entry: str
    position: int
    sent_at: str
    origin: Reused


@dataclass(slots=True)
class TreeRows:
    """Rows of an attempt and of its descendants; of facts a task id, and ``FACT_COLUMNS``."""

    facts: list[rows.Row] = field(default_factory=list)
    descendants: list[rows.Row] = field(default_factory=list)


class Attempts(LedgerPart):
    """Attempts and their sending states."""

    def plan(
        self, given: Iterable[PlanRow], *, why: Literal["retry", "resume", "requeue"] | None = None
    ) -> None:
        """Record ``(task_id, entry, attempt, position[, reason])`` of all that is to be sent.

        ``why``: what makes an attempt that is not the first, see ``facts.Why``.
        """
        with self._db.writing() as db:
            first, seq = self._db.next_job(), self._db.take_seq()
            made = ((n, (*row, *_AS_PLANNED[len(row) - 4 :])) for n, row in enumerate(given, first))
            db.executemany(
                ADD_ATTEMPT,
                (
                    (n, *one[:4], one[5], one[4], why, one[6], one[7], seq, one[1], n)
                    for n, one in made
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
        state: rows.SendState,
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
                values.append(rows.text(sent_at))
            query = f"UPDATE jobs SET {changes} WHERE id = ?"  # noqa: S608 - fixed text
            db.executemany(query, [(*values, task_id) for task_id in task_ids])
        return seq

    def last_sent_at(self) -> datetime | None:
        """Return the latest time at which an attempt was sent; None where none was."""
        query = "SELECT max(sent_at) FROM jobs WHERE state <> 'reused'"
        return next(self._db.build_each(lambda row: rows.moment(row[0]), query), None)

    def send_states(self) -> Mapping[str, int]:
        """Count the attempts in each sending state."""
        given = self._db.read("SELECT state, count(*) FROM attempts GROUP BY state")
        return {state: int(count) for state, count in given}

    def reasons(self) -> Mapping[str, int]:
        """Count the attempts made for each reason."""
        query = "SELECT reason, count(*) FROM jobs WHERE reason IS NOT NULL GROUP BY reason"
        return {reason: int(count) for reason, count in self._db.read(query)}

    def get(self, task_id: str) -> rows.AttemptRow | None:
        """Return the attempt with this task id."""
        return next(self._attempts("WHERE a.id = ? AND a.name IS NOT NULL", task_id), None)

    def all(self, *, undecided: bool = False) -> Iterator[rows.AttemptRow]:
        """Yield all attempts in the manifest's order.

        ``undecided``: only the newest attempt of each entry without a final verdict.
        """
        which = _UNDECIDED if undecided else "WHERE a.name IS NOT NULL "
        return self._attempts(which + "ORDER BY a.position, a.attempt")

    def of_entry(self, entry: str) -> list[rows.AttemptRow]:
        """Return every attempt of an entry, by number."""
        return list(self.of_entries([entry]))

    def of_entries(self, entries: Sequence[str]) -> Iterator[rows.AttemptRow]:
        """Yield every attempt of these entries, entry by entry, by number."""
        query = f"{_ATTEMPTS} WHERE a.name IN ({{}}) ORDER BY a.name, a.attempt"
        with self._db.parse_errors():
            yield from map(rows.attempt_of_row, self._db.of_each(query, entries))

    def newest(self) -> Iterator[rows.AttemptRow]:
        """Yield the newest attempt of each entry, in the manifest's order."""
        return self._attempts(_NEWEST + "ORDER BY a.position, a.name")

    def has_open(self) -> bool:
        """Return whether some entry has no verdict or a pending one.

        ``unknown`` counts as an end, unless the entry was never sent.
        """
        return self._db.read_one(_FIRST_OPEN) is not None

    def has_unended(self) -> bool:
        """Return whether a job of some entry was sent, or may have been, and may still go on."""
        return self._db.read_one(_FIRST_UNENDED) is not None

    def has_undecided(self) -> bool:
        """Return whether some entry has no final verdict."""
        return self._db.read_one(_FIRST_UNDECIDED) is not None

    def count_entries(self) -> int:
        """Count the entries that have an attempt."""
        return self._db.number("SELECT count(DISTINCT name) FROM jobs")

    def _attempts(self, which: str, *values: str) -> Iterator[rows.AttemptRow]:
        return self._db.build_each(rows.attempt_of_row, _ATTEMPTS + which, values)

    # Those of earlier runs

    def rows_of(self, task_ids: Sequence[str]) -> dict[str, TreeRows]:
        """Return all that is known of each of these attempts, and of what they started."""
        found = {task_id: TreeRows() for task_id in task_ids}
        roots = {task_id: task_id for task_id in task_ids}
        for row in self._db.of_each(_DESCENDANTS, task_ids):
            found[row[1]].descendants.append(row)
            roots[row[0]] = row[1]
        for row in self._db.of_each(_FACTS, list(roots)):
            found[roots[row[0]]].facts.append(row)
        return found

    def add_reused(self, taken: Sequence[tuple[ReusedAttempt, TreeRows]]) -> None:
        """Record attempts of an earlier run, with all that was known of them there."""
        with self._db.writing() as db:
            seq = self._db.take_seq()
            self.plan(
                Planned(
                    *(one.task_id, one.entry, 0, one.position, None, "reused", one.sent_at),
                    rows.note_of(one.origin),
                )
                for one, _ in taken
            )
            descendants = (row for _, one in taken for row in one.descendants)
            given = ((row[0], *row[2:], seq, row[1]) for row in descendants)
            db.executemany(_ADD_DESCENDANT, given)
            facts = [row for _, given in taken for row in given.facts]
            numbers = self._numbers(dict.fromkeys(str(row[0]) for row in facts))
            numbered = enumerate(facts, self._db.take_seq(len(facts)))
            db.executemany(ADD_FACT, ((1, numbers[row[0]], n, *row[3:]) for n, row in numbered))

    def _numbers(self, task_ids: Iterable[str]) -> dict[str, int]:
        given = self._db.of_each(_NUMBERS, list(task_ids))
        return {str(task_id): int(number) for number, task_id in given}

    def drop_reused(self, task_ids: Sequence[str]) -> None:
        """Remove attempts that were added, and all that was added with them."""
        with self._db.writing() as db:
            own = [row[0] for row in self._db.of_each(_NUMBERS, task_ids)]
            jobs = [*self._db.of_each("SELECT n FROM jobs WHERE root IN ({})", own)]
            jobs += [(number,) for number in own]
            for table, column in (("facts", "job"), ("verdicts", "job"), ("jobs", "n")):
                db.executemany(f"DELETE FROM {table} WHERE {column} = ?", jobs)  # noqa: S608 - fixed text

    def withdraw_planned(self, entries: Sequence[str]) -> None:
        """Remove the attempts that were planned of these entries: none of them will be sent."""
        with self._db.writing() as db:
            db.executemany(
                "DELETE FROM jobs WHERE name = ? AND state = 'planned'",
                ((entry,) for entry in entries),
            )
