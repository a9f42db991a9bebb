"""Read many entries at once: verdicts, histories, costs; memory does not grow with their number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pytest_manifest.ledger import rows
from pytest_manifest.ledger.attempts import Attempts
from pytest_manifest.ledger.database import Built, LedgerPart
from pytest_manifest.ledger.facts import WorkerEvents
from pytest_manifest.ledger.tables import PRESENT, RECEIPT
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.facts import Started
from pytest_manifest.schema.statuses import OPEN, in_sql

BATCH: Final = 500
"""Entries requested in one statement."""

# SQLite scans the left side of such a join in order and looks up the right side for each row: so
# rows come in the order requested, and none is read before its turn.
_OF_ENTRY = PRESENT.format("(SELECT entry FROM jobs WHERE name = j.value LIMIT 1)")
_REQUESTED = f"""
    FROM json_each(?) j LEFT JOIN verdicts v ON v.seq = {_OF_ENTRY} AND v.status IS NOT NULL
    LEFT JOIN facts f ON f.seq = v."end"
"""
_RUNTIME = (
    "SELECT total(coalesce(json_extract(v.added, '$.runtime'), "
    f"json_extract(f.receipt, '$.runtime'))) {_REQUESTED} "
    "WHERE json_extract(v.added, '$.reused') IS NULL"
)
_RUNTIMES = "SELECT entry, json_extract(receipt, '$.runtime') s FROM settled WHERE s IS NOT NULL"
_OF_ENTRIES = f"SELECT j.value, v.seq, v.verdict, {RECEIPT} {_REQUESTED}"
_NOT_PASSED = f"{_OF_ENTRIES} WHERE v.status IS NOT 'passed'"

_PASSED = f"""
    SELECT a.name, a.attempt, a.id, a.sent_at, {RECEIPT}, a.reused_from
    {_REQUESTED}
    JOIN jobs a ON a.n = v.job WHERE v.status = 'passed'
"""  # nosec B608 # fixed text

_MAY_HAVE_REUSED = "SELECT 1 FROM run WHERE n = 1 AND reused_runs IS NOT NULL"
_REUSED = """
    SELECT json_extract(a.reused_from, '$[0]') AS run, count(*) FROM settled s
    JOIN attempts a ON a.n = s.job
    WHERE a.state = 'reused' GROUP BY run ORDER BY 2 DESC, run
"""
_FINAL = f"""
    SELECT (SELECT count(*) FROM settled WHERE kind NOT IN {in_sql(OPEN)})
        = (SELECT count(DISTINCT name) FROM jobs)
"""  # noqa: S608 - fixed text
_RECEIPT = f"SELECT {RECEIPT}, v.verdict {_REQUESTED}"
# Where the manifest has changed in between, the newest attempt has the position.
_IN_ORDER = """
    SELECT a.name FROM jobs a WHERE a.name IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jobs b WHERE b.name = a.name AND b.attempt > a.attempt
    ) ORDER BY a.position, a.name
"""
_WITHOUT_VERDICT = f"SELECT count(*) {_REQUESTED} WHERE v.seq IS NULL"

_STORED_ENTRIES = f"SELECT j.value, v.status, v.verdict, {RECEIPT} {_REQUESTED}"
_UNUSUAL = """
    SELECT task_id FROM attempts WHERE reason IS NOT NULL
        OR number IN (SELECT entry FROM jobs WHERE attempt > 1)
    UNION SELECT task_id FROM starts GROUP BY job
        HAVING count(*) > 1 OR max(retries) > 0 OR max(redelivered) > 0 OR max(hop) > 0
    UNION SELECT task_id FROM receipts GROUP BY job HAVING count(*) > 1
"""
_OTHER_EXECUTION = """
    UNION SELECT r.task_id FROM receipts r JOIN starts s ON s.job = r.job
        WHERE s.execution <> r.execution
"""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry's verdict and receipt as stored JSON, None where there is none."""

    entry: str
    status: VerdictStatus | None
    verdict: str | None
    receipt: str | None


@dataclass(frozen=True, slots=True)
class StoredPass:
    """A passed entry as stored; ``receipt`` and ``reused_from``: not parsed."""

    entry: str
    attempt: int
    task_id: str
    sent_at: str | None
    receipt: str | None
    reused_from: str | None


class Queries(LedgerPart):
    """Queries of many entries, in batches: in a tenth of the time that single ones take."""

    def verdicts(self, entries: Iterable[str]) -> Iterator[tuple[str, rows.EntryVerdict | None]]:
        """Yield these entries with their verdicts, in order; None: no verdict."""
        return self._built_in_batches(_entry_and_verdict, _OF_ENTRIES, entries)

    def not_passed(self, entries: Iterable[str]) -> Iterator[tuple[str, rows.EntryVerdict | None]]:
        """Yield those of these entries that have not passed, in order; None: no verdict."""
        return self._built_in_batches(_entry_and_verdict, _NOT_PASSED, entries)

    def stored_entries(self, entries: Iterable[str]) -> Iterator[StoredEntry]:
        """Yield each of these entries, in the order given."""
        return self._built_in_batches(_entry_of_row, _STORED_ENTRIES, entries)

    def unusual_attempts(self, limit: int, *, executions: bool) -> frozenset[str] | None:
        """Return the task ids of unusual attempts; None where there are more than ``limit``.

        A usual one is its entry's only one, has no reason, started at most once, and has at most
        one receipt. ``executions``: a receipt of another execution than the started one is unusual.
        """
        query = f"{_UNUSUAL}{_OTHER_EXECUTION if executions else ''} LIMIT ?"
        found = frozenset(row[0] for row in self._db.read(query, (limit + 1,)))
        return found if len(found) <= limit else None

    def sent_entries(self) -> Iterator[str]:
        """Yield the entries that have an attempt, in no particular order."""
        return (
            row[0] for row in self._db.read("SELECT DISTINCT name FROM jobs WHERE name IS NOT NULL")
        )

    def reused_runs(self) -> Mapping[str, int]:
        """Count the entries that were judged by jobs of earlier runs, by these, most first."""
        if self._db.read_one(_MAY_HAVE_REUSED) is None:  # most: their attempts are not looked at
            return {}
        return {str(run): int(count) for run, count in self._db.read(_REUSED)}

    def all_final(self) -> bool:
        """Return whether every entry has a final verdict."""
        row = self._db.read_one(_FINAL)
        return row is not None and bool(row[0])

    def stored_passes(self, entries: Iterable[str]) -> Iterator[StoredPass]:
        """Yield those of these entries that have passed."""
        return (StoredPass(*row) for row in self._in_batches(_PASSED, entries))

    def all_have_verdicts(self, entries: Iterable[str]) -> bool:
        """Return whether each of these entries has a verdict."""
        return all(row[0] == 0 for row in self._in_batches(_WITHOUT_VERDICT, entries))

    def all_verdicts(self) -> Iterator[rows.EntryVerdict]:
        """Yield every entry's verdict and receipt, in the manifest's order."""
        found = self.verdicts(self._in_order())
        return (settled for _, settled in found if settled is not None)

    def raw_receipts(self) -> Iterator[tuple[str, str]]:
        """Yield the receipts on which verdicts rest, and these verdicts, as JSON, in the manifest's
        order."""
        for receipt, verdict in self._in_batches(_RECEIPT, self._in_order()):
            if receipt is not None:
                yield receipt, verdict

    def _in_order(self) -> Iterator[str]:
        return (row[0] for row in self._db.read(_IN_ORDER))

    def runtimes(self) -> Iterator[tuple[str, float]]:
        """Yield entries and their receipt's seconds, in no order; LedgerError for no number."""
        return self._db.build_each(lambda row: (str(row[0]), float(row[1])), _RUNTIMES)

    def runtime_of(self, entries: Iterable[str]) -> float:
        """Return the sum of these entries' runtimes by their receipts, in seconds.

        What was reused has run in another run, and is left out.
        """
        return float(sum(row[0] for row in self._in_batches(_RUNTIME, entries)))

    def _in_batches(self, query: str, entries: Iterable[str]) -> Iterator[rows.Row]:
        left = iter(entries)
        while some := list(islice(left, BATCH)):
            yield from self._db.read(query, (self._as_json(some),))

    def _built_in_batches(
        self, make: Callable[[rows.Row], Built], query: str, entries: Iterable[str]
    ) -> Iterator[Built]:
        left = iter(entries)
        while some := list(islice(left, BATCH)):
            yield from self._db.build_each(make, query, (self._as_json(some),))

    def _as_json(self, names: list[str]) -> str:
        with self._db.parse_errors():  # the ledger's own, which may be damaged
            return json.dumps(names, ensure_ascii=False)

    def histories(self, entries: Sequence[str]) -> dict[str, History]:
        """Return the history of each of these entries that the run has."""
        found: dict[str, History] = {}
        for entry, verdict in self.verdicts(entries):
            if verdict is not None:
                found[entry] = History(verdict=verdict)
        owners: dict[str, History] = {}
        others: list[str] = []
        for one in Attempts(self._db).of_entries(entries):
            history = owners[one.task_id] = found.setdefault(one.entry, History())
            history.attempts.append(one)
            if history.verdict is None or history.verdict.verdict.attempt != one.attempt:
                others.append(one.task_id)
        events = WorkerEvents(self._db)
        for task_id, starts in events.each(Started, list(owners)).items():
            owners[task_id].starts[task_id] = starts
        for task_id, receipts in events.receipts_of(others).items():
            owners[task_id].receipts[task_id] = [receipt for _, receipt in receipts]
        return found

    def has_costs(self) -> bool:
        """Return whether some receipt may state a cost."""
        query = "SELECT 1 FROM facts WHERE instr(receipt, '\"cost\"') LIMIT 1"
        return self._db.read_one(query) is not None


def _entry_of_row(row: rows.Row) -> StoredEntry:
    rows.refuse_no_status(row[1])
    return StoredEntry(*row)


def _entry_and_verdict(row: rows.Row) -> tuple[str, rows.EntryVerdict | None]:
    return row[0], None if row[1] is None else rows.entry_verdict_of_row(row[1:])


@dataclass(slots=True)
class History:
    """An entry's attempts by number, its verdict, and what arrived for each task id.

    ``receipts``: of the attempts that the verdict is not about, in the order of their arrival.
    """

    attempts: list[rows.AttemptRow] = field(default_factory=list)
    verdict: rows.EntryVerdict | None = None
    starts: dict[str, list[Started]] = field(default_factory=dict)
    receipts: dict[str, list[Receipt]] = field(default_factory=dict)


BUDGET: Final = "budget"
"""The ledger's key for what the run may cost; empty or absent: it is not limited."""
OVER_BUDGET: Final = "over_budget"
"""The ledger's key for why the budget ended the run's sending; empty or absent: it did not."""
