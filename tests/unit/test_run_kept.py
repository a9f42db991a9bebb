"""What the ledger knows already is not forgotten, and what is open is told from what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.earlier import evaluate_kept_receipts
from pytest_manifest.run.evaluation import AttemptEvaluator
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.schema import Entry, Header
from pytest_manifest.testing import make_receipt
from pytest_manifest.verdict import evaluate
from tests.unit.ledger_support import INFO, start

ENTRIES = [Entry(id=name, task="t") for name in "abc"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_manifest(tmp_path / "m.jsonl", Header(), ENTRIES)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        yield made


def sent(ledger: Ledger) -> list[Attempt]:
    attempts = [attempt_of(INFO.run, entry, 1) for entry in ENTRIES]
    ledger.attempts.plan((a.task_id, a.entry.id, 1, n) for n, a in enumerate(attempts))
    ledger.attempts.mark([a.task_id for a in attempts], "sent")
    return attempts


def test_a_receipt_that_was_kept_is_judged_by(ledger: Ledger, manifest: Manifest) -> None:
    """Nobody reads it from the stack again; a revocation that only the store told of is none."""
    a, b, c = sent(ledger)
    notice = make_receipt(b.entry, run=INFO.run, state="revoked", source="backend")
    told = make_receipt(a.entry, run=INFO.run)
    ledger.events.add_starts([start(a.task_id, "x1")])
    ledger.events.add_receipts([(a.task_id, "x1", told), (b.task_id, None, notice)])
    flights = PendingAttempts()
    for attempt in (a, b, c):
        flights.track(attempt, 0.0)
    evaluate_kept_receipts(
        ledger, flights, AttemptEvaluator(INFO.run, manifest, ledger, kills=3, lifetime=60)
    )
    assert ledger.verdicts.statuses() == {"a": "passed"}
    assert list(flights.by_task_id) == [b.task_id, c.task_id]


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
