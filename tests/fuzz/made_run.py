"""A small run for inputs that are about one: its manifest, its attempts, its ledger."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, Final

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.schema import Entry, Header, Receipt
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.verdict.judging import Judging, recorded
from tests.fuzz.oracles import scratch
from tests.reports import add_receipts, add_starts, run_info, started

RUN: Final = "20261124T150000-0123abcd"
MOMENT: Final = datetime(2026, 11, 24, 15, 0, 1, tzinfo=timezone.utc)
ENTRIES: Final = (
    Entry(id="a", task="tasks.add", args=[1, 2]),
    Entry.model_validate(
        {
            "id": "b",
            "task": "tasks.look",
            "kwargs": {"name": "x"},
            "idempotent": True,
            "cost": 0.5,
            "expect": {
                "result": {"items": [1, {"n": 2}]},
                "schema": {
                    "type": "object",
                    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/one"}}},
                    "patternProperties": {"^x-": {"type": "string", "pattern": "^[a-z]+$"}},
                    "$defs": {"one": {"type": ["integer", "object"]}},
                },
                "max_runtime": 10,
            },
        }
    ),
    Entry.model_validate(
        {
            "id": "c",
            "task": "tasks.fail",
            "after": ["a"],
            "expect": {"state": "failed", "error": {"type": "ValueError", "match": "^no "}},
        }
    ),
    Entry.model_validate({"id": "d", "task": "tasks.spawn", "expect": {"descendants": "finished"}}),
)
TASK_IDS: Final = {
    entry.id: attempt_of(RUN, entry, 1, place).task_id for place, entry in enumerate(ENTRIES)
}
TASK_ID: Final = TASK_IDS["a"]
RESULTS: Final[dict[str, Any]] = {
    "a": 3,
    "b": {"items": [1, {"n": 2}], "x-y": "z", "cost": 0.25},
    "c": None,
    "d": [True, 1.5, "text"],
}


@cache
def made_manifest() -> Manifest:
    """Return the run's manifest, on disk."""
    path = scratch() / "made.jsonl"
    write_manifest(path, Header(workflow="demo"), ENTRIES)
    return read_manifest(path)


def made_info() -> RunInfo:
    """Describe the run."""
    return run_info(RUN, MOMENT, made_manifest(), workflow="demo", url="memory://")


def made_ledger(name: str) -> Ledger:
    """Create the run's ledger in a folder of this name: all attempts are sent."""
    folder = scratch() / name
    folder.mkdir(exist_ok=True)
    ledger = Ledger.create(folder / f"{RUN}.sqlite", made_info())
    ledger.disable_journal()
    rows = [(TASK_IDS[one.id], one.id, 1, place, None) for place, one in enumerate(ENTRIES)]
    with ledger.transaction():
        ledger.attempts.plan(rows)
        ledger.attempts.mark(TASK_IDS.values(), "sent", sent_at=MOMENT)
    return ledger


def attempts() -> list[Attempt]:
    """Return the first attempt of each entry."""
    return [attempt_of(RUN, entry, 1, place) for place, entry in enumerate(ENTRIES)]


def receipt_document(entry: Entry) -> dict[str, Any]:
    """Return what a worker says of an entry's job that went as expected."""
    document: dict[str, Any] = {
        "run": RUN,
        "entry": entry.id,
        "attempt": 1,
        "task_id": TASK_IDS[entry.id],
        "task": entry.task,
        "state": entry.expect.state,
        "result": RESULTS[entry.id],
        "worker": "celery@host",
        "host": "host",
        "pid": 7,
        "sent_at": "2026-11-24T15:00:01+00:00",
        "started_at": "2026-11-24T15:00:02+00:00",
        "finished_at": "2026-11-24T15:00:03+00:00",
        "wait": 1.0,
        "runtime": 1.0,
        "executions": 1,
        "args_sha256": arguments_sha256(entry.args, entry.kwargs),
        "result_sha256": json_sha256(RESULTS[entry.id]),
        "log": ["begun"],
        "cpu": 0.5,
        "max_rss": 50_000_000,
        "evidence": {"rows": 2},
    }
    if entry.expect.state == "failed":
        document["error"] = {"type": "ValueError", "message": "no good", "traceback": "T"}
        document["result_sha256"] = None
    return document


def finished_ledger(name: str) -> Path:
    """Create the ledger of the run when it has ended, each entry as it should; return its path."""
    ledger = made_ledger(name)
    with ledger:
        for entry in ENTRIES:
            receipt = Receipt.model_validate(receipt_document(entry))
            task_id = receipt.task_id
            start = started(task_id, "x", MOMENT, 0, "celery@host", "host", 7, redelivered=False)
            add_starts(ledger, [start])
            add_receipts(ledger, [(task_id, "x", receipt)])
            ledger.verdicts.record([recorded(Judging(ledger).of(entry))])
        ledger.info.set_status("finished")
        ledger.compact()
        return ledger.path


def line(document: object) -> bytes:
    """Return a JSON line without its newline."""
    return json.dumps(document, ensure_ascii=False).encode()
