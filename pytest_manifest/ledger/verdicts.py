"""Record verdicts on attempts and on entries, check them for contradictions, and read many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import JsonValue

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import rows
from pytest_manifest.ledger.attempts import Attempts
from pytest_manifest.ledger.database import Built, Database, LedgerPart
from pytest_manifest.ledger.facts import Facts, Owned, WorkerEvents
from pytest_manifest.ledger.tables import PRESENT, RECEIPT
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Kind, Started, TakenUp
from pytest_manifest.schema.statuses import OPEN

Reason: TypeAlias = Literal["resume", "audit", "keys", "requeue"]
"""Why a verdict is taken back."""

_RECORD: Final = """
    INSERT INTO verdicts (seq, entry, job, status, at, corrects, "end", added, verdict)
    SELECT ?, a.entry, a.n, ?, ?, ?, ?, ?, ? FROM jobs a WHERE a.name = ? AND a.attempt =
        coalesce(?, (SELECT max(b.attempt) FROM jobs b WHERE b.name = a.name))
    LIMIT 1
"""
_END_ALONE: Final = """
    INSERT INTO verdicts (seq, entry, job, alone, status, at, "end", added, verdict)
    SELECT ?, a.entry, a.n, 1, ?, ?, ?, ?, ? FROM jobs a WHERE a.id = ?
"""
_TAKE_UP: Final = """
    INSERT INTO verdicts (seq, entry, job, at) SELECT ?, s.number, s.job, ? FROM settled s
    WHERE s.entry = ?
"""
_PRESENT: Final = "SELECT seq FROM settled WHERE entry = ?"
_ENDS: Final = f"""
    SELECT f.seq, f.receipt FROM facts f
    WHERE f.job = (SELECT n FROM jobs WHERE name = ? AND attempt IS ?)
        AND f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d}) AND f.receipt IS NOT NULL
    ORDER BY f.aside DESC, f.seq
"""  # noqa: S608 - fixed text
ADDED: Final = frozenset(
    {
        *("executions", "redelivered", "started_at", "wait", "worker", "host", "pid"),
        *("signature", "reused", "retries", "replaced"),
    }
)
"""Fields of a receipt that the starts of its job, or its reuse, may have filled in or struck."""
_ADDED: Final = ", ".join(f"'{name}'" for name in sorted(ADDED))
_STORED_VERDICTS = """
    SELECT s.entry, s.seq, s.kind, s.attempt, s.verdict, s.receipt,
        (SELECT count(*) FROM jobs a WHERE a.entry = s.number AND a.name IS NOT NULL
            AND a.state <> 'reused'),
        (SELECT a.id FROM jobs a WHERE a.n = s.job)
    FROM settled s WHERE s.seq >= (SELECT seq FROM settled WHERE entry = ?) ORDER BY s.seq LIMIT ?
"""
# Each row of `settled` must agree with its document, and its receipt, except for what start
# records add to it, must be one that arrived. SQLite checks a row in a few microseconds; validating
# each row by a model is left to an audit.
_REASONS: Final = """
    SELECT entry, seq, kind, json_extract(verdict, '$.reason') FROM settled WHERE entry IN ({})
"""
_JUDGED_JOBS: Final = """
    SELECT s.entry, a.id, s.kind FROM settled s JOIN jobs a ON a.n = s.job WHERE s.entry IN ({})
"""
_UNSETTLED: Final = f"""
    SELECT DISTINCT a.name FROM jobs a
    LEFT JOIN verdicts v ON v.seq = {PRESENT.format("a.entry")}
    WHERE a.name IS NOT NULL AND (
        v.status IS NULL OR v.status = 'pending' OR EXISTS (
            SELECT 1 FROM jobs d JOIN facts f ON f.job = d.n
            WHERE d.entry = a.entry AND f.seq > v.seq
        )
    ) LIMIT ?
"""  # noqa: S608 - fixed text
_MISMATCH: Final = """
    SELECT entry, kind, json_extract(verdict, '$.verdict') FROM settled
    WHERE kind IS NOT json_extract(verdict, '$.verdict')
        OR entry IS NOT json_extract(verdict, '$.entry')
    LIMIT 1
"""
_ADVICE: Final = (
    "it was changed from outside, so it is not used; restore it from a copy, or judge what was "
    "exported beside it by --manifest-audit --manifest-receipts=FILE"
)


_UNKNOWN_RECEIPT: Final = f"""
    SELECT s.entry FROM settled s WHERE (s."end" IS NOT NULL OR s.added IS NOT NULL) AND (
        NOT EXISTS (
            SELECT 1 FROM facts f JOIN jobs j ON j.n = f.job WHERE f.seq = s."end"
                AND j.entry = s.number AND f.kind IN ({Kind.ENDED:d}, {Kind.STORED:d})
        ) OR EXISTS (SELECT 1 FROM json_each(s.added) a WHERE a.key NOT IN ({_ADDED}))
    ) LIMIT 1
"""  # noqa: S608 - fixed text


class StoredReason(NamedTuple):
    """A verdict's status and reason, which is empty where it has none, and its ``seq``."""

    seq: int
    status: VerdictStatus
    reason: Mapping[str, JsonValue]


class Verdicts(LedgerPart):
    """Verdicts of entries and attempts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._corrected: dict[str, int] = {}
        """The verdicts that are about to be corrected, by entry."""

    def record(self, verdicts: Iterable[tuple[Verdict, Receipt | None]]) -> None:
        """Record the verdicts of entries; earlier ones of the same entries stay beside them.

        A verdict also counts for the attempt that it is about.
        """
        given = list(verdicts)
        if not given:
            return
        now = rows.microseconds(rows.utc_now())
        with self._db.writing() as db:
            values = [
                (
                    *(seq, one.verdict, now),
                    self._corrected.pop(one.entry, None),
                    *self._end(one, receipt),
                    *(one.model_dump_json(), one.entry, one.attempt),
                )
                for seq, (one, receipt) in enumerate(given, self._db.take_seq(len(given)))
            ]
            if db.executemany(_RECORD, values).rowcount < len(values):
                raise LedgerError(
                    f"{self._db.path}: a verdict is of an entry or an attempt that the ledger does "
                    f"not have; {_ADVICE}"
                )

    def _end(self, on: Verdict, receipt: Receipt | None) -> tuple[int | None, str | None]:
        """Return the number of the end that a receipt is, and what it has beside it, as JSON."""
        if receipt is None:
            return None, None
        found = _closest(receipt, self._db.ends_of(receipt.task_id))
        if found is None:
            ends = self._db.build_each(_end_of_row, _ENDS, (on.entry, on.attempt or 0))
            found = _closest(receipt, list(ends))
        if found is None:
            return None, receipt.model_dump_json()
        seq, names = found
        if not names:
            return seq, None
        if names == _EXECUTIONS:
            return seq, f'{{"executions":{receipt.executions}}}'
        return seq, receipt.model_dump_json(include=set(names))

    def note_correction(self, entry: str) -> None:
        """Note that the next verdict of an entry corrects the one that it has, as it was told."""
        row = self._db.read_one(_PRESENT, (entry,))
        if row is not None:
            self._corrected[entry] = int(row[0])

    def end_attempt(self, task_id: str, verdict: Verdict, receipt: Receipt | None = None) -> None:
        """Record the verdict on an attempt that another one follows; the entry gets none."""
        with self._db.writing() as db:
            db.execute(
                _END_ALONE,
                (
                    *(self._db.take_seq(), verdict.verdict, rows.microseconds(rows.utc_now())),
                    *self._end(verdict, receipt),
                    *(verdict.model_dump_json(), task_id),
                ),
            )

    def reopen_not_final(self, entries: Iterable[str]) -> None:
        """Withdraw those verdicts of these entries that are not final."""
        kinds = self.statuses()
        self.reopen([one for one in entries if kinds.get(one) in OPEN])

    def reopen(self, entries: Iterable[str], *, why: Reason = "resume") -> None:
        """Withdraw the verdicts of these entries; those on their attempts stay.

        ``why`` is kept as a fact, but of an audit that looks again at what goes on: that takes
        nothing back.
        """
        entries = list(entries)
        with self._db.writing() as db:
            self._take_up(entries, why)
            now, first = rows.microseconds(rows.utc_now()), self._db.take_seq(len(entries))
            db.executemany(_TAKE_UP, ((n, now, entry) for n, entry in enumerate(entries, first)))

    def _take_up(self, entries: Sequence[str], why: Reason) -> None:
        """Record that what these verdicts are on is awaited again."""
        now, facts = rows.utc_now(), list[Owned]()
        for entry, job, kind in self._db.of_each(_JUDGED_JOBS, entries):
            if why in ("resume", "requeue") or kind != "pending":
                facts.append((entry, TakenUp(seq=0, at=now, job=job, why=why)))
        Facts(self._db).append(facts)

    def since(self, seq: int) -> list[tuple[int, str, VerdictStatus]]:
        """Return ``(seq, entry, status)`` of the verdicts after ``seq``, in order."""
        return list(
            self._db.read("SELECT seq, entry, kind FROM settled WHERE seq > ? ORDER BY seq", (seq,))
        )

    def of_entry(self, entry: str) -> rows.EntryVerdict | None:
        query = "SELECT seq, verdict, receipt FROM settled WHERE entry = ?"
        return next(self._db.build_each(rows.entry_verdict_of_row, query, (entry,)), None)

    def each(self, entry: str) -> Iterator[tuple[int, datetime, Verdict]]:
        """Yield all verdicts that an entry and its attempts ever had, in order, with their time."""
        query = """
            SELECT v.seq, v.at, v.verdict FROM verdicts v JOIN jobs a ON a.n = v.job
            WHERE a.name = ? AND v.status IS NOT NULL ORDER BY v.seq
        """
        with self._db.parse_errors():
            for seq, at, text in self._db.read(query, (entry,)):
                yield seq, rows.moment_of(at), Verdict.model_validate_json(text)

    def stored_from(self, entry: str, number: int) -> Iterator[tuple[str, rows.StoredVerdict]]:
        """Yield ``number`` verdicts by entry: this entry's and those that came next, unparsed.

        Yields nothing where the entry has no verdict.
        """
        for of, *row in self._db.read(_STORED_VERDICTS, (entry, number)):
            yield of, rows.StoredVerdict(*row)

    def reasons(self, entries: Sequence[str]) -> dict[str, StoredReason]:
        """Return status and reason of those of these entries that have a verdict."""
        given = self._db.of_each(_REASONS, entries)
        with self._db.parse_errors():
            return {
                entry: StoredReason(int(seq), kind, json.loads(reason) if reason else {})
                for entry, seq, kind, reason in given
            }

    def statuses(self) -> dict[str, VerdictStatus]:
        """Return the verdict's status of every entry that has one, by entry."""
        return {entry: kind for entry, kind in self._db.read("SELECT entry, kind FROM settled")}  # noqa: C416

    def unsettled(self, most: int) -> list[str]:
        """Return entries that have no verdict, one that is pending, or a fact after theirs."""
        return [str(row[0]) for row in self._db.read(_UNSETTLED, (most,))]

    def any_without_receipt(self) -> bool:
        """Return whether some entry that was sent has a final verdict without a receipt."""
        query = """
            SELECT 1 FROM settled s JOIN jobs a ON a.n = s.job
            WHERE s.receipt IS NULL AND a.state NOT IN ('planned', 'withheld') LIMIT 1
        """
        return self._db.read_one(query) is not None

    def counts(self) -> Mapping[VerdictStatus, int]:
        given = self._db.read("SELECT kind, count(*) FROM settled GROUP BY kind")
        return {kind: int(count) for kind, count in given}

    def refuse_contradictions(self) -> None:
        """Raise LedgerError where a verdict differs from its row, or its receipt never arrived."""
        row = self._db.read_one(_MISMATCH)
        if row is not None:
            entry, kind, said = row
            raise LedgerError(
                f"{self._db.path}: the ledger is not consistent: entry {entry!r} is recorded as "
                f"{kind}, and its verdict says {said}; {_ADVICE}"
            )
        row = self._db.read_one(_UNKNOWN_RECEIPT)
        if row is not None:
            raise LedgerError(
                f"{self._db.path}: the ledger is not consistent: entry {row[0]!r} was judged by a "
                f"receipt that it does not have; {_ADVICE}"
            )


_EXECUTIONS: Final = ["executions"]


def _end_of_row(row: rows.Row) -> tuple[int, Receipt]:
    return int(row[0]), rows.receipt_of(row[1])


def _closest(
    receipt: Receipt, ends: Sequence[tuple[int, Receipt]]
) -> tuple[int, Sequence[str]] | None:
    """Return which of these ends a receipt is, and by which fields it differs; None: none."""
    found: tuple[int, Sequence[str]] | None = None
    mine = receipt.__dict__
    for seq, end in reversed(ends):
        if end is receipt:
            return seq, ()
        its, names = end.__dict__, list[str]()
        for name, one in mine.items():  # not by a comprehension, of which each step is a call
            if one is not its[name] and one != its[name]:
                names.append(name)
        if ADDED.issuperset(names) and (found is None or len(names) < len(found[1])):
            found = seq, names
    return found


# Many entries at once: memory does not grow with their number

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
            with self._db.parse_errors():
                for row in self._db.read(query, (self._as_json(some),)):
                    yield make(row)

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
