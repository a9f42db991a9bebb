"""Verify what the generic verdict cannot see: each entry by one test, a few runs as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeGuard

import pytest
from pydantic import JsonValue

from pytest_manifest.schema import Entry, Receipt
from tasks.settings import Settings
from workflows.system_test.plan import LIFECYCLE

if TYPE_CHECKING:
    from pytest_manifest import ManifestRun
    from tasks.database import Database

CLOCK_SECONDS = 0.05
"""How far a run time may stay below the time slept: it is read from the wall clock."""

SLEEP_PER_WORKER_SECONDS = 0.5
"""Below it, one worker may be through with everything before the next has started."""


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """Open the database that this process's settings name."""
    from tasks.database import Database

    opened = Database(Settings())
    yield opened
    opened.close()


@pytest.fixture
def shared_database(receipt: Receipt | None, database: Database) -> Database:
    """Return the database if the worker wrote to the same one; fail the test otherwise."""
    refuse_another_database(receipt, database)
    return database


@pytest.mark.entries(task="tasks.diagnostics.debug_task")
def test_debug(entry: Entry, receipt: Receipt | None) -> None:
    """Check that the echo is the message."""
    if _succeeded(receipt):
        assert _mapping(receipt.result).get("echo") == argument(entry, 0, "msg")


@pytest.mark.entries(task="tasks.diagnostics.sleep_task")
def test_sleep(entry: Entry, receipt: Receipt | None) -> None:
    """Check that the task slept at least its time."""
    if _succeeded(receipt):
        check_slept(receipt, argument(entry, 0, "sec"))


@pytest.mark.entries(task="tasks.crud.fast_crud_task")
def test_crud(entry: Entry, receipt: Receipt | None, shared_database: Database) -> None:
    """Check that the row went through its whole life as it was sent, and is gone."""
    if _succeeded(receipt):
        check_lifecycle(receipt, argument(entry, 0, "data"), shared_database)


@pytest.mark.entries(task="tasks.crud.sleep_crud_task")
def test_sleep_crud(entry: Entry, receipt: Receipt | None, shared_database: Database) -> None:
    """Check a row as ``test_crud`` does, and that the pool held a connection within its limit."""
    if _succeeded(receipt):
        check_lifecycle(receipt, argument(entry, 1, "data"), shared_database)
        check_slept(receipt, argument(entry, 0, "sec"))
        if receipt.source == "worker":  # others do not carry evidence
            check_pool(receipt.evidence)


@pytest.mark.entries(mode=["sleep", "crud_latency", "crud_stress"])
def test_workers_ran_side_by_side(manifest_run: ManifestRun) -> None:
    """Check that two jobs ran at the same moment, where there were workers and work for it."""
    sleepers = {e.id: e for e in manifest_run.manifest if "sec" in e.kwargs}
    receipts = [r for name, r in manifest_run.receipts().items() if name in sleepers]
    asleep = sum(_number(sleepers[r.entry].kwargs["sec"]) for r in receipts)
    workers = manifest_run.workers or len({(r.host, r.pid) for r in receipts})
    if workers < 2 or asleep < workers * SLEEP_PER_WORKER_SECONDS:
        pytest.skip(f"{workers} process(es) and {asleep:g} s of sleep are too little to tell")
    assert most_at_once(_intervals(receipts)) >= 2


@pytest.mark.entries(mode=["crud_latency", "crud_stress"])
def test_no_row_is_left(manifest_run: ManifestRun, database: Database) -> None:
    """Check that the table is empty after all jobs."""
    assert manifest_run.receipts()
    assert database.rows() == 0


def refuse_another_database(receipt: Receipt | None, database: Database) -> None:
    """Fail the test where the worker used another database than this process."""
    used = None if receipt is None else _mapping(receipt.result).get("database")
    if used is not None and used != database.identity:
        pytest.fail(
            "the worker used another database than this process does, so nothing can be said about "
            "its rows; set DATABASE_URL alike for both",
            pytrace=False,
        )


def check_slept(receipt: Receipt, sec: JsonValue) -> None:
    """Check that the task reports having slept its time, and that its run time agrees."""
    asked = _number(sec)
    assert _number(_mapping(receipt.result)["slept"]) >= asked
    if receipt.runtime is not None:
        assert receipt.runtime >= asked - CLOCK_SECONDS


def check_lifecycle(receipt: Receipt, data: JsonValue, database: Database) -> None:
    """Check that all of ``data`` was read back, each step was taken, and the row is deleted."""
    sent = dict(_mapping(data))
    result = _mapping(receipt.result)
    read = _mapping(result["verified"])
    assert result["lifecycle"] == list(LIFECYCLE)
    assert read["title"] == sent.pop("title")
    assert read["fields"] == sent
    assert read["revision"] == 2
    row_id = result["row_id"]
    assert isinstance(row_id, int)
    assert database.rows(row_id) == 0


def check_pool(evidence: dict[str, JsonValue]) -> None:
    """Check that the task held a connection while it slept, and the pool kept its limit."""
    pool = _mapping(evidence.get("pool"))
    assert _number(pool["checked_out"]) >= 1
    assert _number(pool["peak"]) <= _number(pool["limit"])


def argument(entry: Entry, position: int, name: str) -> JsonValue:
    """Return the argument that the entry gave the task, by name or by position."""
    return entry.kwargs[name] if name in entry.kwargs else entry.args[position]


def most_at_once(intervals: Iterable[tuple[datetime, datetime]]) -> int:
    """Return the largest number of intervals that share a moment; their ends do not count."""
    steps = [step for begin, end in intervals for step in ((begin, 1), (end, -1))]
    running = most = 0
    for _, change in sorted(steps):  # an end sorts before a begin at the same moment
        running += change
        most = max(most, running)
    return most


def _intervals(receipts: Iterable[Receipt]) -> Iterator[tuple[datetime, datetime]]:
    for receipt in receipts:
        if receipt.started_at is not None and receipt.finished_at is not None:
            yield receipt.started_at, receipt.finished_at


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _number(value: JsonValue) -> float:
    assert isinstance(value, int | float), f"a number was expected, not {value!r}"
    return value


def _succeeded(receipt: Receipt | None) -> TypeGuard[Receipt]:
    """Return whether the job succeeded; a failure, which may be expected, has no more to check."""
    return receipt is not None and receipt.state == "succeeded"
