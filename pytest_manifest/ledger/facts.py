"""Append facts, and read those of an entry, of the run, or all that came after a position.

The table has what no other table of the ledger has: what a session knew that sent, searched, took
back or gave up. ``jobs`` puts all of it in one order with what the other tables have.

**The order.** ``seq`` of facts, receipts and verdicts is from one counter, which the transaction
that writes takes from (``Database.take_seq``; there is one writer), so that any two of them can be
compared: what a search had seen, and what a verdict went by, is all up to a number. Starts, what
was handed on and descendants have the number of the batch that they arrived in. A number that is
taken and not committed is given again. Of a merged ledger each run has its numbers in its own
order, after those of the runs before it; the numbers of two runs are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from pydantic import JsonValue, TypeAdapter

from pytest_manifest.ledger.database import Database, LedgerPart, chunks, placeholders
from pytest_manifest.ledger.rows import Row, Start
from pytest_manifest.schema import PARSED
from pytest_manifest.schema.facts import FactSource, Kind, Started
from pytest_manifest.schema.run_facts import KINDS, JobFact, RunFact

_OF_RUN, OF_ENTRY, OF_JOB = range(3)
"""What a number is of: a run, an entry, or a job."""
_COLUMNS: Final = ("execution", "hop", "retries", "redelivered", "worker", "pid")
"""Fields that have a column of their own; all others are in ``data``."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NUMBER: Final = "(SELECT n FROM numbers WHERE kind = ? AND name = ?)"
_APPEND: Final = f"""
    INSERT INTO facts (
        seq, entry, job, kind, at, source, {", ".join(_COLUMNS)}, data
    ) VALUES (?, {_NUMBER}, coalesce({_NUMBER}, 0), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - fixed text
_READ: Final = f"""
    SELECT e.kind, e.name, f.seq, j.name, f.kind, f.at, f.source, {", ".join(_COLUMNS)}, f.data
    FROM facts f JOIN numbers e ON e.n = f.entry LEFT JOIN numbers j ON j.n = f.job
"""  # noqa: S608 - fixed text


Owned: TypeAlias = tuple[str | None, JobFact | RunFact]
"""A fact, and the entry that it is of; None: it is of the run."""


class StoredFact(NamedTuple):
    """A fact, and the entry that it is of; of a fact of a run that is None, and ``run`` its id."""

    entry: str | None
    run: str | None
    fact: JobFact | RunFact


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
        rows = list(facts)
        if not rows:
            return
        if run is None:
            found = self._db.read_one("SELECT value FROM run WHERE key = 'run'")
            run = "" if found is None else str(found[0])
        owners = [_owner(run, entry) for entry, _ in rows]
        self.of_run_added += sum(entry is None for entry, _ in rows)
        jobs = [(OF_JOB, fact.job) for _, fact in rows if fact.job]
        with self._db.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO numbers (kind, name) VALUES (?, ?)",
                dict.fromkeys([*owners, *jobs]),
            )
            numbered = enumerate(rows, self._db.take_seq(len(rows)))
            db.executemany(
                _APPEND,
                ((seq, *_owner(run, entry), *_row(fact)) for seq, (entry, fact) in numbered),
            )

    def last_seq(self) -> int:
        """Return the last number of the ledger's order; 0 before anything has one."""
        return self._db.last_seq()

    def of_entry(self, entry: str) -> list[JobFact | RunFact]:
        """Return the facts of an entry's jobs, in their order."""
        return self._of(OF_ENTRY, entry)

    def of_entries(self, entries: Sequence[str]) -> Iterator[JobFact | RunFact]:
        """Yield the facts of the jobs of these entries, those of each in their order."""
        for some in chunks(entries):
            numbers = f"SELECT n FROM numbers WHERE kind = ? AND name IN ({placeholders(some)})"  # noqa: S608 - question marks
            which = f"WHERE f.entry IN ({numbers}) ORDER BY f.entry, f.seq"
            yield from (one.fact for one in self._read(which, (OF_ENTRY, *some)))

    def owners(self, entries: Sequence[str]) -> set[str]:
        """Return those of these entries that have facts in this table."""
        query = f"SELECT name FROM numbers WHERE kind = {OF_ENTRY} AND name IN ({{}})"  # noqa: S608 - fixed text
        return self._present(query, entries)

    def of_jobs(self, entry: str, task_ids: Sequence[str]) -> Iterator[JobFact | RunFact]:
        """Yield the facts of some of an entry's jobs, in their order."""
        for some in chunks(task_ids):
            numbers = f"SELECT n FROM numbers WHERE kind = ? AND name IN ({placeholders(some)})"  # noqa: S608 - question marks
            which = f"WHERE f.entry = {_NUMBER} AND f.job IN ({numbers}) ORDER BY f.seq"
            values: list[str | int] = [OF_ENTRY, entry, OF_JOB, *some]
            yield from (one.fact for one in self._read(which, values))

    def of_run(self, run: str) -> list[JobFact | RunFact]:
        """Return the facts of a run as a whole, in their order."""
        return self._of(_OF_RUN, run)

    def of_kind(self, kind: Kind) -> Iterator[StoredFact]:
        """Yield the facts of a kind, in their order."""
        return self._read("WHERE f.kind = ? ORDER BY f.seq", (kind,))

    def by_entry(self) -> Iterator[StoredFact]:
        """Yield all facts, those of an entry together and in their order."""
        return self._read("ORDER BY f.entry, f.seq")

    def after(self, seq: int) -> Iterator[StoredFact]:
        """Yield what was recorded after a position, in order."""
        return self._read("WHERE f.seq > ? ORDER BY f.seq", (seq,))

    def _of(self, kind: int, name: str) -> list[JobFact | RunFact]:
        which = f"WHERE f.entry = {_NUMBER} ORDER BY f.seq"
        return [one.fact for one in self._read(which, (kind, name))]

    def _read(self, which: str, values: Sequence[str | int] = ()) -> Iterator[StoredFact]:
        return self._db.build_each(_fact_of_row, _READ + which, values)


def _owner(run: str, entry: str | None) -> tuple[int, str]:
    return (_OF_RUN, run) if entry is None else (OF_ENTRY, entry)


@cache
def _adapter(kind: Kind) -> TypeAdapter[JobFact | RunFact]:
    return TypeAdapter(KINDS[kind])


def document_of(fact: JobFact | RunFact) -> dict[str, JsonValue]:
    """Return the fields of a fact that are not as by default, but for those that all facts have."""
    document: dict[str, JsonValue] = _adapter(fact.kind).dump_python(
        fact, mode="json", exclude={"seq", "at", "source", "job"}, exclude_defaults=True
    )
    return document


def _row(fact: JobFact | RunFact) -> Row:
    """Return a fact's columns in the order of :data:`_APPEND`, from its job on."""
    document = document_of(fact)
    columns = [document.pop(name, None) for name in _COLUMNS]
    data = json.dumps(document, ensure_ascii=False) if document else None
    return OF_JOB, fact.job, fact.kind, microseconds(fact.at), fact.source, *columns, data


def _fact_of_row(row: Row) -> StoredFact:
    of, name, seq, job, kind, at, source, *columns, data = row
    given = zip(_COLUMNS, columns, strict=True)
    values = {column: value for column, value in given if value is not None}
    values |= json.loads(data) if data is not None else {}
    values |= {"seq": seq, "at": moment_of(at), "source": FactSource(source), "job": job or ""}
    fact = _adapter(Kind(kind)).validate_python(values, context=PARSED)
    return StoredFact(name, None, fact) if of == OF_ENTRY else StoredFact(None, name, fact)


def started_of(start: Start, seq: int, at: datetime, source: FactSource) -> Started:
    """Return the fact of a start, under the name of its execution as its worker has given it."""
    name = start.execution
    return Started(
        seq=seq,
        at=at,
        source=source,
        job=start.task_id,
        execution=name.removesuffix(f".{start.pid}") if start.is_given_again else name,
        started_at=start.started_at,
        retries=start.retries,
        hop=start.hop,
        redelivered=start.redelivered,
        worker=start.worker,
        host=start.host,
        pid=start.pid,
        boot=start.boot,
        namespace=start.pid_namespace,
    )


def microseconds(at: datetime) -> int:
    """Return a moment as the table has it: microseconds since the epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment_of(at: int) -> datetime:
    """Return the moment (UTC) of such a number."""
    return _EPOCH + timedelta(microseconds=at)
