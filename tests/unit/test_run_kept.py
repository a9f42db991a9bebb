"""What the ledger knows already is not forgotten, and what is open is told from what is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.strategy import Tracking, evaluate_kept_receipts
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.run_facts import Segment
from pytest_manifest.testing import make_receipt
from tests.reports import add_receipts, add_starts, handed_on
from tests.unit.ledger_support import INFO, start
from tests.verdicts import evaluate

ENTRIES = [Entry(id=name, task="t") for name in "abc"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_manifest(tmp_path / "m.jsonl", Header(), ENTRIES)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        yield made


def sent(ledger: Ledger, *, kills: int = 3) -> list[Attempt]:
    ledger.facts.append([(None, Segment(**stamp(), kills=kills, lifetime=60.0))])
    attempts = [attempt_of(INFO.run, entry, 1) for entry in ENTRIES]
    ledger.attempts.plan((a.task_id, a.entry.id, 1, n) for n, a in enumerate(attempts))
    ledger.attempts.mark([a.task_id for a in attempts], "sent")
    return attempts


def test_a_receipt_that_was_kept_is_judged_by(ledger: Ledger, manifest: Manifest) -> None:
    """Nobody reads it from the stack again; a revocation that only the store told of is none."""
    a, b, c = sent(ledger)
    notice = make_receipt(b.entry, run=INFO.run, state="revoked", source="backend")
    told = make_receipt(a.entry, run=INFO.run)
    add_starts(ledger, [start(a.task_id, "x1")])
    add_receipts(ledger, [(a.task_id, "x1", told), (b.task_id, None, notice)])
    flights = PendingAttempts()
    for attempt in (a, b, c):
        flights.track(attempt, 0.0)
    evaluate_kept_receipts(ledger, flights, manifest, FactLog(ledger))
    assert ledger.verdicts.statuses() == {"a": "passed"}
    assert list(flights.by_task_id) == [b.task_id, c.task_id]


def test_a_job_that_sent_itself_again_has_not_ended_by_what_it_returned(
    ledger: Ledger, manifest: Manifest
) -> None:
    """As while the run goes on: ``retry(throw=False)`` and a return; the next execution decides.

    Nor by the copy of that in the result store. What its next execution has returned counts.
    """
    a, b, _ = sent(ledger)
    ended = utc_now()
    for attempt in (a, b):
        add_starts(ledger, [start(attempt.task_id, "x1")])
        ledger.events.add([handed_on(attempt.task_id, "x1", "retry", ended, ended)])
        told = make_receipt(attempt.entry, run=INFO.run, finished_at=ended)
        stored = make_receipt(attempt.entry, run=INFO.run, finished_at=ended, source="backend")
        add_receipts(ledger, [(attempt.task_id, "x1", told), (attempt.task_id, None, stored)])
    add_starts(ledger, [replace(start(b.task_id, "x2"), retries=1)])
    add_receipts(ledger, [(b.task_id, "x2", make_receipt(b.entry, run=INFO.run, retries=1))])
    flights = PendingAttempts()
    info = ledger.info.read()
    Tracking(flights, ledger, manifest, info).under_way()
    evaluate_kept_receipts(ledger, flights, manifest, FactLog(ledger))
    assert ledger.verdicts.statuses() == {"b": "passed"}
    assert a.task_id in flights.by_task_id


@pytest.mark.parametrize(("kills", "status"), [(2, "quarantined"), (3, "crashed")])
def test_the_last_of_many_deaths_that_was_kept_is_counted(
    ledger: Ledger, manifest: Manifest, kills: int, status: str
) -> None:
    """As while the run goes on: a resume would send again what is only crashed."""
    first = sent(ledger, kills=kills)[0]
    crashed = evaluate(first.entry, None, attempt=1, problem="crashed")
    died = make_receipt(first.entry, run=INFO.run, state="crashed")
    add_starts(ledger, [start(first.task_id, "x1")])
    add_receipts(ledger, [(first.task_id, "x1", died)])
    ledger.verdicts.end_attempt(first.task_id, crashed)
    second = attempt_of(INFO.run, first.entry, 2)
    ledger.attempts.plan([(second.task_id, "a", 2, 0, "crashed")])
    ledger.attempts.mark([second.task_id], "sent")
    add_starts(ledger, [start(second.task_id, "y1")])
    died = make_receipt(first.entry, run=INFO.run, attempt=2, state="crashed")
    add_receipts(ledger, [(second.task_id, "y1", died)])
    flights = PendingAttempts()
    flights.track(second, 0.0)
    evaluate_kept_receipts(ledger, flights, manifest, FactLog(ledger))
    assert ledger.verdicts.statuses() == {"a": status}


def test_unknown_is_an_end_unless_it_was_never_sent(ledger: Ledger) -> None:
    """Pending is none."""
    a, b, c = sent(ledger)
    assert ledger.attempts.has_open()
    for attempt in (a, b, c):
        ledger.verdicts.record(
            [(evaluate(attempt.entry, None, attempt=1, problem="unknown"), None)]
        )
    assert not ledger.attempts.has_open()
    assert ledger.attempts.has_undecided()
    ledger.attempts.mark([c.task_id], "planned")
    assert ledger.attempts.has_open()
    ledger.verdicts.record([(evaluate(c.entry, None, attempt=1, problem="pending"), None)])
    assert ledger.attempts.has_open()
    ledger.verdicts.reopen_not_final(["b"])
    assert ledger.verdicts.statuses() == {"a": "unknown", "c": "pending"}
