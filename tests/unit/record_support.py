"""The record of a run that keeps every promise, written by hand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pytest_manifest.broker.attempt import task_id_for
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.invariants import Violation, broken_invariants
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.facts import TimeOver, Withheld
from pytest_manifest.schema.run_facts import JobFact, RunFact
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.verdict.judging import Judging, recorded
from tests.broken_records import ENTRIES
from tests.ledger_edits import make_editable
from tests.reports import add_receipts, add_starts, announced, started
from tests.unit.ledger_support import INFO
from tests.verdicts import evaluate

RUN = INFO.run
SENT_AT = datetime(2026, 11, 24, 15, 0, 1, tzinfo=timezone.utc)
RESULT = {"n": 2, "type": "int"}


class RecordWriter:
    """Write a run's ledger entry by entry, as a session does where all goes well."""

    def __init__(self, folder: Path, entries: Sequence[Mapping[str, object]]) -> None:
        path = folder / "m.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
        self.manifest: Manifest = read_manifest(path)
        info = replace(
            INFO, manifest=path, sha256=self.manifest.sha256, entries=len(self.manifest.ids)
        )
        self.ledger = Ledger.create(folder / "run.sqlite", info)

    def task_id(self, name: str, attempt: int = 1) -> str:
        return task_id_for(RUN, name, attempt, list(self.manifest.ids).index(name))

    def attempt(self, name: str, number: int = 1, **ended: Any) -> None:
        """Send an entry, run its job once, and judge it by the receipt; ``ended``: its fields."""
        entry, task_id = self.manifest[name], self.task_id(name, number)
        reason = "failed" if number > 1 else None
        position = list(self.manifest.ids).index(name)
        self.ledger.attempts.plan([(task_id, name, number, position, reason)])
        self.ledger.attempts.mark([task_id], "sent", sent_at=SENT_AT)
        self.begin(task_id)
        received = self.receipt(entry, task_id, number, **ended)
        add_receipts(self.ledger, [(task_id, f"x-{task_id}", received)])
        found = evaluate(entry, received, attempt=number)
        self.ledger.verdicts.record([(found, received)])

    def begin(self, task_id: str, execution: str = "") -> None:
        began = SENT_AT + timedelta(seconds=1)
        execution = execution or f"x-{task_id}"
        add_starts(
            self.ledger, [started(task_id, execution, began, 0, "w@h", "h", 1, redelivered=False)]
        )

    def receipt(self, entry: Entry, task_id: str, number: int, **ended: Any) -> Receipt:
        return self.receipt_of(entry, task_id, number, **ended)

    @staticmethod
    def receipt_of(entry: Entry, task_id: str, number: int, **ended: Any) -> Receipt:
        """A worker's receipt of a job that has succeeded; ``ended``: the fields that differ."""
        result = ended.get("result", RESULT)
        facts = {
            "run": RUN,
            "entry": entry.id,
            "attempt": number,
            "task_id": task_id,
            "task": entry.task,
            "state": "succeeded",
            "source": "worker",
            "started_at": SENT_AT + timedelta(seconds=1),
            "finished_at": SENT_AT + timedelta(seconds=2),
            "sent_at": SENT_AT,
            "runtime": 1.0,
            "executions": 1,
            "children": 0,
            "args_sha256": arguments_sha256(entry.args, entry.kwargs),
            "result": result,
            "result_sha256": json_sha256(result),
        }
        return Receipt.model_validate({**facts, **ended})

    def child(
        self,
        name: str,
        task_id: str,
        *,
        how: str = "call",
        status: str = "passed",
        told: bool = True,
    ) -> None:
        """A task that the entry's first attempt has started, and its end; ``told`` by a receipt."""
        root = self.task_id(name)
        fulfils = "body" if how == "chord_body" else None
        self.ledger.descendants.add(
            [Descendant(task_id, root, root, "jobs.t", how, fulfils=fulfils, spawned_at=SENT_AT)]
        )
        if status == "passed" and told:
            received = self.receipt(self.manifest[name], task_id, 1)
            add_receipts(self.ledger, [(task_id, f"x-{task_id}", received)])
        ended = {"verdict": status, "entry": name, "attempt": 1, "sentence": "It ended."}
        self.ledger.descendants.end({task_id: Verdict.model_validate(ended)})

    def finish(self) -> Path:
        self.ledger.info.set_status("finished")
        self.ledger.compact()
        self.ledger.close()
        return self.ledger.path


FAILED: dict[str, Any] = {
    "state": "failed",
    "result": None,
    "result_sha256": None,
    "error": {"type": "ValueError", "message": "no"},
}


class JudgedRecord(RecordWriter):
    """A record whose verdicts follow from its facts."""

    def child(self, name: str, task_id: str, *, how: str = "call", status: str = "passed") -> None:  # type: ignore[override]  # a run that is made says less of a child
        """A task that the entry's first attempt has started, its start and its end."""
        super().child(name, task_id, how=how, status=status, told=False)
        self.begin(task_id)
        said = {} if status == "passed" else FAILED
        received = self.receipt(self.manifest[name], task_id, 1, task="jobs.t", **said)
        add_receipts(self.ledger, [(task_id, f"x-{task_id}", received)])

    def judge(self) -> None:
        """Record what the facts say of all entries."""
        judging = Judging(self.ledger)
        self.ledger.verdicts.record(recorded(judging.of(entry)) for entry in self.manifest)


MORE: Sequence[Mapping[str, object]] = (
    {"id": "gone", "task": "jobs.nap", "expect": {"state": "timed_out"}},
    {"id": "careless", "task": "jobs.start", "expect": {"descendants": "ignored"}},
    {"id": "twice", "task": "jobs.double", "args": [2], "expect": {"executions": 2}},
    {"id": "held", "task": "jobs.double", "args": [3]},
    {"id": "silent", "task": "jobs.nap", "expect": {"state": "ignored"}},
    {
        "id": "counted",
        "task": "jobs.start",
        "expect": {"descendants": {"outcome": "ignored", "count": 1}},
    },
)
"""Entries beside those of real records: one that passes without a receipt, one that asks nothing of
what it starts, one that may begin twice, one that was never sent, one whose task stores nothing,
and one that asks only how many tasks it starts."""


def write_record(folder: Path) -> Path:
    """Write the record of ``ENTRIES``, two of which were sent twice, one by insistence.

    And of ``MORE``.
    """
    record = JudgedRecord(folder, [*ENTRIES, *MORE])
    record.attempt("plain")
    record.attempt("other")
    record.attempt("fails", **FAILED)
    record.attempt("tree", children=2)
    record.child("tree", "t1")
    record.child("tree", "t2")
    record.attempt("loose", children=1)
    record.child("loose", "l1", status="failed")
    record.attempt("chord", children=3)
    for number in range(3):
        record.child("chord", f"c{number}", how="chord_header")
    root = record.task_id("chord")
    record.ledger.events.add(
        [announced(root, "body", "c2", "chord_body", "jobs.total", 1, ["body"], is_off=False)]
    )
    record.child("chord", "body", how="chord_body")
    for name in ("again", "once"):
        record.attempt(name, **FAILED)
        record.ledger.verdicts.reopen([name])
    record.attempt("again", 2)
    record.attempt("once", 2, **FAILED)
    record.ledger.info.add_sent_on_request([record.task_id("once", 2)])
    record.attempt("careless", children=2)
    record.child("careless", "k1", status="failed")
    record.attempt("twice")
    record.begin(record.task_id("twice"), "again")
    record.attempt("silent", state="ignored", result=None)
    record.attempt("counted", children=1)
    record.child("counted", "n1", status="failed")
    gone, held = record.task_id("gone"), record.task_id("held")
    numbers = {name: position for position, name in enumerate(record.manifest.ids)}
    record.ledger.attempts.plan([(gone, "gone", 1, numbers["gone"])])
    record.ledger.attempts.plan([(held, "held", 1, numbers["held"])])
    record.ledger.attempts.mark([gone], "sent", sent_at=SENT_AT)
    record.ledger.attempts.mark([held], "withheld")
    record.begin(gone)
    facts: list[tuple[str | None, JobFact | RunFact]] = [
        ("gone", TimeOver(**stamp(gone), of="timeout", limit=300.0, execution=f"x-{gone}")),
        ("held", Withheld(**stamp(held), code="budget", fields={"spent": "1", "budget": "1"})),
    ]
    record.ledger.facts.append(facts)
    record.judge()
    with record.ledger.writing() as db:  # one verdict an attempt, that of the judge
        db.execute(
            "DELETE FROM verdicts WHERE status = (SELECT w.status FROM verdicts w "
            "WHERE w.job = verdicts.job AND w.seq > verdicts.seq)"
        )
    return record.finish()


class KeptRecord:
    """A record that is kept in memory, and changed there for one reader at a time."""

    def __init__(self, path: Path) -> None:
        with Ledger.open(path) as ledger:
            self.manifest: Manifest = read_manifest(ledger.info.read().manifest)
        self._path = path
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        with closing(sqlite3.connect(path)) as db:
            db.backup(self._db)
        make_editable(self._db)

    @contextmanager
    def changed(self, statements: str = "") -> Iterator[Ledger]:
        """Open the record as these statements leave it."""
        before = self._db.total_changes
        try:
            self._db.executescript(f"BEGIN; {statements}")
            assert not statements or self._db.total_changes > before, "nothing was changed"
            yield Ledger(self._path, self._db)
        finally:
            self._db.execute("ROLLBACK")

    def broken(self, statements: str = "") -> list[Violation]:
        """Return what the record breaks then, whatever a judge says of it."""
        with (
            self.changed(statements) as ledger,
            closing(broken_invariants(ledger, self.manifest)) as found,
        ):
            return list(found)
