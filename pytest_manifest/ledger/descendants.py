"""Record the tasks that jobs start, and what is announced of more; read an attempt's tree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pytest_manifest.ledger.database import LedgerPart, placeholders
from pytest_manifest.ledger.rows import (
    NEWEST_FIRST,
    Row,
    moment,
    refuse_no_status,
    text,
)
from pytest_manifest.schema import Verdict, VerdictStatus
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import OF_ITS_PROCESS, in_sql

DESCENDANT_COLUMNS: Final = (
    "task_id, root, parent, task, how, queue, fulfils, spawned_at, kind, verdict, chords, due, "
    "broker"
)
"""Columns in the order of :func:`descendant_of_row`."""
_DESCENDANTS = f"SELECT {DESCENDANT_COLUMNS} FROM descendants "  # noqa: S608 - fixed text
_UNTOLD = "NOT EXISTS (SELECT 1 FROM receipts r WHERE r.job = descendants.n)"
_WAS_SPLIT = f"""EXISTS (
    SELECT 1 FROM facts h
    WHERE h.job = descendants.n AND h.kind = {Kind.HANDED_ON:d} AND h.how = 'canvas'
)"""  # noqa: S608 - fixed text
_TOLD = f"""
    SELECT d.task_id, d.parent, d.task, d.how, d.spawned_at, d.kind,
        CASE WHEN d.kind IS NOT 'passed' THEN d.verdict END,
        (SELECT receipt FROM receipts r WHERE r.job = d.n ORDER BY r.seq DESC LIMIT 1),
        s.started_at, s.worker, s.host, s.pid, s.retries
    FROM descendants d LEFT JOIN facts s ON s.seq = (
        SELECT t.seq FROM starts t WHERE t.job = d.n ORDER BY {NEWEST_FIRST} LIMIT 1
    )
"""  # noqa: S608 - fixed text


@dataclass(frozen=True, slots=True)
class Descendant:
    """A task that a job has started, or another descendant of it.

    ``root`` and ``parent`` are the task ids of the attempt and of what started it; ``how``,
    ``queue``, ``fulfils``, ``chords`` and ``due`` as ``stream_records.Child`` has them. ``broker``:
    where it was sent, if that is not its parent's own. ``status`` and ``verdict`` say how it ended,
    None before that.
    """

    task_id: str
    root: str
    parent: str
    task: str
    how: str
    queue: str | None = None
    fulfils: str | None = None
    spawned_at: datetime | None = None
    status: VerdictStatus | None = None
    verdict: Verdict | None = None
    chords: tuple[str, ...] | None = None
    due: datetime | None = None
    broker: str | None = None

    @property
    def delay(self) -> float:
        """Return the seconds of its countdown, or until its ETA."""
        if self.due is None or self.spawned_at is None:
            return 0.0
        return max((self.due - self.spawned_at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class ToldDescendant:
    """A descendant with the last start and the last receipt that workers told of it.

    ``verdict`` and ``receipt`` are JSON, not parsed; a verdict of those that passed is left out.
    """

    task_id: str
    parent: str
    task: str
    how: str
    spawned_at: datetime | None
    status: VerdictStatus | None
    verdict: str | None
    receipt: str | None
    started_at: datetime | None
    worker: str | None
    host: str | None
    pid: int | None
    retries: int | None


_ADD: Final = """
    INSERT INTO jobs (
        id, entry, run, root, parent, task, how, queue, fulfils, spawned_at, chords, due, seq
    )
    SELECT ?, r.entry, r.run, r.n, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM jobs r WHERE r.id = ?
    ON CONFLICT (id) DO UPDATE SET (
        entry, run, root, parent, task, how, queue, fulfils, spawned_at, chords, due, seq
    ) = (
        excluded.entry, excluded.run, excluded.root, excluded.parent, excluded.task, excluded.how,
        excluded.queue, excluded.fulfils, excluded.spawned_at, excluded.chords, excluded.due,
        excluded.seq
    ) WHERE name IS NULL AND how IS NULL
"""
_ANY: Final = "SELECT 1 FROM jobs WHERE root > 0 AND how IS NOT NULL LIMIT 1"


class Descendants(LedgerPart):
    """Trees of attempts: each descendant, its parent, and its verdict."""

    def add(self, descendants: Iterable[Descendant]) -> None:
        """Record descendants without a verdict; one that is known stays as it is."""
        rows = [
            (
                *(one.task_id, one.parent, one.task, one.how, one.queue, one.fulfils),
                text(one.spawned_at),
                None if one.chords is None else json.dumps(one.chords),
                *(text(one.due), one.root),
            )
            for one in descendants
        ]
        if rows:
            with self._db.writing() as db:
                seq = self._db.take_seq()
                self._name_jobs(row[-1] for row in rows)
                db.executemany(_ADD, ((*row[:-1], seq, row[-1]) for row in rows))

    def end(self, verdicts: Mapping[str, Verdict]) -> None:
        """Record verdicts on descendants by task id, in place of earlier ones."""
        with self._db.writing() as db:
            db.executemany(
                "UPDATE jobs SET status = ?, verdict = ? WHERE id = ? AND root IS NOT NULL",
                (
                    (verdict.verdict, verdict.model_dump_json(), task_id)
                    for task_id, verdict in verdicts.items()
                ),
            )

    def mark_elsewhere(self, brokers: Mapping[str, str]) -> None:
        """Record the brokers that descendants were sent to, by task id."""
        if brokers:
            with self._db.writing() as db:
                db.executemany(
                    "UPDATE jobs SET broker = ? WHERE id = ? AND root IS NOT NULL",
                    ((broker, task_id) for task_id, broker in brokers.items()),
                )

    def known(self, task_ids: Sequence[str]) -> set[str]:
        """Return those of these task ids that are descendants'."""
        return self._present("SELECT id FROM jobs WHERE id IN ({}) AND how IS NOT NULL", task_ids)

    def any(self) -> bool:
        """Return whether any job has started a task."""
        return self._db.read_one(_ANY) is not None

    def get(self, task_id: str) -> Descendant | None:
        query = _DESCENDANTS + "WHERE task_id = ?"
        return next(self._db.build_each(descendant_of_row, query, (task_id,)), None)

    def of_root(self, root: str, *, open_only: bool = False) -> Iterator[Descendant]:
        """Yield an attempt's descendants in the order of their starting; ``open_only``: those
        without a verdict."""
        which = "AND kind IS NULL " if open_only else ""
        query = f"{_DESCENDANTS} WHERE root = ? {which}ORDER BY spawned_at, task_id"
        return self._db.build_each(descendant_of_row, query, (root,))

    def sizes(self) -> Iterator[int]:
        """Yield how many descendants each attempt has that has some, in no order."""
        rows = self._db.read("SELECT count(*) FROM descendants GROUP BY root")
        return (int(row[0]) for row in rows)

    def roots(self, roots: Sequence[str]) -> set[str]:
        """Return those of these attempts' task ids that have descendants."""
        return self._present("SELECT DISTINCT root FROM descendants WHERE root IN ({})", roots)

    def told(self, root: str) -> Iterator[ToldDescendant]:
        """Yield an attempt's descendants with what was told of each, in no order."""
        return self._db.build_each(_told_of_row, f"{_TOLD} WHERE d.root = ?", (root,))

    def without_end(self, root: str) -> Iterator[Descendant]:
        """Yield those of an attempt's descendants of which no worker told the end.

        They have no verdict yet, or one for want of it.
        """
        query = f"{_DESCENDANTS} WHERE root = ? AND {_UNTOLD} ORDER BY spawned_at, task_id"
        return self._db.build_each(descendant_of_row, query, (root,))

    def number_of_children(self, parent: str, root: str) -> int:
        """Count the tasks that one task of an attempt's tree has started."""
        query = "SELECT count(*) FROM descendants WHERE root = ? AND parent = ?"
        row = self._db.read_one(query, (root, parent))
        return 0 if row is None else int(row[0])

    def fulfilled(self, root: str) -> Mapping[str, int]:
        """Count an attempt's descendants that were announced, by the announcement's key."""
        query = (
            "SELECT fulfils, count(*) FROM descendants "
            "WHERE root = ? AND fulfils IS NOT NULL GROUP BY fulfils"
        )
        return {key: int(count) for key, count in self._db.read(query, (root,))}

    def number_untold(self, root: str) -> tuple[int, int]:
        """Count an attempt's descendants whose own children are not all known.

        Those that count more than are known, and those whose workers told nothing of any.
        """
        query = f"SELECT count(*), total(is_short) FROM ({untold('root = ?')})"  # noqa: S608 - fixed text
        number, short = self._db.read_one(query, (root, root)) or (0, 0)
        return int(short), int(number - short)

    def first(
        self, root: str, statuses: Sequence[VerdictStatus], *, untold: VerdictStatus | None = None
    ) -> Descendant | None:
        """Return the first started of an attempt's descendants with one of these statuses.

        Those without a verdict are pending ones, too. With the status ``untold`` only those count
        of which no worker told the end. One that was handed on to other tasks comes after these,
        and one that was announced and never sent after all that were.
        """
        query = (
            f"{_DESCENDANTS} WHERE root = ? "
            f"AND coalesce(kind, 'pending') IN ({placeholders(statuses)}) "
            f"AND (kind IS NOT ? OR {_UNTOLD}) "
            f"ORDER BY {_WAS_SPLIT}, spawned_at IS NULL, spawned_at, task_id LIMIT 1"
        )
        values = (root, *statuses, untold or "")
        return next(self._db.build_each(descendant_of_row, query, values), None)


def untold(where: str = "TRUE") -> str:
    """Return a query of descendants whose own children are not all known, by their root.

    ``is_short``: whether a receipt counts more of them than are known; of others it counts none.
    ``where``: a condition on the descendants that are looked at, and on their children.
    """
    return f"""
        SELECT t.root AS root, coalesce(t.children > coalesce(k.known, 0), 0) AS is_short FROM (
            SELECT d.root, d.task_id, max(json_extract(r.receipt, '$.children')) AS children,
                max(json_extract(r.receipt, '$.state') IN {in_sql(OF_ITS_PROCESS)})
                    AS ended
            FROM descendants d JOIN receipts r ON r.job = d.n WHERE {where}
            GROUP BY d.n
        ) t LEFT JOIN (
            SELECT root, parent, count(*) AS known FROM descendants WHERE {where}
            GROUP BY root, parent
        ) k ON k.root = t.root AND k.parent = t.task_id
        WHERE is_short OR (t.children IS NULL AND t.ended)
    """  # noqa: S608 - fixed text


def descendant_of_row(row: Row) -> Descendant:
    """Build a descendant from the columns of :data:`DESCENDANT_COLUMNS`."""
    task_id, root, parent, task, how, queue, fulfils, spawned_at, kind, verdict, *rest = row
    chords, due, broker = rest
    refuse_no_status(kind)
    judged = None if verdict is None else Verdict.model_validate_json(verdict)
    return Descendant(
        *(task_id, root, parent, task, how, queue, fulfils, moment(spawned_at), kind, judged),
        chords=None if chords is None else tuple(json.loads(chords)),
        due=moment(due),
        broker=broker,
    )


def _told_of_row(row: Row) -> ToldDescendant:
    task_id, parent, task, how, spawned_at, kind, verdict, receipt, started_at, *where = row
    refuse_no_status(kind)
    spawned, started = moment(spawned_at), moment(started_at)
    return ToldDescendant(
        task_id, parent, task, how, spawned, kind, verdict, receipt, started, *where
    )
