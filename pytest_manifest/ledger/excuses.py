"""Keep what excuses reports: it is of the attempts that were in flight when it happened."""

from __future__ import annotations

from typing import Final

from pytest_manifest.ledger.database import LedgerPart

# What came of an attempt before was read from a store that had all, by a clock that went right. An
# execution after which its job goes on is no end of it.
_IN_FLIGHT: Final = """
    state NOT IN ('planned', 'withheld', 'reused') AND NOT EXISTS (
        SELECT 1 FROM receipts r WHERE r.task_id = attempts.task_id AND NOT EXISTS (
            SELECT 1 FROM handed_on h WHERE h.task_id = r.task_id AND h.execution = r.execution
        )
    )
"""


class Excuses(LedgerPart):
    """The excuses of single attempts: a store that may have lost starts, a clock set back."""

    def note_lost_starts(self) -> None:
        """Record that a store may have lost the starts of all that is in flight now."""
        with self._db.writing() as db:
            db.execute(f"UPDATE attempts SET starts_lost = 1 WHERE {_IN_FLIGHT}")  # noqa: S608 - fixed text
            db.execute("UPDATE descendants SET starts_lost = 1 WHERE kind IS NULL")

    def note_lost_starts_of(self, task_id: str) -> None:
        """Record that a store may have lost starts of an attempt, or of a descendant."""
        with self._db.writing() as db:
            for table in ("attempts", "descendants"):
                db.execute(f"UPDATE {table} SET starts_lost = 1 WHERE task_id = ?", (task_id,))  # noqa: S608 - fixed text

    def may_lack_starts(self, task_id: str) -> bool:
        """Return whether a store may have lost starts of an attempt, or of a descendant."""
        query = """
            SELECT 1 FROM attempts WHERE task_id = ? AND starts_lost
            UNION ALL SELECT 1 FROM descendants WHERE task_id = ? AND starts_lost
        """
        return self._db.read_one(query, (task_id, task_id)) is not None

    def note_set_back(self, by: float, most: float) -> None:
        """Record that the clock was set ``by`` so many seconds back, while things were in flight.

        ``most``: by how much it is behind the most that it ever was ahead.
        """
        with self._db.writing() as db:
            db.execute(
                "UPDATE attempts SET set_back = max(set_back, min(set_back + ?, ?)) "  # noqa: S608 - fixed text
                f"WHERE {_IN_FLIGHT}",
                (by, most),
            )

    def set_back(self, task_id: str) -> float:
        """Return by how many seconds the clock was set back while an attempt was in flight."""
        row = self._db.read_one("SELECT set_back FROM attempts WHERE task_id = ?", (task_id,))
        return 0.0 if row is None else float(row[0])
