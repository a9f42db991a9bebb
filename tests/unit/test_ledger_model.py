"""The ledger against a model of plain dicts: after any writes in any order, both say the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import AttemptRow, EntryVerdict, Ledger
from pytest_manifest.ledger.rows import SendState
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Started
from tests.reports import add_receipts, add_starts, all_receipts, starts_by_task, starts_of
from tests.rings import examples
from tests.unit.ledger_support import INFO, MOMENT, receipt, start, verdict

OPEN_KINDS = ("pending", "unknown")
ENTRIES = st.sampled_from("abc")
KINDS = st.sampled_from(get_args(VerdictStatus))
STATES = st.sampled_from(get_args(SendState))
NOTES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@dataclass
class Model:
    """What the ledger should hold."""

    attempts: dict[str, AttemptRow] = field(default_factory=dict)
    starts: dict[tuple[str, str], Started] = field(default_factory=dict)
    receipts: list[tuple[str, str | None, Receipt]] = field(default_factory=list)
    settled: dict[str, tuple[Verdict, Receipt | None]] = field(default_factory=dict)
    """In the order in which they settled."""

    def of(self, entry: str) -> list[AttemptRow]:
        rows = [row for row in self.attempts.values() if row.entry == entry]
        return sorted(rows, key=lambda row: row.attempt)

    def newest(self) -> list[AttemptRow]:
        entries = {row.entry for row in self.attempts.values()}
        return in_order(self.of(entry)[-1] for entry in entries)

    def is_open(self, entry: str) -> bool:
        found = self.settled.get(entry)
        return found is None or found[0].verdict in OPEN_KINDS


def in_order(rows: Iterable[AttemptRow]) -> list[AttemptRow]:
    return sorted(rows, key=lambda row: (row.position, row.attempt))


class LedgerMachine(RuleBasedStateMachine):
    """Writes into both, and reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="manifest-test-")
        self.path = Path(self.folder.name) / "run.sqlite"
        self.ledger = Ledger.create(self.path, INFO)
        self.model = Model()
        self.last_seq = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    def has_attempts(self) -> bool:
        return bool(self.model.attempts)

    def a_task(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.attempts)), "task")

    # Writing

    @rule(entry=ENTRIES, reason=st.sampled_from([None, "lost", "crashed"]))
    def plan(self, entry: str, reason: str | None) -> None:
        number = len(self.model.of(entry)) + 1
        task_id = f"t-{entry}-{number}"
        row = AttemptRow(task_id, entry, number, ord(entry), "planned", None, None, reason)
        self.model.attempts[task_id] = row
        if reason is None:
            self.ledger.attempts.plan([(task_id, entry, number, row.position)])
        else:
            self.ledger.attempts.plan([(task_id, entry, number, row.position, reason)])

    @precondition(has_attempts)
    @rule(data=st.data(), state=STATES, note=NOTES, sent=st.booleans())
    def mark(self, data: st.DataObject, state: SendState, note: str | None, *, sent: bool) -> None:
        task_ids = data.draw(st.sets(st.sampled_from(sorted(self.model.attempts))), "tasks")
        moment = MOMENT if sent else None
        self.ledger.attempts.mark([*task_ids, "t-nobody"], state, sent_at=moment, note=note)
        for task_id in task_ids:
            row = self.model.attempts[task_id]
            self.model.attempts[task_id] = replace(
                row,
                state=state,
                sent_at=moment or row.sent_at,
                note=row.note if note is None else note,
            )

    @precondition(has_attempts)
    @rule(data=st.data(), executions=st.lists(st.sampled_from(["x1", "x2", "x3"]), max_size=3))
    def add_starts(self, data: st.DataObject, executions: list[str]) -> None:
        task_id = self.a_task(data)
        starts = [start(task_id, execution) for execution in executions]
        add_starts(self.ledger, starts)
        for one in starts:
            self.model.starts.setdefault((task_id, one.execution), one)

    @precondition(has_attempts)
    @rule(data=st.data(), execution=st.sampled_from([None, "x1"]), number=st.integers(0, 3))
    def add_receipts(self, data: st.DataObject, execution: str | None, number: int) -> None:
        task_id = self.a_task(data)
        said = receipt(self.model.attempts[task_id].entry, result=number)
        add_receipts(self.ledger, [(task_id, execution, said)])
        self.model.receipts.append((task_id, execution, said))

    @precondition(has_attempts)
    @rule(data=st.data(), kind=KINDS, sent=st.booleans(), received=st.booleans())
    def settle(self, data: st.DataObject, kind: str, *, sent: bool, received: bool) -> None:
        row = self.model.attempts[self.a_task(data)]
        judged = verdict(row.entry, kind, row.attempt if sent else None)
        said = receipt(row.entry, row.attempt) if received else None
        self.ledger.verdicts.record([(judged, said)])
        self.model.settled.pop(row.entry, None)
        self.model.settled[row.entry] = (judged, said)
        on = row if sent else self.model.of(row.entry)[-1]
        judged_row = replace(on, status=judged.verdict, verdict=judged)
        self.model.attempts[on.task_id] = judged_row

    @precondition(has_attempts)
    @rule(data=st.data(), kind=KINDS)
    def end_attempt(self, data: st.DataObject, kind: str) -> None:
        row = self.model.attempts[self.a_task(data)]
        judged = verdict(row.entry, kind, row.attempt)
        self.ledger.verdicts.end_attempt(row.task_id, judged)
        self.model.attempts[row.task_id] = replace(row, status=judged.verdict, verdict=judged)

    @rule(entries=st.sets(ENTRIES))
    def reopen(self, entries: set[str]) -> None:
        self.ledger.verdicts.reopen(entries)
        for entry in entries:
            self.model.settled.pop(entry, None)

    @rule(data=st.data())
    def fail_within_a_transaction(self, data: st.DataObject) -> None:
        """Writes by some other rules, all of which are taken back."""
        everything: list[Callable[[], object]] = [
            lambda: self.ledger.verdicts.reopen(list("abc")),
            lambda: self.ledger.attempts.plan([("t-x", "x", 1, 0)]),
            lambda: self.ledger.attempts.mark(self.model.attempts, "sent", note="no"),
            lambda: self.ledger.verdicts.record([(verdict("a"), None)]),
        ]
        with suppress(ZeroDivisionError, LedgerError), self.ledger.transaction():
            for write in data.draw(st.permutations(everything), "writes"):
                write()
            raise ZeroDivisionError

    @rule(write=st.booleans())
    def close_and_open(self, *, write: bool) -> None:
        self.ledger.close()
        if not write:
            with Ledger.open(self.path) as reader:
                self.compare(reader)
        self.ledger = Ledger.open(self.path, write=True)

    # Reading

    @invariant()
    def both_say_the_same(self) -> None:
        self.compare(self.ledger)

    def compare(self, ledger: Ledger) -> None:
        self.compare_attempts(ledger)
        self.compare_verdicts(ledger)
        by_task: dict[str, list[Started]] = {}
        for (task_id, _), one in sorted(self.model.starts.items()):
            by_task.setdefault(task_id, []).append(one)
        assert starts_by_task(ledger) == by_task
        assert all_receipts(ledger) == self.model.receipts
        assert ledger.info.read() == INFO
        for task_id in self.model.attempts:
            mine = [(x, r) for task, x, r in self.model.receipts if task == task_id]
            assert ledger.events.receipts(task_id) == mine
            assert starts_of(ledger, task_id) == by_task.get(task_id, [])

    def compare_attempts(self, ledger: Ledger) -> None:
        model = self.model
        assert list(ledger.attempts.all()) == in_order(model.attempts.values())
        newest = model.newest()
        assert list(ledger.attempts.newest()) == newest
        unsettled = [row for row in newest if model.is_open(row.entry)]
        assert list(ledger.attempts.all(undecided=True)) == unsettled
        assert ledger.attempts.has_undecided() == bool(unsettled)
        assert ledger.attempts.count_entries() == len(newest)
        assert ledger.attempts.send_states() == Counter(
            row.state for row in model.attempts.values()
        )
        reasons = Counter(row.reason for row in model.attempts.values() if row.reason is not None)
        assert ledger.attempts.reasons() == reasons
        for row in newest:
            assert ledger.attempts.of_entry(row.entry) == model.of(row.entry)
            assert ledger.attempts.get(row.task_id) == row

    def compare_verdicts(self, ledger: Ledger) -> None:
        settled = self.model.settled
        in_time = ledger.verdicts.since(0)
        assert [entry for _, entry, _ in in_time] == list(settled)
        seqs = {entry: seq for seq, entry, _ in in_time}
        found = [EntryVerdict(seqs[e], *settled[e]) for e in sorted(settled)]
        assert list(ledger.queries.all_verdicts()) == found
        assert [ledger.verdicts.of_entry(one.verdict.entry) for one in found] == found
        assert ledger.verdicts.statuses() == {
            entry: judged.verdict for entry, (judged, _) in settled.items()
        }
        assert ledger.verdicts.counts() == Counter(v.verdict for v, _ in settled.values())


LedgerMachine.TestCase.settings = settings(
    max_examples=examples(40), stateful_step_count=25, database=None
)


TestLedger = LedgerMachine.TestCase
