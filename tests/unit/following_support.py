"""Runs that are written step by step, for who follows them: with a clock that is set by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger, rows
from pytest_manifest.manifest import read_manifest
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.locks import RunLock
from pytest_manifest.schema import ErrorInfo, Receipt, VerdictStatus
from pytest_manifest.schema.facts import FactSource, Gone
from pytest_manifest.schema.run_facts import Segment, SegmentEnded
from tests.reports import add_receipts, handed_on, started
from tests.unit.ledger_support import INFO, MOMENT, NOTHING, verdict


class MadeRun:
    """A run of entries ``e0`` and so on, whose ledger grows by each call; ``now`` is its clock."""

    def __init__(
        self,
        folder: Path,
        patch: pytest.MonkeyPatch,
        *,
        entries: int = 10,
        tasks: Sequence[str] = ("jobs.one",),
        number: int = 1,
        more: Mapping[str, JsonValue] | None = None,
        **settings: object,
    ) -> None:
        self.now = MOMENT
        patch.setattr(rows, "utc_now", lambda: self.now)
        file = folder / "m.jsonl"
        if not file.exists():
            lines = (
                {"id": f"e{n}", "task": tasks[n % len(tasks)], **(more or {})}
                for n in range(entries)
            )
            file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        self.manifest = read_manifest(file)
        run = f"20261124T1500{number:02}-{number:08x}"
        info = replace(
            INFO,
            run=run,
            manifest=file,
            sha256=self.manifest.sha256,
            entries=entries,
            created_at=MOMENT,
            number=number,
        )
        self.run = run
        self.path = folder / ".manifest" / "runs" / f"{run}.sqlite"
        self.ledger = Ledger.create(self.path, info)
        keep_manifest(self.manifest, self.path)
        self.lock = RunLock(self.path.with_suffix(".lock"))
        self.lock.acquire(run)
        self.ledger.attempts.plan(
            (self.task_id(f"e{n}"), f"e{n}", 1, n) for n in range(len(self.manifest))
        )
        self.begin(**settings)

    def close(self) -> None:
        self.lock.release()
        self.ledger.close()

    def reader(self, *, detail: bool = True) -> RunReader:
        return RunReader(self.path, detail=detail, clock=lambda: self.now)

    def after(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += timedelta(seconds=seconds)

    def task_id(self, entry: str, attempt: int = 1) -> str:
        return attempt_of(self.run, self.manifest[entry], attempt).task_id

    def begin(self, **settings: object) -> None:
        """Begin a stretch, with these settings."""
        with self.ledger.transaction():
            self.ledger.info.begin_segment(self.now)
            fact = Segment(seq=0, at=self.now, kills=2, lifetime=60.0, **settings)  # type: ignore[arg-type]  # they are fields
            self.ledger.facts.append([(None, fact)])

    def stop(self, how: str = "finished") -> None:
        self.ledger.info.set_status(how)  # type: ignore[arg-type]  # it is a status
        fact = SegmentEnded(seq=0, at=self.now, how=how)  # type: ignore[arg-type]  # it is one
        self.ledger.facts.append([(None, fact)])

    def fact(self, kind: int, **fields: JsonValue) -> None:
        """Add a fact of the run of a kind that has no class here."""
        with self.ledger.writing() as db:
            seq = self.ledger.facts.last_seq() + 1
            db.execute(
                "INSERT INTO facts (seq, run, job, kind, at, source, data) VALUES (?,1,0,?,?,7,?)",
                (seq, kind, rows.microseconds(self.now), json.dumps(fields)),
            )
            db.execute("UPDATE run SET seq = ? WHERE n = 1", (seq,))

    def send(self, *entries: str, state: str = "sent", attempt: int = 1) -> None:
        names = [self.task_id(entry, attempt) for entry in entries]
        self.ledger.attempts.mark(names, state, sent_at=self.now)  # type: ignore[arg-type]  # the states that the ledger names

    def again(self, entry: str, attempt: int, reason: str = "crashed") -> None:
        """Plan another attempt of an entry, and end the one before it."""
        done = verdict(entry, reason, attempt - 1)
        self.ledger.verdicts.end_attempt(self.task_id(entry, attempt - 1), done)
        row = (self.task_id(entry, attempt), entry, attempt, 0, reason)
        self.ledger.attempts.plan([row], why="retry")

    def start(self, *entries: str, worker: str = "w1@h", pid: int = 1, attempt: int = 1) -> None:
        self.ledger.events.add(
            replace(
                started(self.task_id(entry, attempt), f"x{attempt}", self.now, 0, worker, "h", pid),
                at=self.now,
            )
            for entry in entries
        )

    def hand_on(self, entry: str, how: str = "retry", next_at: datetime | None = None) -> None:
        one = handed_on(self.task_id(entry), "x1", how, self.now, next_at)
        self.ledger.events.add([replace(one, at=self.now)])

    def die(self, entry: str, worker: str = "w1@h") -> None:
        fact = Gone(
            seq=0,
            at=self.now,
            source=FactSource.SUPERVISOR,
            job=self.task_id(entry),
            execution="x1",
            exit_code=-9,
            worker=worker,
        )
        self.ledger.facts.append([(entry, fact)])

    def receipt(self, entry: str, *, attempt: int = 1, error: str = "", **more: object) -> Receipt:
        document: dict[str, object] = {
            **NOTHING,
            "run": self.run,
            "entry": entry,
            "attempt": attempt,
            "task_id": self.task_id(entry, attempt),
            "task": self.manifest[entry].task,
            "state": "failed" if error else "succeeded",
            "worker": "w1@h",
            "host": "h",
            "pid": 1,
            **dict.fromkeys(("sent_at", "started_at", "finished_at"), self.now),
            "error": ErrorInfo(type="Refused", message=error) if error else None,
            **more,
        }
        return Receipt.model_validate(document)

    def judge(
        self, entry: str, status: VerdictStatus = "passed", *, attempt: int = 1, **said: object
    ) -> None:
        """Have an entry's job end, and judge it."""
        if status == "failed":
            said.setdefault("error", "it was refused")
        receipt = self.receipt(entry, attempt=attempt, **said)  # type: ignore[arg-type]  # options as the callee names them
        with self.ledger.transaction():
            add_receipts(self.ledger, [(receipt.task_id, f"x{attempt}", receipt)], at=self.now)
            self.ledger.verdicts.record([(verdict(entry, status, attempt), receipt)])

    def infer(self, entry: str, status: VerdictStatus, attempt: int = 1) -> None:
        """Judge an entry whose end nobody has reported."""
        self.ledger.verdicts.record([(verdict(entry, status, attempt), None)])

    def do(self, *entries: str, status: VerdictStatus = "passed", **said: object) -> None:
        """Send, start, end and judge these."""
        self.send(*entries)
        self.start(*entries)
        for entry in entries:
            self.judge(entry, status, **said)  # type: ignore[arg-type]  # fields of receipts


Make = Callable[..., MadeRun]
"""Makes a run, see MadeRun; the fixture ``make`` is one."""
