"""Evidence of a job that an earlier run has sent, and of one whose clock was set back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger, ReusedFrom
from pytest_manifest.run.evidence import EvidenceEvaluator
from pytest_manifest.run.task_metadata import CODE_HISTORY
from tests.unit.ledger_support import INFO, MOMENT
from tests.unit.test_run_evidence import BEGAN, ENDED, TASK_ID, entry, judged, receipt, status

EARLIER = "20261123T150000-0badcafe"
OLD, NEW = "py3.11:" + "a" * 64, "py3.11:" + "b" * 64
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose task had other code until an hour after the sending."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        steps = [(MOMENT - HOUR, OLD), (MOMENT + HOUR, NEW)]
        history = [[since.isoformat(), {"jobs.t": code}] for since, code in steps]
        made.info.set_meta(CODE_HISTORY, json.dumps(history))
        yield made


def reusing(
    ledger: Ledger, *, by: str = INFO.run, at: datetime = MOMENT + 2 * HOUR
) -> EvidenceEvaluator:
    """Evaluate for the entry ``b`` what the earlier run's entry ``a`` has come to."""
    made = EvidenceEvaluator(INFO.run, ledger)
    made.imported = {TASK_ID: ReusedFrom(EARLIER, "a", 1, by, at)}
    return made


def reused(ledger: Ledger, made: EvidenceEvaluator, **told: object) -> str:
    end = "x", receipt(run=EARLIER, **told)
    return status(ledger, end, made=made, by=entry(id="b"), number=0)


def test_it_is_held_against_the_code_that_would_have_run_when_it_was_reused(
    ledger: Ledger,
) -> None:
    """Of the run that has reused it, and not when it was sent."""
    assert reused(ledger, reusing(ledger), code=NEW) == "passed"
    assert reused(ledger, reusing(ledger), code=OLD) == "failed"
    assert reused(ledger, reusing(ledger, at=MOMENT), code=OLD) == "passed"
    assert status(ledger, ("x", receipt(code=OLD))) == "passed"


def test_where_that_code_is_not_known_it_is_held_against_none(ledger: Ledger) -> None:
    """As of a run whose record this is not."""
    assert reused(ledger, reusing(ledger, by="20261124T150000-0badcaff"), code=OLD) == "passed"


def test_its_receipt_is_of_the_message_that_the_earlier_run_has_sent(ledger: Ledger) -> None:
    """As that of any other job."""
    assert reused(ledger, reusing(ledger), code=NEW, sent_at=MOMENT - HOUR) == "forged"


REUSED = {"run": INFO.run, "entry": "a", "at": MOMENT}
JUDGED = {"verdict": "failed"}


@pytest.mark.parametrize(
    "claims", [{"reused": REUSED}, {"judged": JUDGED}, {"reused": REUSED, "judged": JUDGED}]
)
def test_no_worker_says_that_its_job_was_reused_or_how_it_is_judged(
    ledger: Ledger, claims: Mapping[str, object]
) -> None:
    """That is for the run to say."""
    verdict, found = judged(ledger, ("x", receipt(code=OLD, **claims)))
    assert verdict.verdict == "passed"
    assert found == receipt(code=OLD)


def test_what_ends_after_the_clock_was_set_back_is_believed(ledger: Ledger) -> None:
    """As far as it was set back while the job was out."""
    ledger.attempts.plan([(TASK_ID, "a", 1, 0)])
    ledger.attempts.mark([TASK_ID], "sent", sent_at=MOMENT)
    ends = {"started_at": BEGAN - HOUR, "finished_at": ENDED - HOUR}
    told = "x", receipt(code=OLD, **ends)
    assert status(ledger, told) == "forged"
    ledger.excuses.note_set_back(3000.0, 3600.0)
    assert status(ledger, told) == "forged"
    ledger.excuses.note_set_back(3000.0, 3600.0)
    assert status(ledger, told) == "passed"
