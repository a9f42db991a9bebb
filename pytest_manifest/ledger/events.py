"""Record the events that workers report: starts, ends of executions, receipts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.facts import adding, known_fact
from pytest_manifest.ledger.rows import (
    HANDED_ON_COLUMNS,
    OLDEST_FIRST,
    START_COLUMNS,
    HandedOn,
    Row,
    Start,
    microseconds,
    moment,
    moment_of,
    start_of_row,
    text,
    utc_now,
)
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import FactSource, Kind

_ADD_STARTS: Final = adding(
    "seq, at, source, kind, execution, started_at, retries, worker, host, pid, redelivered, boot, "
    "namespace, hop",
    known_fact("f.execution"),
)
_ADD_HANDED_ON: Final = adding(
    "seq, at, source, kind, execution, how, data", known_fact("f.execution")
)
ADD_RECEIPT: Final = adding("seq, at, source, kind, execution, receipt")
_STARTS = f"SELECT {START_COLUMNS} FROM starts "  # noqa: S608 - fixed text
_IN_ORDER = f"ORDER BY task_id, {OLDEST_FIRST}"


class WorkerEvents(LedgerPart):
    """Starts and receipts in the order of their arrival."""

    def last_arrival(self) -> datetime | None:
        """Return when the newest receipt arrived, None where there is none."""
        query = "SELECT max(arrived_at) FROM receipts"
        return next(
            self._db.build_each(lambda row: None if row[0] is None else moment_of(row[0]), query)
        )

    def _add(self, query: str, rows: Sequence[tuple[str, Row]]) -> int:
        """Record reports ``(task_id, values)``, the first of which is the kind.

        Returns the number of the first in the order.
        """
        if not rows:
            return 0
        with self._db.writing() as db:
            first, now, by = (
                self._db.take_seq(len(rows)),
                microseconds(utc_now()),
                self._db.reporter(),
            )
            numbered = enumerate(rows, first)
            self._insert(db, query, [(name, seq, now, by, *row) for seq, (name, row) in numbered])
        return first

    def _insert(self, db: sqlite3.Connection, query: str, rows: Sequence[Row]) -> None:
        """Add these facts, whose first column is a task id; also those of which nobody knows whose
        they are."""
        if db.executemany(query, rows).rowcount == len(rows):
            return
        names = {str(row[0]) for row in rows}
        strange = names - self._present("SELECT id FROM jobs WHERE id IN ({})", list(names))
        self._name_jobs(sorted(strange))
        db.executemany(query, [row for row in rows if row[0] in strange])

    def add_starts(self, starts: Iterable[Start]) -> int:
        """Record starts; one that is known stays as it is.

        Returns the number of the first in the order; the others follow it.
        """
        return self._add(_ADD_STARTS, [(one.task_id, _start_values(one)) for one in starts])

    def rename_start(self, start: Start, renamed: Start) -> None:
        """Give the start of an execution another name; where it is taken, nothing is changed."""
        taken = "SELECT 1 FROM starts WHERE task_id = ? AND execution = ?"
        if self._db.read_one(taken, (start.task_id, renamed.execution)) is not None:
            return
        with self._db.writing() as db:
            db.execute(
                "UPDATE facts SET execution = ? WHERE kind = ? AND execution = ? "
                "AND job = (SELECT n FROM jobs WHERE id = ?)",
                (renamed.execution, Kind.STARTED, start.execution, start.task_id),
            )

    def add_handed_on(self, ends: Iterable[HandedOn]) -> None:
        """Record ends of executions whose job goes on; one that is known stays as it is."""
        self._add(
            _ADD_HANDED_ON,
            [
                (one.task_id, (Kind.HANDED_ON, one.execution, one.how, _handed_on_data(one)))
                for one in ends
            ],
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
        rows, first = list(receipts), 0
        if rows:
            with self._db.writing() as db:
                first, now = self._db.take_seq(len(rows)), microseconds(utc_now())
                by, made = self._db.reporter(), list[Row]()
                for seq, (task_id, execution, one) in enumerate(rows, first):
                    self._db.note_end(task_id, one, seq)
                    kind, source = origin_of_end(one.source, by)
                    made.append((task_id, seq, now, source, kind, execution, one.model_dump_json()))
                self._insert(db, ADD_RECEIPT, made)
        return first

    def receipts(self, task_id: str) -> list[tuple[str | None, Receipt]]:
        """Return ``(execution, receipt)`` of an attempt in the order of arrival."""
        query = "SELECT execution, receipt FROM receipts WHERE task_id = ? ORDER BY seq"
        return list(self._db.build_each(_receipt_of_execution, query, (task_id,)))

    def all_receipts(self) -> Iterator[tuple[str, str | None, Receipt]]:
        """Yield ``(task_id, execution, receipt)`` of all receipts in the order of arrival."""
        query = "SELECT task_id, execution, receipt FROM receipts ORDER BY seq"
        yield from self._db.build_each(_receipt_of_task, query)


def origin_of_end(source: str, by: FactSource) -> tuple[Kind, FactSource]:
    """Return as what an end is recorded; ``by``: the source of what workers report."""
    return (Kind.ENDED, by) if source == "worker" else (Kind.STORED, FactSource.STORE)


def _start_values(start: Start) -> Row:
    return (
        Kind.STARTED,
        start.execution,
        text(start.started_at),
        start.retries,
        start.worker,
        start.host,
        start.pid,
        int(start.redelivered),
        start.boot,
        start.pid_namespace,
        start.hop,
    )


def _handed_on_data(end: HandedOn) -> str | None:
    known = {"ended_at": text(end.ended_at), "next_at": text(end.next_at), "cost": end.cost}
    data = {name: value for name, value in known.items() if value is not None}
    return json.dumps(data) if data else None


def _receipt_of_execution(row: Row) -> tuple[str | None, Receipt]:
    return row[0], Receipt.model_validate_json(row[1])


def _receipt_of_task(row: Row) -> tuple[str, str | None, Receipt]:
    return row[0], row[1], Receipt.model_validate_json(row[2])
