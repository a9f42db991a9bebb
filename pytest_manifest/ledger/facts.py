"""Append facts, and read those of jobs, of the run, or all that came after a position.

A job's facts are found by its number, and its entry by that. What is usual has columns of its own;
the rest of a fact's fields are in ``data``.

**The order.** ``seq`` of facts and verdicts is from one counter, which the transaction that writes
takes from (``Database.take_seq``; there is one writer), so that any two of them can be compared:
what a search had seen, and what a verdict went by, is all up to a number. Attempts, sendings and
descendants have the number of the batch that they were recorded in. A number that is taken and not
committed is given again. Of a merged ledger each run has its numbers in its own order, after those
of the runs before it; the numbers of two runs are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from pydantic import JsonValue, TypeAdapter

from pytest_manifest.ledger import rows
from pytest_manifest.ledger.database import Database, LedgerPart
from pytest_manifest.ledger.tables import RARE
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import Ended, FactSource, Kind, Started, Stored
from pytest_manifest.schema.run_facts import KINDS, AnyFact, JobFact, RunFact

_COLUMNS: Final = (
    *("execution", "hop", "retries", "redelivered", "worker", "pid"),
    *("host", "boot", "namespace", "started_at", "how"),
)
"""Fields that have a column of their own, as ``receipt`` has; all others are in ``data``."""
FACT: Final = ("seq", "kind", "at", "source", "aside", "receipt", "data", *_COLUMNS)
"""The columns of a fact, beside its run and its job, in the order of :func:`row_of`."""
FACT_COLUMNS: Final = ", ".join(f"f.{name}" for name in ("job", *FACT))
"""Columns in the order of :func:`fact_of_row`."""
ADD_FACT: Final = f"""
    INSERT INTO facts (run, job, {", ".join(FACT)}) VALUES (?, ?, {", ".join("?" * len(FACT))})
"""  # noqa: S608 - fixed text


def adding(names: Sequence[str], unless: str = "0") -> str:
    """Return a statement that adds a fact of a job: its task id, and these columns.

    Not where ``unless`` holds of that, ``n``, and its job ``j``.
    """
    columns = ", ".join(names)
    given = ", ".join(f"? AS {name}" for name in ("task_id", *names))
    return f"""
        INSERT INTO facts (run, job, {columns})
        SELECT j.run, j.n, {", ".join(f"n.{name}" for name in names)}
        FROM (SELECT {given}) n JOIN jobs j ON j.id = n.task_id WHERE NOT {unless}
    """  # noqa: S608 - fixed text


def known_fact(*same: str) -> str:
    """Return a condition for :func:`adding`: a fact that counts is known, of the same kind, and in
    these terms of a fact ``f``."""
    terms = " AND ".join(f"{one} IS {one.replace('f.', 'n.')}" for one in ("f.kind", *same))
    return f"EXISTS (SELECT 1 FROM facts f WHERE f.job = j.n AND NOT f.aside AND {terms})"  # noqa: S608 - fixed text


_READ: Final = f"""
    SELECT coalesce(j.id, ''), {FACT_COLUMNS} FROM facts f LEFT JOIN jobs j ON j.n = f.job
"""  # noqa: S608 - fixed text
_ADD_NAMED: Final = """
    INSERT INTO jobs (id, entry) SELECT ?, coalesce(max(entry), 0) FROM jobs WHERE name = ?
"""
"""Add a job of an entry of which no more is known than its name."""
_SOURCES: Final = {int(one): one for one in FactSource}
_ASIDE: Final = frozenset({Kind.STARTED, Kind.ENDED, Kind.STORED})
"""Kinds of reports that :meth:`Facts.append` is given where they do not count."""


Owned: TypeAlias = tuple[str | None, JobFact | RunFact]
"""A fact, and the entry that it is of; None: it is of the run."""


class Facts(LedgerPart):
    """The table of facts: it only grows.

    ``of_run_added``: how many facts of the run were added by this, so that who has these knows of
    more.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.of_run_added = 0

    def append(self, facts: Iterable[Owned], run: str | None = None) -> None:
        """Record facts with their entries, in this order; their own ``seq`` is not looked at.

        The entry is None of a fact of the ledger's run, or of ``run``, one that was merged into it.
        """
        given = list(facts)
        if not given:
            return
        self.of_run_added += sum(entry is None for entry, _ in given)
        with self._db.writing() as db:
            own = 1 if run is None else self._number_of(run)
            owners = [(own, 0) if name is None else self._job(name, one.job) for name, one in given]
            first = self._db.take_seq(len(given))
            db.executemany(
                ADD_FACT,
                (
                    (*owner, *row_of(seq, fact, fact.source, aside=fact.kind in _ASIDE))
                    for seq, (owner, (_, fact)) in enumerate(zip(owners, given, strict=True), first)
                ),
            )

    def _number_of(self, run: str) -> int:
        return self._db.number("SELECT max(n) FROM run WHERE id = ?", (run,)) or 1

    def _job(self, entry: str, task_id: str) -> tuple[int, int]:
        """Return the run and the number of an entry's job, which is added where it is not known."""
        query = "SELECT run, n FROM jobs WHERE id = ?"
        row = self._db.read_one(query, (task_id,))
        if row is None:
            with self._db.writing() as db:
                db.execute(_ADD_NAMED, (task_id, entry))
            row = self._db.read_one(query, (task_id,)) or (1, 0)
        return int(row[0]), int(row[1])

    def last_seq(self) -> int:
        """Return the last number of the ledger's order; 0 before anything has one."""
        return self._db.last_seq()

    def owners(self, entries: Sequence[str]) -> set[str]:
        """Return those of these entries whose attempts have facts."""
        return self._present(
            "SELECT DISTINCT a.name FROM jobs a JOIN facts f ON f.job = a.n WHERE a.name IN ({})",
            entries,
        )

    def of_run(self, run: str) -> list[JobFact | RunFact]:
        """Return the facts of a run as a whole, in their order."""
        which = "WHERE f.job = 0 AND f.run = ? ORDER BY f.seq"
        return list(self._read(which, (self._number_of(run),)))

    def of_kind(self, kind: type[AnyFact]) -> Iterator[AnyFact]:
        """Yield the facts of a kind, in their order."""
        rare = f"AND f.{RARE}" if kind.kind not in _ASIDE else ""
        found = self._read(f"WHERE f.kind = ? {rare} ORDER BY f.seq", (kind.kind,))
        return cast("Iterator[AnyFact]", found)

    def _read(self, which: str, values: Sequence[str | int]) -> Iterator[JobFact | RunFact]:
        return self._db.build_each(lambda row: fact_of_row(row[1:], row[0]), _READ + which, values)


@cache
def _adapter(kind: Kind) -> TypeAdapter[JobFact | RunFact]:
    return TypeAdapter(KINDS[kind])


def document_of(fact: JobFact | RunFact) -> dict[str, JsonValue]:
    """Return the fields of a fact that are not as by default, but for those that all facts have."""
    return _document(fact, fact.__dataclass_fields__.keys() - {"seq", "at", "source", "job"})


def _document(fact: JobFact | RunFact, names: Collection[str]) -> dict[str, JsonValue]:
    document: dict[str, JsonValue] = _adapter(fact.kind).dump_python(
        fact, mode="json", include=set(names), exclude_defaults=True
    )
    return document


def is_used(kind: Kind, column: str) -> bool:
    """Return whether facts of this kind that count have something in a column."""
    own = {one.name for one in fields(KINDS[kind])}
    always = column in ("seq", "kind", "at", "source", "data")
    return always or column in own


_KNOWN: Final = {*_COLUMNS, "seq", "at", "source", "job", "receipt"}
_OTHERS: Final[Mapping[Kind, Mapping[str, object]]] = {
    kind: {one.name: one.default for one in fields(of) if one.name not in _KNOWN}
    for kind, of in KINDS.items()
}
"""The fields of each kind that have no column of their own, with their defaults."""


def row_of(
    seq: int, fact: JobFact | RunFact, source: FactSource, *, aside: bool = False
) -> rows.Row:
    """Return a fact's columns in the order of :data:`FACT`, under this number."""
    kind, receipt, data = fact.kind, None, None
    if isinstance(fact, Ended | Stored) and fact.receipt is not None:
        receipt = fact.receipt.model_dump_json()
    for name, default in _OTHERS[kind].items():  # without a generator, as it is asked of each
        if getattr(fact, name) != default:
            document = _document(fact, _OTHERS[kind])
            data = json.dumps(document, ensure_ascii=False) if document else None
            break
    columns = [getattr(fact, name, None) for name in _COLUMNS]
    columns[_STARTED_AT] = rows.text(columns[_STARTED_AT])
    return seq, kind, rows.microseconds(fact.at), source, aside, receipt, data, *columns


_STARTED_AT: Final = _COLUMNS.index("started_at")


def fact_of_row(row: Sequence[Any], job: str) -> JobFact | RunFact:
    """Build a fact of a job from the columns of :data:`FACT_COLUMNS`; "": it is of the run."""
    _, seq, kind, at, source, _, receipt, data, *columns = row
    values = {} if data is None else json.loads(data)
    if receipt is not None:
        values["receipt"] = rows.receipt_of(receipt)
    given = zip(_COLUMNS, columns, strict=True)
    values |= {column: value for column, value in given if value is not None}
    values |= {"seq": seq, "at": rows.moment_of(at), "source": _SOURCES[source], "job": job}
    if kind not in _ASIDE or data is not None:
        return _adapter(Kind(kind)).validate_python(values)
    if kind == Kind.STARTED:  # of most facts nothing is left to be checked, which would be felt
        values["started_at"] = rows.moment(values.get("started_at"))
        values["redelivered"] = bool(values.get("redelivered"))
    return KINDS[kind](**values)


def end_of(
    seq: int,
    at: datetime,
    job: str,
    receipt: Receipt,
    execution: str | None = None,
    fault: str = "",
) -> Ended | Stored:
    """Return the fact of a job's end, by who reports it."""
    if receipt.source == "worker":
        by = FactSource.WORKER
        return Ended(
            seq=seq, at=at, source=by, job=job, receipt=receipt, execution=execution, fault=fault
        )
    by = FactSource.STORE
    return Stored(seq=seq, at=at, source=by, job=job, receipt=receipt, fault=fault)


_ADDED: Final[Mapping[Kind, str]] = {
    Kind.STARTED: known_fact("f.execution", "f.pid"),
    Kind.HANDED_ON: known_fact("f.execution"),
    Kind.ANNOUNCED: known_fact("f.data"),
    Kind.ENDED: "0",
    Kind.STORED: "0",
}
"""When a report of a kind is known already."""
_USED: Final = {kind: [n for n, name in enumerate(FACT) if is_used(kind, name)] for kind in _ADDED}
"""The columns that facts of a kind have: each more in a statement is felt."""
_PICK: Final = {kind: itemgetter(*places) for kind, places in _USED.items()}
_ADD: Final = {kind: adding([FACT[n] for n in _USED[kind]], _ADDED[kind]) for kind in _ADDED}
_OF_JOBS: Final = f"""
    SELECT j.id, {FACT_COLUMNS} FROM jobs j JOIN facts f ON f.job = j.n AND f.kind = ?
    WHERE NOT f.aside AND j.id IN ({{}}) ORDER BY f.job, {rows.OLDEST_FIRST}, f.seq
"""  # noqa: S608 - fixed text
_MOMENTS: Final = """
    SELECT s.worker, s.started_at, s.at, j.sent_at FROM starts s JOIN jobs j ON j.n = s.job
    WHERE s.worker IS NOT NULL ORDER BY s.seq DESC LIMIT ?
"""
_RECEIPTS: Final = "SELECT task_id, execution, receipt FROM receipts"


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
                first, by = self._db.take_seq(len(facts)), FactSource.WORKER
                if self._db.read_one("SELECT 1 FROM run WHERE receipt_keys <> ''"):
                    by = FactSource.SIGNED_WORKER
                kinds: dict[Kind, list[tuple[int, JobFact]]] = {}
                for numbered in enumerate(facts, first):
                    kinds.setdefault(numbered[1].kind, []).append(numbered)
                for kind, some in kinds.items():
                    self._add(kind, by, some)
        return first

    def _add(self, kind: Kind, by: FactSource, facts: Sequence[tuple[int, JobFact]]) -> None:
        source, given = FactSource.STORE if kind == Kind.STORED else by, list[rows.Row]()
        pick = _PICK[kind]
        for seq, fact in facts:
            given.append((fact.job, *pick(row_of(seq, fact, source))))
            if isinstance(fact, Ended | Stored) and fact.receipt is not None:
                self._db.note_end(fact.job, fact.receipt, seq)
        with self._db.writing() as db:
            if db.executemany(_ADD[kind], given).rowcount == len(given):
                return
            names = {str(row[0]) for row in given}
            strange = names - self._present("SELECT id FROM jobs WHERE id IN ({})", list(names))
            self._name_jobs(sorted(strange))
            db.executemany(_ADD[kind], [row for row in given if row[0] in strange])

    def each(self, kind: type[AnyFact], task_ids: Sequence[str]) -> dict[str, list[AnyFact]]:
        """Return the facts of a kind of these jobs by task id, oldest first; of some there is
        none."""
        found: dict[str, list[AnyFact]] = {}
        query = _OF_JOBS.replace("f.kind = ?", f"f.kind = {kind.kind:d}")
        with self._db.parse_errors():
            for task_id, *row in self._db.of_each(query, task_ids):
                found.setdefault(task_id, []).append(cast("AnyFact", fact_of_row(row, task_id)))
        return found

    def of(self, kind: type[AnyFact], task_id: str) -> list[AnyFact]:
        """Return the facts of a kind of a job, oldest first."""
        return self.each(kind, [task_id]).get(task_id, [])

    def starts(self, task_id: str) -> list[Started]:
        """Return every start of a job, oldest first."""
        return self.of(Started, task_id)

    def moments_of_starts(
        self, most: int
    ) -> Iterator[tuple[str, datetime | None, datetime, datetime | None]]:
        """Yield worker, its time, the time at which it was read, and that of the sending, of the
        newest ``most`` starts; times are UTC."""

        def made(row: rows.Row) -> tuple[str, datetime | None, datetime, datetime | None]:
            return str(row[0]), rows.moment(row[1]), rows.moment_of(row[2]), rows.moment(row[3])

        return self._db.build_each(made, _MOMENTS, (most,))

    def receipts(self, task_id: str) -> list[tuple[str | None, Receipt]]:
        """Return ``(execution, receipt)`` of a job in the order of arrival."""
        return self.receipts_of([task_id]).get(task_id, [])

    def receipts_of(self, task_ids: Sequence[str]) -> dict[str, list[tuple[str | None, Receipt]]]:
        """Return the same of each of these jobs that has some, by task id."""
        found: dict[str, list[tuple[str | None, Receipt]]] = {}
        query = f"{_RECEIPTS} WHERE task_id IN ({{}}) ORDER BY seq"
        with self._db.parse_errors():
            for task_id, execution, receipt in self._db.of_each(query, task_ids):
                found.setdefault(task_id, []).append((execution, rows.receipt_of(receipt)))
        return found

    def last_arrival(self) -> datetime | None:
        """Return when the newest receipt arrived, None where there is none."""
        row = self._db.read_one("SELECT max(arrived_at) FROM receipts")
        return None if row is None or row[0] is None else rows.moment_of(row[0])

    def workers_with_starts(self) -> Iterator[str]:
        """Yield the workers that have reported a start."""
        given = self._db.read("SELECT DISTINCT worker FROM starts WHERE worker IS NOT NULL")
        return (str(worker) for (worker,) in given)
