"""Of a job whose process died it is said what is known: not how long it ran."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from billiard.exceptions import WorkerLostError
from celery.app.task import Context

from pytest_manifest.analysis.statistics import _Fold, advice, distribution
from pytest_manifest.reporting.allure.result import times
from pytest_manifest.reporting.allure.steps import steps_of
from pytest_manifest.schema import Entry, Receipt, wire
from pytest_manifest.verdict.explanation import explain
from pytest_manifest.worker.receipt import failed_in_main_process, prepare_receipt, remember_request
from tests.unit.analysis_support import START, after, attempt
from tests.verdicts import evaluate


def test_the_main_process_does_not_take_its_own_notice_for_the_end() -> None:
    """It has the child's start, and its own clock when it noticed."""
    headers = {"id": "t", "task": "t", wire.HEADER_RUN: "r", wire.HEADER_ENTRY: "e"}
    request = Context({**headers, wire.HEADER_ATTEMPT: 1, wire.HEADER_EXECUTION: "x"})
    taken = Taken(time.time() - 5)
    remember_request("x", taken)
    made = prepare_receipt(request, lambda: failed_in_main_process(WorkerLostError("gone")))
    assert made is not None
    assert made.receipt["state"] == "crashed"
    assert made.receipt["runtime"] is None
    assert made.receipt["started_at"] is not None


class Taken:
    """What Celery keeps of a request, and can be forgotten."""

    def __init__(self, time_start: float) -> None:
        self.time_start, self.worker_pid = time_start, 7


def test_reports_show_no_time_that_nobody_has_seen() -> None:
    """In Allure's timeline a bar would be the time until somebody noticed."""
    dead = attempt(kind="crashed", runtime=None, started_at=START, finished_at=after(4.2))
    subject = SimpleNamespace(live=False)
    shown = times(dead, subject)  # type: ignore[arg-type]  # not asked for what is known
    assert shown["start"] == shown["stop"]
    assert "found dead: crashed" in str(steps_of([dead], START, {}))
    entry = Entry(id="e", task="t")
    receipt = Receipt(
        run="r",
        entry="e",
        attempt=1,
        task_id="t",
        task="t",
        state="crashed",
        started_at=START,
        finished_at=START + timedelta(seconds=4.2),
    )
    text = explain(entry, receipt, evaluate(entry, receipt, attempt=1))
    assert "began 15:00:00.000000, was found dead 15:00:04.200000 UTC" in text
    assert "ran 4" not in text


@pytest.mark.parametrize(
    ("deaths", "busy", "says"),
    [
        (3, 1.0, "the processes of 3 jobs had died, and a worker stands still"),
        (0, 1.0, "look in their logs for what they stood still for"),
        (0, 0.01, "handing a job over takes longer than running it"),
    ],
)
def test_advice_comes_of_causes_that_were_seen(deaths: int, busy: float, says: str) -> None:
    """Idle workers are no proof of a dear handing over."""
    capacity = 20.0 if busy == 1.0 else 1.0
    fold = _Fold(())
    fold.entries, fold.deaths = 20, deaths
    fold.free_wait.extend([5.0] * 20)
    fold.run.add([(0, START, after(capacity))])
    fold.seen.add((("celery@w", None, 1), 0))
    assert says in advice(fold, [busy], distribution([busy / 20] * 20))[0]
