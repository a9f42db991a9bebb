"""Run the batch of a judge: grade rows of the movie bible.

Heavy imports (SQLAlchemy, the model's SDK) are loaded by the first batch, not by the worker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import JsonValue

from pytest_manifest.worker import evidence
from tasks import app, task

if TYPE_CHECKING:
    from tasks.judging.batch import JudgeBatch
    from tasks.judging.order import JudgeOrder

RESERVE_SECONDS = 5.0
"""Seconds of the job's time limit that are kept for its report."""


@task
def grade_rows_task(rows: dict[str, str], data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Grade the rows of some passages as ``data`` (a ``JudgeOrder``) says.

    ``rows`` has the digest of each row's values when it was planned, by passage id. Rows that get
    no grade are named in ``ungraded``. Nothing is written. Whatever is raised, what was graded and
    paid until then is in the receipt's evidence as ``judge``. Raises BadOrderError,
    JudgeUnfitError, a ModelFailure that no call can overcome, and errors of the database and the
    configuration.
    """
    began = time.monotonic()
    try:
        from tasks.judging.equipment import equip_judge
        from tasks.judging.order import read_judge_order

        checked, order = read_judge_order(rows, data)
        batch = equip_judge(order)
    except Exception:
        evidence(cost=0.0)  # nothing was asked
        raise
    return _grade(batch, checked, order, began)


def _grade(
    batch: JudgeBatch, rows: dict[str, str], order: JudgeOrder, began: float
) -> dict[str, JsonValue]:
    from tasks.filling.report import usd
    from tasks.judging.batch import refuse_unfit
    from tasks.judging.grades import Grading

    known = Grading()

    def progress(found: Grading) -> None:
        nonlocal known
        known = found
        if batch.judge.has_price:  # else a cost of 0 would be false
            evidence(cost=usd(found.spent.cost_nanos))

    left = _seconds() - (time.monotonic() - began)
    try:
        found = batch.run(rows, order, seconds=left, progress=progress)
    except BaseException:
        evidence(judge=batch.document(known))
        raise
    document = batch.document(found)
    if order.control is not None:
        evidence(judge=document)  # also of a judge that is refused here
    refuse_unfit(found, order)
    return document


def _seconds() -> float:
    """Return the seconds that a batch may take."""
    request = getattr(app.current_worker_task, "request", None)
    hard, _ = getattr(request, "timelimit", None) or (None, None)
    if not hard:
        return float("inf")
    return float(hard) - min(RESERVE_SECONDS, float(hard) / 4)
