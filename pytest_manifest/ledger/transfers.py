"""Take attempts into a ledger that its run has not sent: of exported receipts, of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final

from pytest_manifest.ledger.database import LedgerPart, chunks, placeholders
from pytest_manifest.ledger.descendants import ANNOUNCED_COLUMNS, DESCENDANT_COLUMNS
from pytest_manifest.ledger.events import ADD_RECEIPT
from pytest_manifest.ledger.facts import OF_JOB
from pytest_manifest.ledger.rows import (
    HANDED_ON_COLUMNS,
    START_COLUMNS,
    ReusedFrom,
    Row,
    SendState,
    text,
    utc_now,
)
from pytest_manifest.schema import Verdict

_RECEIPTS: Final = "task_id, execution, receipt, arrived_at"
_ADD_REUSED: Final = """
    INSERT INTO attempts (
        task_id, entry, attempt, ordinal, state, sent_at, reused_from, seq
    ) VALUES (?, ?, 0, ?, 'reused', ?, ?, ?)
"""


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
    """The rows that a ledger has of an attempt and of its descendants, by table."""

    starts: list[Row] = field(default_factory=list)
    handed_on: list[Row] = field(default_factory=list)
    receipts: list[Row] = field(default_factory=list)
    descendants: list[Row] = field(default_factory=list)
    announced: list[Row] = field(default_factory=list)


class Transfers(LedgerPart):
    """Read what is known of attempts, and add attempts that others have sent."""

    def import_entries(self, passages: Sequence[ImportedEntry]) -> None:
        """Record new entries; one without a receipt is recorded as not sent."""
        now = text(utc_now())
        with self._db.writing() as db:
            db.executemany(
                "INSERT INTO attempts "
                "(task_id, entry, attempt, ordinal, state, sent_at, reused_from) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                map(_attempt_values, passages),
            )
            received = [p for p in passages if p.received is not None]
            numbered = enumerate(received, self._db.take_seq(len(received)))
            db.executemany(
                ADD_RECEIPT, ((seq, p.task_id, None, p.received, now) for seq, p in numbered)
            )
            numbered = enumerate(passages, self._db.take_seq(len(passages)))
            db.executemany(
                "INSERT INTO settled (seq, entry, attempt, kind, verdict, receipt, settled_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((seq, *_verdict_values(p.verdict), p.verdict_receipt, now) for seq, p in numbered),
            )

    def rows_of(self, task_ids: Sequence[str]) -> dict[str, TreeRows]:
        """Return all that is known of each of these attempts, and of what they started."""
        found = {task_id: TreeRows() for task_id in task_ids}
        roots = {task_id: task_id for task_id in task_ids}
        for row in self._rows("descendants", DESCENDANT_COLUMNS, "root", task_ids):
            found[row[1]].descendants.append(row)
            roots[row[0]] = row[1]
        for row in self._rows("announced", ANNOUNCED_COLUMNS, "root", task_ids):
            found[row[0]].announced.append(row)
        every = list(roots)
        for row in self._rows("starts", START_COLUMNS, "task_id", every):
            found[roots[row[0]]].starts.append(row)
        for row in self._rows("handed_on", HANDED_ON_COLUMNS, "task_id", every):
            found[roots[row[0]]].handed_on.append(row)
        for row in self._rows("receipts", _RECEIPTS, "task_id", every, "ORDER BY seq"):
            found[roots[row[0]]].receipts.append(row)
        return found

    def _rows(
        self, table: str, columns: str, key: str, values: Sequence[str], order: str = ""
    ) -> Iterator[Row]:
        for some in chunks(values):
            query = f"SELECT {columns} FROM {table} WHERE {key} IN ({placeholders(some)}) {order}"  # noqa: S608 - fixed text
            yield from self._db.read(query, some)

    def add_reused(self, taken: Sequence[tuple[ReusedAttempt, TreeRows]]) -> None:
        """Record attempts of an earlier run, with all that was known of them there."""
        rows = [one for _, one in taken]
        with self._db.writing() as db:
            seq = self._db.take_seq()
            db.executemany(
                _ADD_REUSED,
                (
                    (one.task_id, one.entry, one.position, one.sent_at, one.origin.note(), seq)
                    for one, _ in taken
                ),
            )
            for query, some in (
                (_insert("starts", START_COLUMNS), (one.starts for one in rows)),
                (_insert("handed_on", HANDED_ON_COLUMNS), (one.handed_on for one in rows)),
                (_insert("descendants", DESCENDANT_COLUMNS), (one.descendants for one in rows)),
                (_insert("announced", ANNOUNCED_COLUMNS), (one.announced for one in rows)),
            ):
                db.executemany(query, ((*row, seq) for row in chain.from_iterable(some)))
            receipts = [receipt for one in rows for receipt in one.receipts]
            numbered = enumerate(receipts, self._db.take_seq(len(receipts)))
            db.executemany(ADD_RECEIPT, ((seq, *receipt) for seq, receipt in numbered))

    def drop_reused(self, task_ids: Sequence[str]) -> None:
        """Remove attempts that were added, and all that was added with them."""
        with self._db.writing() as db:
            for some in chunks(task_ids):
                marks = placeholders(some)
                found = self._db.read(
                    f"SELECT task_id FROM descendants WHERE root IN ({marks})",  # noqa: S608 - question marks
                    some,
                )
                every = [*some, *(str(row[0]) for row in found)]
                for table in ("starts", "handed_on", "receipts", "attempts"):
                    for part in chunks(every):
                        query = f"DELETE FROM {table} WHERE task_id IN ({placeholders(part)})"  # noqa: S608 - fixed text
                        db.execute(query, part)
                for part in chunks(every):
                    query = f"DELETE FROM facts WHERE job IN ({_numbers_of(placeholders(part))})"  # noqa: S608 - question marks
                    db.execute(query, part)
                for table in ("descendants", "announced"):
                    db.execute(f"DELETE FROM {table} WHERE root IN ({marks})", some)  # noqa: S608 - fixed text

    def withdraw_planned(self, entries: Sequence[str]) -> None:
        """Remove the attempts that were planned of these entries: none of them will be sent."""
        with self._db.writing() as db:
            db.executemany(
                "DELETE FROM attempts WHERE entry = ? AND state = 'planned'",
                ((entry,) for entry in entries),
            )


def _numbers_of(marks: str) -> str:
    return f"SELECT n FROM numbers WHERE kind = {OF_JOB} AND name IN ({marks})"  # noqa: S608 - question marks


def _insert(table: str, columns: str) -> str:
    marks = placeholders([*columns.split(","), "seq"])
    return f"INSERT INTO {table} ({columns}, seq) VALUES ({marks})"  # noqa: S608 - fixed text


def _attempt_values(one: ImportedEntry) -> Row:
    state: SendState = "planned" if one.received is None else "sent"
    entry, origin = one.verdict.entry, one.reused_from
    if origin is not None:
        state = "reused"
    note = None if origin is None else origin.note()
    return one.task_id, entry, one.attempt, one.position, state, text(one.sent_at), note


def _verdict_values(verdict: Verdict) -> Row:
    return verdict.entry, verdict.attempt, verdict.verdict, verdict.model_dump_json()
