"""Record what workers and the result store report of jobs, and read what is known of some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Final, cast

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.facts import (
    FACT,
    FACT_COLUMNS,
    adding,
    fact_of_row,
    is_used,
    known_fact,
    row_of,
)
from pytest_manifest.ledger.rows import OLDEST_FIRST, Row, moment_of, receipt_of
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import Ended, FactSource, Kind, Started, Stored
from pytest_manifest.schema.run_facts import AnyFact, JobFact

_KNOWN: Final[Mapping[Kind, str]] = {
    Kind.STARTED: known_fact("f.execution", "f.pid"),
    Kind.HANDED_ON: known_fact("f.execution"),
    Kind.ANNOUNCED: known_fact("f.data"),
    Kind.ENDED: "0",
    Kind.STORED: "0",
}
"""When a report of a kind is known already."""
_USED: Final = {kind: [n for n, name in enumerate(FACT) if is_used(kind, name)] for kind in _KNOWN}
"""The columns that facts of a kind have: each more in a statement is felt."""
_PICK: Final = {kind: itemgetter(*places) for kind, places in _USED.items()}
_ADD: Final = {kind: adding([FACT[n] for n in _USED[kind]], _KNOWN[kind]) for kind in _KNOWN}
_OF_JOBS: Final = f"""
    SELECT j.id, {FACT_COLUMNS} FROM jobs j JOIN facts f ON f.job = j.n AND f.kind = ?
    WHERE NOT f.aside AND j.id IN ({{}}) ORDER BY f.job, {OLDEST_FIRST}, f.seq
"""  # noqa: S608 - fixed text


class WorkerEvents(LedgerPart):
    """Reports in the order of their arrival."""

    def add(self, reports: Iterable[JobFact]) -> int:
        """Record reports that count, whatever their own ``seq`` is, also of unknown jobs.

        A start, an end after which a job goes on, or an announcement that is known stays as it is;
        of receipts repeated ones are kept, too. Returns the number of the first in the order; the
        others follow it.
        """
        facts, first = list(reports), 0
        if facts:
            with self._db.writing():
                first, by = self._db.take_seq(len(facts)), self._db.reporter()
                numbered = enumerate(facts, first)
                for kind, some in groupby(numbered, key=lambda one: one[1].kind):
                    self._add(kind, by, list(some))
        return first

    def _add(self, kind: Kind, by: FactSource, facts: Sequence[tuple[int, JobFact]]) -> None:
        source, rows = FactSource.STORE if kind == Kind.STORED else by, list[Row]()
        pick = _PICK[kind]
        for seq, fact in facts:
            rows.append((fact.job, *pick(row_of(seq, fact, source))))
            if isinstance(fact, Ended | Stored) and fact.receipt is not None:
                self._db.note_end(fact.job, fact.receipt, seq)
        with self._db.writing() as db:
            if db.executemany(_ADD[kind], rows).rowcount == len(rows):
                return
            names = {str(row[0]) for row in rows}
            strange = names - self._present("SELECT id FROM jobs WHERE id IN ({})", list(names))
            self._name_jobs(sorted(strange))
            db.executemany(_ADD[kind], [row for row in rows if row[0] in strange])

    def each(self, kind: type[AnyFact], task_ids: Sequence[str]) -> dict[str, list[AnyFact]]:
        """Return the facts of a kind of these jobs by task id, oldest first; of some there is
        none."""
        found: dict[str, list[AnyFact]] = {}
        for some in chunks(task_ids):
            query = _OF_JOBS.format(placeholders(some))
            for task_id, *row in self._db.read(query, (kind.kind, *some)):
                with self._db.parse_errors():
                    fact = cast("AnyFact", fact_of_row(row, task_id))
                found.setdefault(task_id, []).append(fact)
        return found

    def of(self, kind: type[AnyFact], task_id: str) -> list[AnyFact]:
        """Return the facts of a kind of a job, oldest first."""
        return self.each(kind, [task_id]).get(task_id, [])

    def starts(self, task_id: str) -> list[Started]:
        """Return every start of a job, oldest first."""
        return self.of(Started, task_id)

    def receipts(self, task_id: str) -> list[tuple[str | None, Receipt]]:
        """Return ``(execution, receipt)`` of a job in the order of arrival."""
        return self.receipts_of([task_id]).get(task_id, [])

    def receipts_of(self, task_ids: Sequence[str]) -> dict[str, list[tuple[str | None, Receipt]]]:
        """Return the same of each of these jobs that has some, by task id."""
        found: dict[str, list[tuple[str | None, Receipt]]] = {}
        for some in chunks(task_ids):
            which = f"WHERE task_id IN ({placeholders(some)})"
            for task_id, execution, receipt in self.all_receipts(which, some):
                found.setdefault(task_id, []).append((execution, receipt))
        return found

    def all_receipts(
        self, which: str = "", values: Sequence[str] = ()
    ) -> Iterator[tuple[str, str | None, Receipt]]:
        """Yield ``(task_id, execution, receipt)`` of all receipts in the order of arrival."""
        query = f"SELECT task_id, execution, receipt FROM receipts {which} ORDER BY seq"  # noqa: S608 - fixed text
        return self._db.build_each(lambda row: (*row[:2], receipt_of(row[2])), query, values)

    def last_arrival(self) -> datetime | None:
        """Return when the newest receipt arrived, None where there is none."""
        row = self._db.read_one("SELECT max(arrived_at) FROM receipts")
        return None if row is None or row[0] is None else moment_of(row[0])

    def workers_with_starts(self) -> Iterator[str]:
        """Yield the workers that have reported a start."""
        rows = self._db.read("SELECT DISTINCT worker FROM starts WHERE worker IS NOT NULL")
        return (str(worker) for (worker,) in rows)
