"""Read the trees of many attempts at once, by SQL: memory does not grow with their number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.ledger.descendants import (
    DESCENDANT_COLUMNS,
    Descendant,
    descendant_of_row,
    untold,
)
from pytest_manifest.ledger.rows import refuse_no_status
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import OF_ITS_PROCESS, in_sql
from pytest_manifest.schema.wire import parse_timestamp

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
_UNTOLD = f"""
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

# SQLite takes the row of the queue with the greatest depth next, so children follow their parent;
# it drops that order where the result is joined. The first limit keeps it from reading the table
# anew for each parent: it copies and indexes these rows.
_WALK = """
    WITH RECURSIVE
    mine AS (SELECT task_id, parent, spawned_at FROM descendants WHERE root = ? LIMIT -1),
    tree(task_id, depth, began) AS (
        SELECT ?, 0, ''
        UNION ALL
        SELECT m.task_id, tree.depth + 1, m.spawned_at FROM tree
        JOIN mine m ON m.parent = tree.task_id AND m.task_id <> ?
        ORDER BY 2 DESC, 3, 1
    )
    SELECT depth, task_id FROM tree WHERE depth > 0 LIMIT ?
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
        untold = {reason: int(number) for reason, number in self._db.read(_UNTOLD)}
        with_some = self._db.read_one(_WITH_SOME)
        entries = 0 if with_some is None else int(with_some[0])
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
        for depth, task_id in self._db.read(_WALK, (root, root, root, limit or -1)):
            yield int(depth), next(self._db.build_each(descendant_of_row, _ONE, (task_id,)))

    def version(self) -> str:
        """Return a text that changes when descendants come or end; "" where there are none."""
        query = "SELECT count(*), count(kind), total(kind = 'passed') FROM descendants"
        row = self._db.read_one(query) or (0, 0, 0)
        return f" {row[0]}/{row[1]}/{row[2]:.0f}" if row[0] else ""

    def judged(self) -> Iterator[JudgedDescendant]:
        """Yield each descendant of the attempts that have the verdicts, unparsed."""
        return (JudgedDescendant(*row) for row in self._db.read(_JUDGED))
