"""A verdict on any evidence: an entry, ends that were reported of its job, and starts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from pydantic import ValidationError

from pytest_manifest.results.records import StartedRecord, parse_record
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.facts import Started
from pytest_manifest.schema.wire import parse_timestamp
from tests.fuzz.lines import objects
from tests.fuzz.made_run import RUN, TASK_ID
from tests.fuzz.oracles import expect
from tests.fuzz.verdicts import expect_verdict
from tests.reasons import noted
from tests.reports import started
from tests.verdicts import evaluate, judged

ReportedEnd: TypeAlias = tuple[str | None, Receipt]
DEFAULTS: dict[str, Any] = {
    "run": RUN,
    "entry": "a",
    "attempt": 1,
    "task_id": TASK_ID,
    "task": "tasks.add",
}
"""What a line need not say: without these, evidence would seldom be of the entry at all."""


def check(data: bytes) -> None:
    """Judge by the lines: ``{"receipt": {...}, "execution": ...}``, ``{"start": {...}}``,
    ``{"entry": {...}}``, ``{"sent_at": ...}`` and ``{"problem": ..., "note": ..., "seen": ...}``.
    """
    entry = Entry(id="a", task="tasks.add", args=[1, 2])
    reported: list[ReportedEnd] = []
    starts: list[Started] = []
    sent_at: datetime | None = None
    problems: list[dict[str, Any]] = []
    for one in objects(data):
        if isinstance(one.get("entry"), dict):
            entry = _entry(one["entry"]) or entry
        elif isinstance(one.get("receipt"), dict):
            _add_end(one, reported)
        elif isinstance(one.get("start"), dict):
            _add_start(one["start"], starts)
        elif "problem" in one:
            problems.append(one)
        else:
            sent_at = parse_timestamp(one.get("sent_at"))
    if reported:
        found = judged(entry, reported, starts, sent_at, run=RUN, task_id=TASK_ID)
        again = judged(entry, reported, starts[::-1], sent_at, run=RUN, task_id=TASK_ID)
        expect(found == again, "another verdict at the second time", found, again)
        expect_verdict(entry, *found)
        if entry.id == "a":
            expect_of_this_attempt(entry, reported, found[0].verdict)
    for one in problems:
        _judge_without(entry, one)


def expect_of_this_attempt(entry: Entry, reported: list[ReportedEnd], status: str) -> None:
    """Nothing passes where each end that was reported is of something else, or failed."""
    ours = [
        receipt
        for _, receipt in reported
        if (receipt.run, receipt.entry, receipt.attempt, receipt.task_id)
        == (RUN, entry.id, 1, TASK_ID)
        and receipt.state == entry.expect.state
    ]
    expect(ours or status != "passed", "passed by nothing that is of this attempt", reported)


def _entry(document: dict[str, Any]) -> Entry | None:
    try:
        return Entry.model_validate({"id": "a", "task": "tasks.add", **document})
    except ValidationError:
        return None


def _add_end(one: dict[str, Any], reported: list[ReportedEnd]) -> None:
    execution = one.get("execution")
    try:
        receipt = Receipt.model_validate(DEFAULTS | {"state": "succeeded"} | one["receipt"])
    except ValueError:
        return
    reported.append((execution if isinstance(execution, str) else None, receipt))


def _add_start(document: dict[str, Any], starts: list[Started]) -> None:
    kind = {"kind": "started", "execution": "x"}
    try:
        record = parse_record(DEFAULTS | kind | document)
    except ValueError:
        return
    if not isinstance(record, StartedRecord):
        return
    starts.append(
        started(
            task_id=TASK_ID,
            execution=record.execution,
            started_at=record.started_at,
            retries=record.retries,
            worker=record.worker,
            host=record.host,
            pid=record.pid,
            redelivered=record.redelivered,
            hop=record.hop,
        )
    )


def _judge_without(entry: Entry, one: dict[str, Any]) -> None:
    """Judge without a receipt, by a problem that the run has found."""
    problem, note = one["problem"], one.get("note", "")
    known = {"pending", "unknown", "crashed", "lost", "timed_out", "unknown_task", "rejected"}
    known |= {"expired", "revoked", "duplicated", "quarantined", "skipped", "forged"}
    if problem not in known or not isinstance(note, str) or not note.isprintable():
        return
    seen = one.get("seen") is True
    verdict = evaluate(entry, None, attempt=1, problem=problem, why=noted(note[:200]), seen=seen)
    passed = verdict.verdict == "passed"
    expect(verdict.verdict in (problem, "passed"), "a verdict on something else", verdict)
    expect(not passed or (seen and problem == entry.expect.state), "passed unseen", verdict)
    if not passed:
        expect_verdict(entry, verdict, None)
