"""What the starts of an attempt add to its receipt."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import Started
from tests.reports import started
from tests.verdicts import completed

SENT = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
BEGUN = SENT + timedelta(seconds=2)


def receipt(**facts: object) -> Receipt:
    known = {
        "run": "20261125T120000-0123abcd",
        "entry": "a",
        "attempt": 1,
        "task_id": "t-a",
        "task": "jobs.a",
        "state": "succeeded",
        "source": "worker",
        "sent_at": SENT,
        "finished_at": SENT + timedelta(seconds=3),
        "executions": 1,
    }
    return Receipt.model_validate(known | facts)


def start(execution: str = "x", *, retries: int = 0, redelivered: bool = False) -> Started:
    return started("t-a", execution, BEGUN, retries, "w@h", "h", 7, redelivered)


WHOLE = {"worker": "w@h", "host": "h", "pid": 7, "started_at": BEGUN, "wait": 2.0}


def test_a_receipt_that_says_all_stays_as_it_is() -> None:
    """The very same: nothing is copied for each of a hundred thousand."""
    said = receipt(**WHOLE)
    assert completed(said, [start()]) is said
    assert completed(said, []) is said


def test_a_start_says_what_a_killed_process_could_not() -> None:
    """Where and when it was begun, and so how long it had waited."""
    found = completed(receipt(), [start()])
    assert {name: getattr(found, name) for name in WHOLE} == WHOLE
    assert found.executions == 1


def test_a_second_execution_is_counted_and_a_retry_is_not() -> None:
    """By the number of the retry, of which each may run once."""
    said = receipt(**WHOLE)
    assert completed(said, [start("x"), start("y")]).executions == 2
    assert completed(said, [start("x"), start("y", retries=1)]) is said


def test_a_redelivery_is_told_by_any_start() -> None:
    """Also where the receipt is of the first one."""
    found = completed(receipt(**WHOLE), [start(redelivered=True)])
    assert found.redelivered
    assert found.executions == 1
