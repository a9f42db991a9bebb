"""Take attempts into a ledger that its run has not sent: of exported receipts, of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pytest_manifest.ledger.attempts import ADD_ATTEMPT
from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.descendants import DESCENDANT_COLUMNS
from pytest_manifest.ledger.facts import ADD_FACT, FACT_COLUMNS, adding
from pytest_manifest.ledger.rows import (
    ReusedFrom,
    Row,
    SendState,
    microseconds,
    text,
    utc_now,
)
from pytest_manifest.schema import Verdict
from pytest_manifest.schema.facts import FactSource, Kind

_ADD_VERDICT: Final = """
    INSERT INTO verdicts (seq, entry, job, status, at, "end", added, verdict)
    SELECT ?, j.entry, j.n, ?, ?, ?, ?, ? FROM jobs j WHERE j.id = ?
"""
_ADD_END: Final = adding(("seq", "at", "source", "kind", "receipt"))
_ADD_DESCENDANT: Final = f"""
    INSERT INTO jobs (
        {DESCENDANT_COLUMNS.replace("task_id", "id").replace("kind", "status")}, entry, seq
    )
    SELECT ?, r.n, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, r.entry, ? FROM jobs r WHERE r.id = ?
"""  # noqa: S608 - fixed text
_FACTS: Final = f"""
    SELECT j.id, {FACT_COLUMNS}
    FROM jobs j JOIN facts f ON f.job = j.n WHERE j.id IN ({{}}) ORDER BY f.seq
"""  # noqa: S608 - fixed text
_DESCENDANTS: Final = f"SELECT {DESCENDANT_COLUMNS} FROM descendants WHERE root IN ({{}})"  # noqa: S608 - fixed text


@dataclass(frozen=True, slots=True)
class ImportedEntry:
    """An entry of a ledger built from exported receipts: its one attempt, its verdict and, as
    JSON, the receipt received and the one evaluated. ``reused_from``: of an attempt that the run
    has reused."""

    task_id: str
    attempt: int
    position: int
    sent_at: datetime | None
    verdict: Verdict
    received: str | None
    verdict_receipt: str | None
    reused_from: ReusedFrom | None = None


@dataclass(frozen=True, slots=True)
class ReusedAttempt:
    """An attempt of an earlier run that is to be taken over.

    ``entry`` and ``position`` are those of the entry that reuses it; ``sent_at``: as the earlier
    ledger has it.
    """

    task_id: str
    entry: str
    position: int
    sent_at: str
    origin: ReusedFrom


@dataclass(slots=True)
class TreeRows:
    """Rows of an attempt and of its descendants; of facts a task id, and ``FACT_COLUMNS``."""

    facts: list[Row] = field(default_factory=list)
    descendants: list[Row] = field(default_factory=list)


class Transfers(LedgerPart):
    """Read what is known of attempts, and add attempts that others have sent."""

    def import_entries(self, passages: Sequence[ImportedEntry]) -> None:
        """Record new entries; one without a receipt is recorded as not sent."""
        now = microseconds(utc_now())
        with self._db.writing() as db:
            first = self._db.next_job()
            db.executemany(
                ADD_ATTEMPT, (_attempt_values(n, one) for n, one in enumerate(passages, first))
            )
            received = [one for one in passages if one.received is not None]
            ends = dict[str, int]()
            made = []
            for seq, one in enumerate(received, self._db.take_seq(len(received))):
                ends[one.task_id] = seq
                is_ours = json.loads(one.received or "{}").get("source", "worker") == "worker"
                kind = Kind.ENDED if is_ours else Kind.STORED
                by = FactSource.WORKER if is_ours else FactSource.STORE
                made.append((one.task_id, seq, now, by, kind, one.received))
            db.executemany(_ADD_END, made)
            numbered = enumerate(passages, self._db.take_seq(len(passages)))
            db.executemany(
                _ADD_VERDICT,
                (
                    (
                        *(seq, p.verdict.verdict, now, *_end_and_added(p, ends.get(p.task_id))),
                        *(p.verdict.model_dump_json(), p.task_id),
                    )
                    for seq, p in numbered
                ),
            )

    def rows_of(self, task_ids: Sequence[str]) -> dict[str, TreeRows]:
        """Return all that is known of each of these attempts, and of what they started."""
        found = {task_id: TreeRows() for task_id in task_ids}
        roots = {task_id: task_id for task_id in task_ids}
        for row in self._rows(_DESCENDANTS, task_ids):
            found[row[1]].descendants.append(row)
            roots[row[0]] = row[1]
        for row in self._rows(_FACTS, list(roots)):
            found[roots[row[0]]].facts.append(row)
        return found

    def _rows(self, query: str, values: Sequence[str]) -> Iterator[Row]:
        for some in chunks(values):
            yield from self._db.read(query.format(placeholders(some)), some)

    def add_reused(self, taken: Sequence[tuple[ReusedAttempt, TreeRows]]) -> None:
        """Record attempts of an earlier run, with all that was known of them there."""
        with self._db.writing() as db:
            seq, first = self._db.take_seq(), self._db.next_job()
            db.executemany(
                ADD_ATTEMPT,
                (
                    (
                        *(n, one.task_id, one.entry, 0, one.position, "reused", None, None),
                        *(one.sent_at, one.origin.note(), seq, one.entry, n),
                    )
                    for n, (one, _) in enumerate(taken, first)
                ),
            )
            descendants = (row for _, one in taken for row in one.descendants)
            rows = ((row[0], *row[2:], seq, row[1]) for row in descendants)
            db.executemany(_ADD_DESCENDANT, rows)
            facts = [row for _, rows in taken for row in rows.facts]
            numbers = self._numbers(dict.fromkeys(str(row[0]) for row in facts))
            numbered = enumerate(facts, self._db.take_seq(len(facts)))
            db.executemany(ADD_FACT, ((1, numbers[row[0]], n, *row[3:]) for n, row in numbered))

    def _numbers(self, task_ids: Iterable[str]) -> dict[str, int]:
        rows = self._rows("SELECT id, n FROM jobs WHERE id IN ({})", list(task_ids))
        return {str(task_id): int(number) for task_id, number in rows}

    def drop_reused(self, task_ids: Sequence[str]) -> None:
        """Remove attempts that were added, and all that was added with them."""
        with self._db.writing() as db:
            for some in chunks(task_ids):
                marks = placeholders(some)
                jobs = (
                    f"SELECT n FROM jobs WHERE id IN ({marks}) OR root IN "  # noqa: S608 - question marks
                    f"(SELECT n FROM jobs WHERE id IN ({marks}))"
                )
                numbers = [int(row[0]) for row in self._db.read(jobs, [*some, *some])]
                for part in chunks(numbers):
                    for table, column in (("facts", "job"), ("verdicts", "job"), ("jobs", "n")):
                        query = f"DELETE FROM {table} WHERE {column} IN ({placeholders(part)})"  # noqa: S608 - fixed text
                        db.execute(query, part)

    def withdraw_planned(self, entries: Sequence[str]) -> None:
        """Remove the attempts that were planned of these entries: none of them will be sent."""
        with self._db.writing() as db:
            db.executemany(
                "DELETE FROM jobs WHERE name = ? AND state = 'planned'",
                ((entry,) for entry in entries),
            )


def _attempt_values(number: int, one: ImportedEntry) -> Row:
    state: SendState = "planned" if one.received is None else "sent"
    entry, origin = one.verdict.entry, one.reused_from
    if origin is not None:
        state = "reused"
    note = None if origin is None else origin.note()
    return (
        *(number, one.task_id, entry, one.attempt, one.position, state, None, None),
        *(text(one.sent_at), note, 0, entry, number),
    )


def _end_and_added(one: ImportedEntry, end: int | None) -> tuple[int | None, str | None]:
    """Return the number of the end that a verdict is by, and what its receipt has beside that."""
    if one.verdict_receipt is None or one.received == one.verdict_receipt:
        return (None if one.verdict_receipt is None else end), None
    return None, one.verdict_receipt
