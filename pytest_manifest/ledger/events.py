"""Record the events that workers report: starts, ends of executions, receipts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import count
from typing import Final

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.rows import (
    HANDED_ON_COLUMNS,
    OLDEST_FIRST,
    START_COLUMNS,
    HandedOn,
    Row,
    Start,
    moment,
    row_of_start,
    start_of_row,
    text,
    utc_now,
)
from pytest_manifest.schema import Receipt

ADD_RECEIPT: Final = """
    INSERT INTO receipts (
        seq, task_id, execution, receipt, arrived_at, newest_attempt, after_verdict
    )
    SELECT r.seq, r.task_id, r.execution, r.receipt, r.arrived_at, (
        SELECT max(b.attempt) FROM attempts a JOIN attempts b ON b.entry = a.entry
        WHERE a.task_id = r.task_id
    ), EXISTS (
        SELECT 1 FROM attempts a JOIN settled s ON s.entry = a.entry WHERE a.task_id = r.task_id
    )
    FROM (SELECT ? AS seq, ? AS task_id, ? AS execution, ? AS receipt, ? AS arrived_at) r
"""
"""Record ``(seq, task_id, execution, receipt, arrived_at)``, and what its entry had come to by
then."""
_STARTS = f"SELECT {START_COLUMNS} FROM starts "  # noqa: S608 - fixed text
_IN_ORDER = f"ORDER BY task_id, {OLDEST_FIRST}"


class WorkerEvents(LedgerPart):
    """Starts and receipts in the order of their arrival."""

    def last_arrival(self) -> datetime | None:
        """Return when the newest receipt arrived, None where there is none."""
        query = "SELECT max(arrived_at) FROM receipts"
        return next(self._db.build_each(lambda row: moment(row[0]), query), None)

    def add_starts(self, starts: Iterable[Start]) -> int:
        """Record starts; one that is known stays as it is. Returns their number in the order."""
        rows, seq = list(map(row_of_start, starts)), 0
        if rows:
            with self._db.writing() as db:
                seq = self._db.take_seq()
                db.executemany(
                    f"INSERT OR IGNORE INTO starts ({START_COLUMNS}, seq) "  # noqa: S608 - fixed text
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    ((*row, seq) for row in rows),
                )
        return seq

    def rename_start(self, start: Start, renamed: Start) -> None:
        """Give the start of an execution another name; where it is taken, nothing is changed."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE OR IGNORE starts SET execution = ? WHERE task_id = ? AND execution = ?",
                (renamed.execution, start.task_id, start.execution),
            )

    def add_handed_on(self, ends: Iterable[HandedOn]) -> None:
        """Record ends of executions whose job goes on; one that is known stays as it is."""
        rows = [
            (e.task_id, e.execution, e.how, text(e.ended_at), text(e.next_at), e.cost) for e in ends
        ]
        if rows:
            with self._db.writing() as db:
                seq = self._db.take_seq()
                db.executemany(
                    f"INSERT OR IGNORE INTO handed_on ({HANDED_ON_COLUMNS}, seq) "  # noqa: S608 - fixed text
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    ((*row, seq) for row in rows),
                )

    def handed_on(self, task_id: str) -> list[HandedOn]:
        """Return the executions of an attempt that ended while its job went on."""
        query = f"SELECT {HANDED_ON_COLUMNS} FROM handed_on WHERE task_id = ?"  # noqa: S608 - fixed text

        def made(row: Row) -> HandedOn:
            name, execution, how, ended_at, next_at, cost = row
            return HandedOn(name, execution, how, moment(ended_at), moment(next_at), cost)

        return list(self._db.build_each(made, query, (task_id,)))

    def starts(self, task_id: str) -> list[Start]:
        """Return every start of an attempt, oldest first."""
        query = f"{_STARTS} WHERE task_id = ? {_IN_ORDER}"
        return list(self._db.build_each(start_of_row, query, (task_id,)))

    def left_running(self, task_id: str) -> list[Start]:
        """Return the starts of an attempt's executions that did not end while its job went on."""
        ended = {end.execution for end in self.handed_on(task_id)}
        return [start for start in self.starts(task_id) if start.execution not in ended]

    def starts_of(self, task_ids: Sequence[str]) -> dict[str, list[Start]]:
        """Return the starts of several attempts by task id, oldest first; of some there is none."""
        found: dict[str, list[Start]] = {}
        for some in chunks(task_ids):
            query = f"{_STARTS} WHERE task_id IN ({placeholders(some)}) {_IN_ORDER}"
            for start in self._db.build_each(start_of_row, query, some):
                found.setdefault(start.task_id, []).append(start)
        return found

    def starts_by_task(self) -> dict[str, list[Start]]:
        """Return all starts by task id, oldest first."""
        found: dict[str, list[Start]] = {}
        for start in self._db.build_each(start_of_row, _STARTS + _IN_ORDER):
            found.setdefault(start.task_id, []).append(start)
        return found

    def has_starts(self) -> bool:
        """Return whether any start was reported."""
        return self._db.read_one("SELECT 1 FROM starts LIMIT 1") is not None

    def workers_with_starts(self) -> frozenset[str]:
        """Return the workers that have reported a start."""
        rows = self._db.read("SELECT DISTINCT worker FROM starts WHERE worker IS NOT NULL")
        return frozenset(str(worker) for (worker,) in rows)

    def add_receipts(self, receipts: Iterable[tuple[str, str | None, Receipt]]) -> int:
        """Record ``(task_id, execution, receipt)`` as they arrive, repeated ones too.

        Returns the number of the first in the order; the others follow it.
        """
        rows, now, first = list(receipts), text(utc_now()), 0
        if rows:
            with self._db.writing() as db:
                first = self._db.take_seq(len(rows))
                seqs, text_of = count(first), self._db.receipt_text
                db.executemany(
                    ADD_RECEIPT, ((next(seqs), i, name, text_of(one), now) for i, name, one in rows)
                )
        return first

    def receipts(self, task_id: str) -> list[tuple[str | None, Receipt]]:
        """Return ``(execution, receipt)`` of an attempt in the order of arrival."""
        query = "SELECT execution, receipt FROM receipts WHERE task_id = ? ORDER BY seq"
        return list(self._db.build_each(_receipt_of_execution, query, (task_id,)))

    def all_receipts(self) -> Iterator[tuple[str, str | None, Receipt]]:
        """Yield ``(task_id, execution, receipt)`` of all receipts in the order of arrival."""
        query = "SELECT task_id, execution, receipt FROM receipts ORDER BY seq"
        yield from self._db.build_each(_receipt_of_task, query)


def _receipt_of_execution(row: Row) -> tuple[str | None, Receipt]:
    return row[0], Receipt.model_validate_json(row[1])


def _receipt_of_task(row: Row) -> tuple[str, str | None, Receipt]:
    return row[0], row[1], Receipt.model_validate_json(row[2])
