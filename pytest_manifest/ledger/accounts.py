"""Attempts with all that was said of them: what tells what each has cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from pytest_manifest.ledger.file import Database
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, Row, SendState, damaged
from pytest_manifest.schema import Receipt, VerdictStatus

BUDGET: Final = "budget"
"""The ledger's key for what the run may cost; empty or not there: it was not limited."""
OVER_BUDGET: Final = "over_budget"
"""The ledger's key for why the run's budget ended its sending; empty or not there: it did not."""

_ATTEMPTS = """
    SELECT task_id, entry, attempt, state, coalesce(
        (SELECT kind FROM settled s WHERE s.entry = a.entry AND s.attempt = a.attempt), a.kind
    ) FROM attempts a {} ORDER BY task_id
"""
_STARTS = "SELECT task_id, execution FROM starts {} ORDER BY task_id"
_RECEIPTS = "SELECT task_id, execution, receipt FROM receipts {} ORDER BY task_id, seq"


@dataclass(frozen=True, slots=True)
class AttemptCost:
    """One attempt: the executions that workers have begun, and ``(execution, receipt)`` of all that
    arrived; ``kind``: how it was judged last."""

    task_id: str
    entry: str
    attempt: int
    state: SendState
    status: VerdictStatus | None
    started: Collection[str]
    receipts: Sequence[tuple[str | None, Receipt]]


class AttemptCosts(Database):
    """Attempts, each with its starts and its receipts."""

    def attempt_costs(self, task_id: str | None = None) -> Iterator[AttemptCost]:
        """Every attempt, or the one with this task id; in no order that means anything."""
        # One pass over each table, side by side, so that memory stays flat.
        with ExitStack() as stack:

            def rows(query: str) -> Iterator[Row]:
                which = query.format("" if task_id is None else "WHERE task_id = ?")
                values = () if task_id is None else (task_id,)
                return stack.enter_context(closing(self._read(which, values)))

            starts, receipts = _MergeJoin(rows(_STARTS)), _MergeJoin(rows(_RECEIPTS))
            for key, entry, attempt, state, kind in rows(_ATTEMPTS):
                begun = [execution for _, execution in starts.of(key)]
                try:
                    said = [
                        (x, Receipt.model_validate_json(text)) for _, x, text in receipts.of(key)
                    ]
                except BAD_ROW_ERRORS as error:
                    raise damaged(self.path, error) from error
                yield AttemptCost(key, entry, attempt, state, kind, begun, said)

    def has_costs(self) -> bool:
        """Whether some receipt may tell a cost."""
        query = "SELECT 1 FROM receipts WHERE instr(receipt, '\"cost\"') LIMIT 1"
        return self._read_one(query) is not None


class _MergeJoin:
    """Rows in the order of their first column, read along with another table's."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, key: str) -> list[Row]:
        """The rows of this key; to be asked for in their order."""
        while self._next is not None and self._next[0] < key:
            self._next = next(self._rows, None)
        return list(takewhile(lambda row: row[0] == key, self._take()))

    def _take(self) -> Iterator[Row]:
        """Rows, each gone once the one after it is asked for."""
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)
