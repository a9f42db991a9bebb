"""Record the tasks that jobs start, and what is announced of more; read an attempt's tree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final, NamedTuple

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.rows import NEWEST_FIRST, Row, moment, refuse_no_status, text
from pytest_manifest.schema import Verdict, VerdictStatus
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.statuses import OF_ITS_PROCESS, in_sql
from pytest_manifest.schema.wire import parse_timestamp

DESCENDANT_COLUMNS: Final = (
    "task_id, root, parent, task, how, queue, fulfils, spawned_at, kind, verdict, chords, due, "
    "broker"
)
"""Columns in the order of :func:`descendant_of_row`."""
_DESCENDANTS = f"SELECT {DESCENDANT_COLUMNS} FROM descendants "  # noqa: S608 - fixed text
_UNTOLD = f"""NOT EXISTS (
    SELECT 1 FROM receipts r WHERE r.job = descendants.n AND NOT EXISTS (
        SELECT 1 FROM facts h WHERE h.job = r.job AND h.kind = {Kind.HANDED_ON:d}
            AND h.execution = r.execution AND h.how <> 'canvas'
    )
)"""  # noqa: S608 - fixed text
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
    ``queue``, ``fulfils``, ``chords`` and ``due`` as ``records.Child`` has them. ``broker``:
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

        They have no verdict yet, or one for want of it. That of an execution which has handed its
        job on is none.
        """
        query = f"{_DESCENDANTS} WHERE root = ? AND {_UNTOLD} ORDER BY spawned_at, task_id"
        return self._db.build_each(descendant_of_row, query, (root,))

    def number_of_children(self, parent: str, root: str) -> int:
        """Count the tasks that one task of an attempt's tree has started."""
        query = "SELECT count(*) FROM descendants WHERE root = ? AND parent = ?"
        return self._db.number(query, (root, parent))

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

    def first(self, root: str, statuses: Sequence[VerdictStatus]) -> Descendant | None:
        """Return the first started of an attempt's descendants with one of these statuses.

        Those without a verdict are pending ones, too. One that was handed on to other tasks comes
        after these, and one that was announced and never sent after all that were.
        """
        query = (
            f"{_DESCENDANTS} WHERE root = ? "
            f"AND coalesce(kind, 'pending') IN ({','.join('?' * len(statuses))}) "
            f"ORDER BY {_WAS_SPLIT}, spawned_at IS NULL, spawned_at, task_id LIMIT 1"
        )
        return next(self._db.build_each(descendant_of_row, query, (root, *statuses)), None)


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


Statuses = Mapping[VerdictStatus | None, int]
"""Numbers of descendants by status; None: without a verdict."""

_NEWEST = "a.attempt = (SELECT max(b.attempt) FROM jobs b WHERE b.name = a.entry)"
_OWN = "a.state <> 'reused'"
"""What was reused has run in another run, and so have its descendants."""
# {}: what is counted by, which descendants, and which of their attempts.
_COUNTS = """
    SELECT {}, t.status, sum(t.number) FROM (
        SELECT root, status, count(*) AS number FROM jobs
        WHERE root > 0 AND how IS NOT NULL {} GROUP BY root, status
    ) t JOIN attempts a ON a.n = t.root WHERE {} GROUP BY 1, t.status ORDER BY 1, t.status
"""
_AMONG = "AND root IN (SELECT n FROM jobs WHERE {} IN (SELECT value FROM json_each(?)))"
_STATUSES = _COUNTS.format("''", "", f"{_NEWEST} AND {_OWN}")
_BY_ROOT = _COUNTS.format("a.task_id", _AMONG.format("id"), "TRUE")
_BY_ENTRY = _COUNTS.format("a.entry", "", _NEWEST)
_OF_ENTRIES = _COUNTS.format("''", _AMONG.format("name"), _NEWEST)
_WITH_SOME = f"""
    SELECT count(*) FROM (SELECT DISTINCT root FROM descendants) t
    JOIN attempts a ON a.task_id = t.root WHERE {_NEWEST} AND {_OWN}
"""  # noqa: S608 - fixed text
# Only the process that ran a job can say what it started; of others all was told that there is.
_UNTOLD_ENTRIES = f"""
    SELECT CASE WHEN source = 'backend' THEN 'stock' WHEN children IS NULL THEN 'older'
        WHEN children > told OR is_short THEN 'fewer' ELSE 'silent' END, count(*)
    FROM (
        SELECT s.entry, coalesce(json_extract(receipt, '$.source'), 'worker') AS source,
            json_extract(receipt, '$.state') AS state,
            json_extract(receipt, '$.children') AS children, (
                SELECT count(*) FROM descendants d WHERE json_extract(receipt, '$.children') > 0
                AND d.root = a.task_id AND d.parent = a.task_id
            ) AS told, u.is_short AS is_short
        FROM settled s JOIN attempts a ON a.n = s.job
        LEFT JOIN (SELECT root, max(is_short) AS is_short FROM ({untold()}) GROUP BY root) u
            ON u.root = a.task_id
        WHERE receipt IS NOT NULL
    )
    WHERE source <> 'harness' AND state IN {in_sql(OF_ITS_PROCESS)}
        AND (source = 'backend' OR children IS NULL OR children > told OR is_short IS NOT NULL)
    GROUP BY 1
"""  # noqa: S608 - fixed text

# Times as days. Those of a forged receipt are not credible.
_END = "julianday(json_extract(r.receipt, '$.finished_at'))"
_SLOWEST = f"""
    SELECT root, entry, 86400 * (ended - coalesce(
        (SELECT min(julianday(started_at)) FROM starts WHERE task_id = root),
        (SELECT min(julianday(json_extract(r.receipt, '$.started_at'))) FROM receipts r
            WHERE r.task_id = root),
        julianday(sent_at)
    )) AS took
    FROM (
        SELECT d.root AS root, max({_END}) AS ended
        FROM descendants d JOIN receipts r ON r.job = d.n
        WHERE d.kind IS NOT 'forged' GROUP BY d.root
    ) JOIN attempts a ON a.task_id = root
    WHERE {_NEWEST} AND {_OWN} AND took IS NOT NULL ORDER BY took DESC, root LIMIT 1
"""  # noqa: S608 - fixed text
_LAST_END = f"""
    SELECT d.task_id FROM descendants d JOIN receipts r ON r.job = d.n
    WHERE d.root = ? AND d.kind IS NOT 'forged' AND {_END} IS NOT NULL
    ORDER BY {_END} DESC, d.task_id LIMIT 1
"""  # noqa: S608 - fixed text
_PARENT = "SELECT parent FROM descendants WHERE root = ? AND task_id = ?"
_STARTED = "SELECT min(started_at) FROM starts WHERE task_id = ?"
_RECEIVED = """
    SELECT json_extract(receipt, '$.started_at'), json_extract(receipt, '$.finished_at'),
        json_extract(receipt, '$.task') FROM receipts WHERE task_id = ? ORDER BY seq DESC LIMIT 1
"""
_OF_TASK = "SELECT task, kind, spawned_at FROM descendants WHERE task_id = ?"
_LAST_OF_ALL = f"""
    SELECT json_extract(r.receipt, '$.finished_at')
    FROM descendants d JOIN receipts r ON r.job = d.n
    WHERE d.kind IS NOT 'forged'
        AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = d.root AND NOT {_OWN})
    ORDER BY julianday(json_extract(r.receipt, '$.finished_at')) DESC LIMIT 1
"""  # noqa: S608 - fixed text

_CHILDREN = """
    SELECT task_id, parent FROM descendants WHERE root = ? ORDER BY spawned_at DESC, task_id DESC
"""
_ONE = f"SELECT {DESCENDANT_COLUMNS} FROM descendants WHERE task_id = ?"  # noqa: S608 - fixed text
_JUDGED = """
    SELECT coalesce(json_extract(a.reused_from, '$[1]'), a.entry),
        coalesce(json_extract(a.reused_from, '$[2]'), a.attempt),
        d.root, d.parent, d.task_id, d.task, d.how, d.spawned_at, d.kind, d.verdict,
        (SELECT count(*) FROM starts t WHERE t.job = d.n),
        (SELECT count(*) FROM receipts r WHERE r.job = d.n),
        (SELECT r.receipt FROM receipts r WHERE r.job = d.n LIMIT 1)
    FROM settled s
    JOIN attempts a ON a.n = s.job
    JOIN descendants d ON d.root = a.task_id ORDER BY s.seq, d.kind, d.task_id
"""


@dataclass(frozen=True, slots=True)
class TreeTotals:
    """The descendants of a run's newest attempts.

    ``statuses``: how many there are by status; ``entries``: how many entries have some. ``untold``:
    of how many entries the descendants are not known, by the reason: "stock" (their workers send no
    receipts), "older" (they tell nothing of descendants), "fewer" (not of all that were started,
    by the job or by a descendant), "silent" (the workers of some descendants tell nothing).
    """

    statuses: Statuses = field(default_factory=dict)
    entries: int = 0
    untold: Mapping[str, int] = field(default_factory=dict)


class SlowestTree(NamedTuple):
    """The attempt whose tree took longest: from its start to the last end, ``seconds``."""

    root: str
    entry: str
    seconds: float


class TreeStep(NamedTuple):
    """A task of a tree: its times, as far as they are known, and how it ended.

    ``spawned_at``: when its parent sent it; None for the attempt itself.
    """

    task_id: str
    task: str
    spawned_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    status: VerdictStatus | None


class JudgedDescendant(NamedTuple):
    """A descendant of an attempt that has its entry's verdict, as it is stored.

    ``entry`` and ``attempt``: of one that was reused, those of the run that it was sent in.
    ``spawned_at``, ``verdict`` and ``receipt`` are texts, not parsed; ``receipt`` is one of
    ``receipts``.
    """

    entry: str
    attempt: int
    root: str
    parent: str
    task_id: str
    task: str
    how: str
    spawned_at: str | None
    status: VerdictStatus | None
    verdict: str | None
    starts: int
    receipts: int
    receipt: str | None


def _started(first: str | None, last: str | None, *, is_descendant: bool) -> datetime | None:
    """Return when a task began: a descendant its last try, as it is drawn, a job its first one."""
    moments = (last, first) if is_descendant else (first, last)
    return next((parse_timestamp(one) for one in moments if one is not None), None)


class TreeQueries(LedgerPart):
    """Queries of many trees, or of the whole of one."""

    def totals(self) -> TreeTotals:
        """Count the descendants of the run, and the entries of which they are not known."""
        untold = {reason: int(number) for reason, number in self._db.read(_UNTOLD_ENTRIES)}
        entries = self._db.number(_WITH_SOME)
        if not entries:
            return TreeTotals(untold=untold)
        return TreeTotals(self.statuses(), entries, untold)

    def statuses(self) -> Statuses:
        """Count the descendants of the run's newest attempts by status, without reused ones."""
        return dict(self._counted(_STATUSES)).get("", {})

    def statuses_of(self, roots: Sequence[str]) -> dict[str, Statuses]:
        """Count the descendants of these attempts by status; those without any are left out."""
        return dict(self._counted(_BY_ROOT, roots))

    def statuses_of_entries(self, entries: Sequence[str]) -> Statuses:
        """Count the descendants of these entries' newest attempts by status."""
        return dict(self._counted(_OF_ENTRIES, entries)).get("", {})

    def by_entry(self) -> Iterator[tuple[str, Statuses]]:
        """Yield each entry whose newest attempt has descendants, and these by status.

        In the order of the ids.
        """
        return self._counted(_BY_ENTRY)

    def _counted(
        self, query: str, names: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Statuses]]:
        values = () if names is None else (json.dumps(names, ensure_ascii=False),)
        for name, some in groupby(self._db.read(query, values), key=lambda row: str(row[0])):
            yield name, {kind: int(number) for _, kind, number in some}

    def slowest(self) -> SlowestTree | None:
        """Return the tree that took longest; None where there is none with times."""
        row = self._db.read_one(_SLOWEST)
        return None if row is None else SlowestTree(str(row[0]), str(row[1]), float(row[2]))

    def last_end(self) -> datetime | None:
        """Return when the last descendant of the run's own attempts ended; None: none has."""
        row = self._db.read_one(_LAST_OF_ALL)
        return None if row is None else parse_timestamp(row[0])

    def path(self, root: str) -> list[str]:
        """Return the task ids from an attempt to that of its descendants which ended last."""
        row = self._db.read_one(_LAST_END, (root,))
        found: list[str] = []
        while row is not None and row[0] != root and row[0] not in found:
            found.append(str(row[0]))
            row = self._db.read_one(_PARENT, (root, row[0]))
        return [root, *reversed(found)]

    def step(self, task_id: str) -> TreeStep:
        """Return what is known of one task of a tree, or of the attempt itself."""
        known = self._db.read_one(_OF_TASK, (task_id,)) or (None, None, None)
        with self._db.parse_errors():
            refuse_no_status(known[1])
        began = self._db.read_one(_STARTED, (task_id,)) or (None,)
        started, finished, task = self._db.read_one(_RECEIVED, (task_id,)) or (None, None, None)
        return TreeStep(
            task_id,
            known[0] or task or task_id,
            parse_timestamp(known[2]),
            _started(began[0], started, is_descendant=known[0] is not None),
            parse_timestamp(finished),
            known[1],
        )

    def walk(self, root: str, limit: int) -> Iterator[tuple[int, Descendant]]:
        """Yield an attempt's descendants with their depth, from 1, each after what started it.

        At most ``limit``, all where that is 0. One whose parent is not known is left out.
        """
        children: dict[str, list[str]] = {}
        for task_id, parent in self._db.read(_CHILDREN, (root,)):
            children.setdefault(parent, []).append(task_id)
        left, found = limit or -1, [(1, one) for one in children.pop(root, ())]
        while found and left:
            depth, task_id = found.pop()
            left -= 1
            found += [(depth + 1, one) for one in children.pop(task_id, ())]
            yield depth, next(self._db.build_each(descendant_of_row, _ONE, (task_id,)))

    def judged(self) -> Iterator[JudgedDescendant]:
        """Yield each descendant of the attempts that have the verdicts, unparsed."""
        return (JudgedDescendant(*row) for row in self._db.read(_JUDGED))
