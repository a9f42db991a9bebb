"""Whether a ledger contradicts itself: somebody may have written into it who is not we."""

from __future__ import annotations

from typing import Final

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.file import Database

# Each row of `settled` says what its document says; and the receipt beside it, but for what start
# records have added to it, is one that arrived. All of it within SQLite, in a few microseconds a
# row: what a look at every row by a model costs, an audit pays once, when it judges.
_MISMATCH: Final = """
    SELECT entry, kind, json_extract(verdict, '$.verdict') FROM settled
    WHERE kind IS NOT json_extract(verdict, '$.verdict')
        OR entry IS NOT json_extract(verdict, '$.entry')
    LIMIT 1
"""
_SAME: Final = " AND ".join(
    f"json_extract(r.receipt, '$.{field}') IS json_extract(s.receipt, '$.{field}')"
    for field in ("entry", "state", "result", "error")
)
_UNKNOWN_RECEIPT: Final = f"""
    SELECT s.entry FROM settled s WHERE s.receipt IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM attempts a JOIN receipts r ON r.task_id = a.task_id
        WHERE a.entry = s.entry AND (r.receipt = s.receipt OR {_SAME})
    )
    LIMIT 1
"""  # noqa: S608 - fixed text
_ADVICE: Final = (
    "somebody has changed it, so it is not believed; restore it from a copy, or judge what was "
    "exported beside it by --manifest-audit --manifest-receipts=FILE"
)


class Consistency(Database):
    """What one part of a ledger says of another."""

    def refuse_contradictions(self) -> None:
        """Raises LedgerError where a verdict is not what its row says, or where the receipt beside
        it never arrived."""
        row = self._read_one(_MISMATCH)
        if row is not None:
            entry, kind, said = row
            raise LedgerError(
                f"{self.path}: the ledger contradicts itself: entry {entry!r} is settled as "
                f"{kind}, and the verdict beside that says {said}; {_ADVICE}"
            )
        row = self._read_one(_UNKNOWN_RECEIPT)
        if row is not None:
            raise LedgerError(
                f"{self.path}: the ledger contradicts itself: entry {row[0]!r} was judged by a "
                f"receipt that never arrived; {_ADVICE}"
            )
