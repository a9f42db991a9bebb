"""Record the tasks that jobs start, and what is announced of more; read an attempt's tree."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.rows import Row, moment, text
from pytest_manifest.schema import Verdict, VerdictStatus

DESCENDANT_COLUMNS: Final = (
    "task_id, root, parent, task, how, queue, fulfils, spawned_at, kind, verdict"
)
"""Columns in the order of :func:`descendant_of_row`."""
ANNOUNCED_COLUMNS: Final = "root, key, announcer, how, task, number, task_ids, is_off"
_DESCENDANTS = f"SELECT {DESCENDANT_COLUMNS} FROM descendants "  # noqa: S608 - fixed text
_ANNOUNCED = f"SELECT {ANNOUNCED_COLUMNS} FROM announced "  # noqa: S608 - fixed text


@dataclass(frozen=True, slots=True)
class Descendant:
    """A task that a job has started, or another descendant of it.

    ``root`` and ``parent`` are the task ids of the attempt and of what started it; ``how``,
    ``queue`` and ``fulfils`` as ``stream_records.Child`` has them. ``status`` and ``verdict`` say
    how it ended, None before that.
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


@dataclass(frozen=True, slots=True)
class Announced:
    """Messages that are to come of an attempt's tree, by what ``announcer`` told at its end.

    See ``stream_records.Announcement``; ``number`` is its ``count``.
    """

    root: str
    key: str
    announcer: str
    how: str
    task: str
    number: int
    task_ids: Sequence[str]
    is_off: bool


class Descendants(LedgerPart):
    """Trees of attempts: each descendant, its parent, and its verdict."""

    def add(self, descendants: Iterable[Descendant]) -> None:
        """Record descendants without a verdict; one that is known stays as it is."""
        rows = [
            (
                *(one.task_id, one.root, one.parent, one.task, one.how, one.queue, one.fulfils),
                text(one.spawned_at),
            )
            for one in descendants
        ]
        if rows:
            with self._db.writing() as db:
                db.executemany(
                    "INSERT OR IGNORE INTO descendants "
                    "(task_id, root, parent, task, how, queue, fulfils, spawned_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )

    def announce(self, announced: Iterable[Announced]) -> None:
        """Record what is announced; the same again changes nothing."""
        rows = [
            (
                *(one.root, one.key, one.announcer, one.how, one.task, one.number),
                json.dumps(list(one.task_ids)),
                int(one.is_off),
            )
            for one in announced
        ]
        if rows:
            with self._db.writing() as db:
                db.executemany(
                    "INSERT OR IGNORE INTO announced VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
                )

    def end(self, verdicts: Mapping[str, Verdict]) -> None:
        """Record verdicts on descendants by task id, in place of earlier ones."""
        with self._db.writing() as db:
            db.executemany(
                "UPDATE descendants SET kind = ?, verdict = ? WHERE task_id = ?",
                (
                    (verdict.verdict, verdict.model_dump_json(), task_id)
                    for task_id, verdict in verdicts.items()
                ),
            )

    def reopen(self, roots: Iterable[str]) -> None:
        """Withdraw those verdicts on these attempts' descendants that are not final."""
        with self._db.writing() as db:
            db.executemany(
                "UPDATE descendants SET kind = NULL, verdict = NULL "
                "WHERE root = ? AND kind IN ('pending', 'unknown')",
                ((root,) for root in roots),
            )

    def known(self, task_ids: Sequence[str]) -> set[str]:
        """Return those of these task ids that are descendants'."""
        found: set[str] = set()
        for some in chunks(task_ids):
            query = f"SELECT task_id FROM descendants WHERE task_id IN ({placeholders(some)})"  # noqa: S608 - question marks
            found.update(str(row[0]) for row in self._db.read(query, some))
        return found

    def any(self) -> bool:
        """Return whether any job has started a task."""
        return self._db.read_one("SELECT 1 FROM descendants LIMIT 1") is not None

    def get(self, task_id: str) -> Descendant | None:
        query = _DESCENDANTS + "WHERE task_id = ?"
        return next(self._db.build_each(descendant_of_row, query, (task_id,)), None)

    def of_root(self, root: str, *, open_only: bool = False) -> Iterator[Descendant]:
        """Yield an attempt's descendants in the order of their starting; ``open_only``: those
        without a verdict."""
        which = "AND kind IS NULL " if open_only else ""
        query = f"{_DESCENDANTS} WHERE root = ? {which}ORDER BY spawned_at, task_id"
        return self._db.build_each(descendant_of_row, query, (root,))

    def statuses(self, root: str) -> Mapping[VerdictStatus | None, int]:
        """Count an attempt's descendants by status; None: without a verdict."""
        query = "SELECT kind, count(*) FROM descendants WHERE root = ? GROUP BY kind"
        return {kind: int(count) for kind, count in self._db.read(query, (root,))}

    def counts(self) -> Mapping[VerdictStatus | None, int]:
        """Count all descendants by status; None: without a verdict."""
        rows = self._db.read("SELECT kind, count(*) FROM descendants GROUP BY kind")
        return {kind: int(count) for kind, count in rows}

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

    def tasks(self, root: str) -> Collection[str]:
        """Return the names of the tasks of an attempt's descendants."""
        query = "SELECT DISTINCT task FROM descendants WHERE root = ?"
        return {str(row[0]) for row in self._db.read(query, (root,))}

    def first(self, root: str, status: VerdictStatus) -> Descendant | None:
        """Return the first started of an attempt's descendants with this status.

        Those without a verdict are pending ones, too.
        """
        query = (
            f"{_DESCENDANTS} WHERE root = ? AND coalesce(kind, 'pending') = ? "
            "ORDER BY spawned_at, task_id LIMIT 1"
        )
        return next(self._db.build_each(descendant_of_row, query, (root, status)), None)

    def announced(self, root: str) -> Iterator[Announced]:
        """Yield what was announced of an attempt's tree."""
        return self._db.build_each(_announced_of_row, _ANNOUNCED + "WHERE root = ?", (root,))


def descendant_of_row(row: Row) -> Descendant:
    """Build a descendant from the columns of :data:`DESCENDANT_COLUMNS`."""
    task_id, root, parent, task, how, queue, fulfils, spawned_at, kind, verdict = row
    judged = None if verdict is None else Verdict.model_validate_json(verdict)
    began = moment(spawned_at)
    return Descendant(task_id, root, parent, task, how, queue, fulfils, began, kind, judged)


def _announced_of_row(row: Row) -> Announced:
    root, key, announcer, how, task, number, task_ids, is_off = row
    ids = json.loads(task_ids)
    return Announced(root, key, announcer, how, task, number, ids, bool(is_off))
