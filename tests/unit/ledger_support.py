"""Runs, receipts and verdicts for tests of the ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema.facts import Started
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from tests.reports import run_info, started

ROOT = Path(__file__).resolve().parents[2]
"""Everything that a ledger of version 1 held, as SQL."""
MOMENT = datetime(2026, 11, 24, 15, 0, 1, 123456, tzinfo=timezone.utc)
INFO = run_info(
    "20261124T150000-0123abcd",
    datetime(2026, 11, 24, 15, tzinfo=timezone.utc),
    manifest=Path("/tmp/m.jsonl"),
    workflow="demo",
    url="redis://:***@127.0.0.1:1/0",
)

NOTHING = {
    "args_sha256": arguments_sha256([], {}),
    "result_sha256": json_sha256(None),
    "runtime": 0.1,
    "executions": 1,
}
"""What a worker says besides times of a task without arguments that returns nothing."""


def receipt(entry: str, attempt: int = 1, **more: object) -> Receipt:
    document = {"run": INFO.run, "entry": entry, "attempt": attempt, "task_id": f"t-{entry}"}
    return Receipt.model_validate({**document, "task": "t", "state": "succeeded", **more})


def verdict(entry: str, kind: str = "passed", attempt: int | None = 1) -> Verdict:
    return Verdict.model_validate(
        {"verdict": kind, "entry": entry, "attempt": attempt, "sentence": f"{entry} {kind}"}
    )


def start(task_id: str, execution: str) -> Started:
    return started(task_id, execution, MOMENT, 0, "w@h", "h", 1, redelivered=False)


def is_sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    with closing(sqlite3.connect(path)) as db:
        row: tuple[str] = db.execute("PRAGMA integrity_check").fetchone()
    return row == ("ok",)
