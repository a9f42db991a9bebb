"""Run the batch of a language model: fill the gaps of some passages of the movie bible.

Heavy imports (SQLAlchemy, the model's SDK) are loaded by the first batch, not by the worker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from billiard.exceptions import SoftTimeLimitExceeded
from pydantic import JsonValue

from pytest_manifest.worker import current_job, evidence
from tasks import app, task
from tasks.filling.order import RemoveOrphans, read_order

if TYPE_CHECKING:
    from tasks.filling.batch import Batch
    from tasks.filling.equipment import Equipment
    from tasks.filling.order import Order
    from tasks.filling.report import Report


@task
def process_batch_task(ids: list[str], data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Fill what the passages ``ids`` lack, as ``data`` (an ``Order``) says, and tell it row by row.

    Running it again fills only what is left. Passages that cannot be filled are named in
    ``unfilled``; whatever is raised, what was answered until then is committed, and is in the
    receipt's evidence as ``gap_fill``. How many calls were allowed at a time, and how many refused,
    is there in any case, as ``over_time``. Raises BadOrderError, BatchStoppedError, a ModelFailure
    that no call can overcome, and errors of the database and the configuration.
    """
    began = time.monotonic()
    try:
        checked, order = read_order(ids, data)
        if isinstance(order, RemoveOrphans):
            return _remove_orphans(checked)
        equipment = _equipment(order)
    except Exception:
        evidence(cost=0.0)  # nothing was asked
        raise
    return _fill(checked, order, equipment, began)


def _equipment(order: Order) -> Equipment:
    from tasks.filling.equipment import equip

    return equip(order)


def _fill(ids: list[str], order: Order, equipment: Equipment, began: float) -> dict[str, JsonValue]:
    from tasks.filling.writing import Provenance

    job = current_job()
    whose = Provenance() if job is None else Provenance(job.run, job.entry, job.attempt)
    batch = equipment.batch(whose, _tell if equipment.asker.price is not None else _tell_nothing)
    try:
        # A first batch has spent a second or two of its time limit on loading its equipment.
        left = equipment.seconds(_time_limit()) - (time.monotonic() - began)
        _run(batch, ids, order, left)
    except BaseException:
        evidence(gap_fill=equipment.document(batch.report))
        raise
    finally:
        if shown := batch.report.over_time():
            evidence(over_time=shown)
    return equipment.document(batch.report)


def _run(batch: Batch, ids: list[str], order: Order, seconds: float) -> None:
    from tasks.filling.batch import BatchStoppedError

    try:
        batch.run(ids, order, seconds=seconds)
    except SoftTimeLimitExceeded:
        if batch.salvage():
            return
        raise BatchStoppedError(_stopped(batch, ids, "its soft time limit")) from None
    except BatchStoppedError:
        raise BatchStoppedError(_stopped(batch, ids, "its time")) from None


def _stopped(batch: Batch, ids: list[str], why: str) -> str:
    there = len(batch.report.rows) + len(batch.report.already)
    return (
        f"{why} was over: {there} of {len(ids)} passages are filled and committed; "
        "--manifest-resume sends the entry again, which fills the rest"
    )


def _tell(report: Report) -> None:
    """Report the cost so far as evidence, which survives if the process is killed right after."""
    from tasks.filling.report import usd

    evidence(cost=usd(report.spent.cost_nanos))


def _tell_nothing(_: Report) -> None:
    """Report nothing: without a known price, a cost of 0 would be false."""


def _time_limit() -> float | None:
    """Return the seconds after which the worker kills this job, or None."""
    request = getattr(app.current_worker_task, "request", None)
    hard, _ = getattr(request, "timelimit", None) or (None, None)
    return float(hard) if hard else None


def _remove_orphans(ids: list[str]) -> dict[str, JsonValue]:
    from tasks.movie_bible.per_process import movie_bible

    bible = movie_bible()
    living = bible.passages(ids)
    removed = bible.remove_annotations([one for one in ids if one not in living])
    return {
        "removed": removed,
        "living": [*sorted(living)],
        "database": bible.identity,
        "cost": 0.0,
    }
