"""A run's stream of any records: each is taken, or passed over, and those beside it are as ever."""

from __future__ import annotations

import json
from contextlib import closing
from functools import cache
from threading import Event
from typing import Any, Final

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.records import ReadErrors
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run.connections import EngineContext, RunConnections, RunState
from pytest_manifest.run.fact_log import FactLog, run_over
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.settings import RunSettings, Signals
from pytest_manifest.run.verdict_recorder import VerdictRecorder
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.problems import RunDeadline
from pytest_manifest.worker.backend_memory import stores
from tests.fuzz.made_run import (
    ENTRIES,
    MOMENT,
    RUN,
    TASK_ID,
    attempts,
    made_ledger,
    made_manifest,
)
from tests.fuzz.oracles import expect, expect_sentence
from tests.fuzz.verdicts import expect_verdict
from tests.reports import NoResults, all_receipts, starts_by_task

KEY: Final = stream_key(RUN)
MOST: Final = 50
MOST_WARNINGS: Final = 30
LAST: Final[dict[str, Any]] = {
    "kind": "finished",
    "execution": "the last one",
    "receipt": {
        "run": RUN,
        "entry": "a",
        "attempt": 1,
        "task_id": TASK_ID,
        "task": "tasks.add",
        "state": "failed",
        "error": {"type": "ValueError", "message": "no"},
    },
}
"""A record that comes behind all others, and must be there."""


@cache
def _ledger() -> Ledger:
    return made_ledger("stream")


def check(data: bytes) -> None:
    """Read each line as a record; judge by what was taken, then what has no end."""
    records(data.split(b"\n")[:MOST])


def records(lines: list[bytes]) -> list[str]:
    """Read these records into a run; return the warnings that came of them."""
    stores.now.clear()
    for raw in [*lines, json.dumps(LAST).encode()]:
        stores.now.xadd(KEY, {"r": raw})
    warnings: list[str] = []
    flaws = ReadErrors(warnings)
    ledger = _ledger()
    reader = StreamReader("memory://", KEY, flaws=flaws, keeps_records=True)
    try:
        with closing(ReceiptCollector(reader, NoResults(), flaws=flaws)) as collector:
            context = _context(ledger, collector, warnings)
            recorder = VerdictRecorder(context, None)
            recorder.poll_once()
            over = RunDeadline(limit=60.0)
            context.facts.add(None, run_over(over))
            recorder.record_rest("timed_out", over)
        _read_back(ledger)
    finally:
        _empty(ledger)
    expect(len(warnings) <= MOST_WARNINGS, "many warnings", len(warnings))
    for one in warnings:
        expect_sentence(one)
    return warnings


def _context(ledger: Ledger, collector: ReceiptCollector, warnings: list[str]) -> EngineContext:
    pending = PendingAttempts()
    for attempt in attempts():
        pending.track(attempt, 0.0, MOMENT)
    signals = Signals(
        stop=Event(),
        interrupted=Event(),
        force_stop=Event(),
        on_verdicts=lambda _: None,
        lost_workers=list,
    )
    state = RunState(
        *(made_manifest(), RunFiles(ledger.path), ledger.info.read()),
        StackAddress("", "", None, is_private=False),
        RunSettings(folder=ledger.path.parent),
        signals,
        pending=pending,
        warnings=warnings,
    )
    connections = RunConnections(state)
    return EngineContext(state, connections, ledger, collector, FactLog(ledger), Schedule(()))


def _read_back(ledger: Ledger) -> None:
    """Each entry has one verdict at most, and what arrived is read as it was."""
    kept = all_receipts(ledger)
    expect(kept[-1][2] == Receipt.model_validate(LAST["receipt"]), "the last record is missing")
    expect(all(one[2].source == "worker" for one in kept), "a receipt of another source")
    starts_by_task(ledger)
    by_id = {entry.id: entry for entry in ENTRIES}
    found = list(ledger.queries.all_verdicts())
    names = [one.verdict.entry for one in found]
    expect("a" in names, "an end came, and there is no verdict", names)
    expect(len(set(names)) == len(names) and set(names) <= set(by_id), "strange entries", names)
    for one in found:
        expect_verdict(by_id[one.verdict.entry], one.verdict, one.receipt)


def _empty(ledger: Ledger) -> None:
    with ledger._db.writing() as db:
        db.execute("DELETE FROM facts")
        db.execute("DELETE FROM verdicts")
        db.execute("DELETE FROM jobs WHERE attempt IS NOT 1")
        db.execute("UPDATE run SET stream_position = NULL")
