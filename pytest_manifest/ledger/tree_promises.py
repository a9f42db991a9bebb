"""Find what contradicts itself in a ledger's trees: descendants that do not fit to a pass.

Each query reads whole tables in SQLite, and yields only what does not fit: memory stays flat.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pytest_manifest.ledger.database import LedgerPart
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.stream_records import HOW_AFTER

_TREES = """
    SELECT s.entry, coalesce(d.kind, 'pending'), d.task, d.task_id FROM settled s
    JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
    JOIN descendants d ON d.root = a.task_id
    WHERE s.kind = 'passed' AND d.kind IS NOT 'passed' AND d.kind IS NOT 'skipped'
    ORDER BY s.entry
"""
_UNEARNED_DESCENDANTS = """
    SELECT s.entry, d.task, d.task_id, CASE
        WHEN d.kind IS NOT json_extract(d.verdict, '$.verdict') THEN 'and its verdict differs'
        WHEN NOT EXISTS (
            SELECT 1 FROM receipts r WHERE r.task_id = d.task_id
                AND json_extract(r.receipt, '$.state') = 'succeeded'
        ) THEN 'and no receipt says so'
        WHEN EXISTS (
            SELECT 1 FROM starts t WHERE t.task_id = d.task_id
            GROUP BY t.hop, t.retries HAVING count(*) > 1
        ) THEN 'and it was begun twice'
        WHEN d.parent = d.task_id OR NOT EXISTS (
            SELECT 1 FROM attempts x WHERE x.task_id = d.parent
            UNION ALL
            SELECT 1 FROM descendants p WHERE p.task_id = d.parent AND p.root = d.root
        ) THEN 'and what started it is not known'
    END AS why FROM settled s
    JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
    JOIN descendants d ON d.root = a.task_id
    WHERE s.kind = 'passed' AND d.kind = 'passed' AND why IS NOT NULL
"""
_FEWER_CHILDREN = """
    SELECT entry, told, known FROM (
        SELECT s.entry AS entry, json_extract(s.receipt, '$.children') AS told, (
            SELECT count(*) FROM descendants d WHERE d.root = a.task_id AND d.parent = a.task_id
        ) AS known FROM settled s
        JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
        WHERE s.kind = 'passed' AND json_extract(s.receipt, '$.children') > 0
    ) WHERE told > known
"""
_FEWER_OF_DESCENDANTS = """
    SELECT s.entry, d.task, d.task_id, max(json_extract(r.receipt, '$.children')) AS told,
        coalesce(k.number, 0) AS known
    FROM settled s
    JOIN attempts a ON a.entry = s.entry AND a.attempt = s.attempt
    JOIN descendants d ON d.root = a.task_id
    JOIN receipts r ON r.task_id = d.task_id AND json_extract(r.receipt, '$.children') > 0
    LEFT JOIN (
        SELECT root, parent, count(*) AS number FROM descendants GROUP BY root, parent
    ) k ON k.root = d.root AND k.parent = d.task_id
    WHERE s.kind = 'passed'
    GROUP BY d.task_id HAVING told > known
"""
# Counted once for all keys: a job may announce as much as it starts. CROSS JOIN: in this order.
# Handlers of a task's end may start as much as they like, and need not start anything.
_UNFULFILLED = f"""
    SELECT s.entry, n.how, max(n.number) - max(
        coalesce(f.number, 0),
        (SELECT count(*) FROM json_each(n.task_ids) j
            CROSS JOIN descendants d ON d.task_id = j.value AND d.root = n.root)
    ) AS missing FROM announced n
    JOIN attempts a ON a.task_id = n.root
    JOIN settled s ON s.entry = a.entry AND s.attempt = a.attempt
    LEFT JOIN (
        SELECT root, fulfils, count(*) AS number FROM descendants
        WHERE fulfils IS NOT NULL GROUP BY root, fulfils
    ) f ON f.root = n.root AND f.fulfils = n.key
    WHERE s.kind = 'passed' AND n.how <> '{HOW_AFTER}'
    GROUP BY n.root, n.key HAVING max(n.is_off) = 0 AND missing > 0
"""  # noqa: S608 - fixed text


class TreePromiseQueries(LedgerPart):
    """Queries for what must not be in the trees of entries that have passed."""

    def unsuccessful_descendants(
        self,
    ) -> Generator[tuple[str, VerdictStatus, str, str], None, None]:
        """Yield ``(entry, status, task, task_id)`` of what did not succeed in passed trees."""
        yield from self._db.read(_TREES)

    def unearned_descendants(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield ``(entry, task, task_id, why)`` of what did not earn its pass in passed trees."""
        yield from self._db.read(_UNEARNED_DESCENDANTS)

    def fewer_children(self) -> Iterator[tuple[str, int, int]]:
        """Yield passed entries with the children that were counted, and the fewer told of."""
        yield from self._db.read(_FEWER_CHILDREN)

    def fewer_children_of_descendants(self) -> Iterator[tuple[str, str, str, int, int]]:
        """Yield the same of descendants of passed entries: ``(entry, task, task_id, told, known)``.

        The largest number counts of those that its receipts have.
        """
        yield from self._db.read(_FEWER_OF_DESCENDANTS)

    def unfulfilled(self) -> Iterator[tuple[str, str, int]]:
        """Yield passed entries with what was announced of their trees, and how many never came."""
        yield from self._db.read(_UNFULFILLED)
