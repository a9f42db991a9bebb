"""What the batches of a run have cost: by their receipts, and by those of earlier attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import EntryVerdict, Ledger
from pytest_manifest.manifest import write_manifest
from pytest_manifest.plugin.verdict_reader import ManifestRun
from pytest_manifest.schema import Entry, Header, Receipt, Verdict
from pytest_manifest.testing import make_receipt
from tests.reports import add_receipts, add_starts, started
from tests.unit.ledger_support import INFO
from workflows.gap_fill.costs import incomplete_costs, paid_reports
from workflows.gap_fill.verify import told_cost

ENTRY = Entry(id="judge-00001", task="tasks.judge.grade_rows_task", cost=0.5, tags=["judge"])


def receipt(told: dict[str, JsonValue], number: int = 1) -> Receipt:
    """A receipt of a batch that tells its cost in its result."""
    return make_receipt(
        ENTRY, run=INFO.run, attempt=number, result={"cost": 0.25, **told}, evidence={"cost": 0.25}
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as opened:
        yield opened


def run_of(tmp_path: Path, ledger: Ledger | None, told: Receipt, budget: float = 1) -> ManifestRun:
    """A run that ended by this receipt."""
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), [ENTRY])
    verdict = Verdict(verdict="passed", entry=ENTRY.id, attempt=told.attempt, sentence="So.")
    path = None if ledger is None else tmp_path / "run.sqlite"
    settled = [EntryVerdict(1, verdict, told)]
    return ManifestRun(manifest, settled, 1, True, INFO.run, budget, path)


def add(ledger: Ledger, told: Receipt) -> None:
    task_id = attempt_of(INFO.run, ENTRY, told.attempt).task_id
    ledger.attempts.plan([(task_id, ENTRY.id, told.attempt, 0)])
    ledger.attempts.mark([task_id], "sent")
    name = f"x{told.attempt}"
    add_starts(ledger, [started(task_id, name, None, 0, "w", "h", 1, redelivered=False)])
    told = told.model_copy(update={"task_id": task_id})
    add_receipts(ledger, [(task_id, name, told)])


def test_calls_of_unknown_bills_are_told_of_all_attempts(tmp_path: Path, ledger: Ledger) -> None:
    """Also where the last attempt knows of none."""
    add(ledger, receipt({"unknown_bills": 2}, 1))
    add(ledger, receipt({}, 2))
    (told,) = incomplete_costs(ledger)
    assert told.startswith("2 calls may have been billed beyond the cost that is told")
    recorded: dict[str, object] = {}
    told_cost(run_of(tmp_path, ledger, receipt({}, 2)), recorded.__setitem__)
    assert recorded == {"cost": f"0.5 USD at least; {told}"}


def test_a_cost_that_is_whole_is_told_as_such(tmp_path: Path, ledger: Ledger) -> None:
    add(ledger, receipt({}))
    assert incomplete_costs(ledger) == []
    recorded: dict[str, object] = {}
    assert told_cost(run_of(tmp_path, ledger, receipt({})), recorded.__setitem__) == 0.25
    assert recorded == {"cost": "0.25 USD"}


def test_a_run_made_by_hand_tells_of_its_receipts(tmp_path: Path) -> None:
    recorded: dict[str, object] = {}
    told_cost(run_of(tmp_path, None, receipt({"unknown_bills": 1})), recorded.__setitem__)
    assert str(recorded["cost"]).startswith("0.25 USD at least; 1 call may")


def test_a_judge_whose_price_is_not_known_fails_the_test_of_its_cost(tmp_path: Path) -> None:
    """By a model that answered for it; where the judge's own is not known nothing can be said."""
    unpriced: dict[str, JsonValue] = {"unpriced": {"in": 1000, "out": 20}}
    with pytest.raises(pytest.fail.Exception, match="1,000 tokens in and 20 out were billed"):
        told_cost(run_of(tmp_path, None, receipt(unpriced)), lambda *_: None)
    with pytest.raises(pytest.skip.Exception, match="no price is known"):
        told_cost(run_of(tmp_path, None, receipt({"cost": None})), lambda *_: None)
    with pytest.raises(AssertionError, match=r"it has cost 0\.25, and the budget was 0\.2"):
        told_cost(run_of(tmp_path, None, receipt({}), budget=0.2), lambda *_: None)


def test_what_failed_tells_its_cost_as_evidence() -> None:
    """And what is no report of a batch is passed over."""
    failed = make_receipt(ENTRY, state="failed", evidence={"judge": {"cost": 0.5}, "cost": 0.5})
    results: list[JsonValue] = [{"cost": "much"}, [1], None, "cost"]
    odd = [make_receipt(ENTRY, result=told) for told in results]
    assert [one.cost for one in paid_reports([failed, *odd])] == [0.5]
