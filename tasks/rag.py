"""Run the batch of a language model: fill the gaps of some passages of the movie bible.

Either by calls (``process_batch_task``), or at the tier batch by jobs of the service: one task has
a job created, and another one, which comes after it, looks for what has come of it.

Heavy imports (SQLAlchemy, the model's SDK) are loaded by the first batch, not by the worker.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import Retry
from pydantic import JsonValue

from pytest_manifest.worker import current_job, evidence
from tasks import app, task
from tasks.filling.order import BadOrderError, RemoveOrphans, read_order
from tasks.text_model.base import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_manifest.worker import Job
    from tasks.filling.batch import Batch
    from tasks.filling.equipment import Equipment, JobEquipment
    from tasks.filling.job_purchase import Purchase
    from tasks.filling.order import Order
    from tasks.filling.report import Report
    from tasks.filling.writing import Provenance


LOOKS: Final = 10_000_000
"""How often a job may be looked at: None would be Celery's own default of three."""


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


@task
def submit_batch_task(ids: list[str], data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Have a batch job of the service created that fills what the passages ``ids`` lack.

    Running it again creates none: a job is recorded before it is created, and found at the service
    by its display name (RUN/ENTRY/ATTEMPT/NUMBER). The evidence ``batch_jobs`` names it before it
    is created. Raises BadOrderError, CapReachedError, and a ModelFailure where no job is taken.
    """
    evidence(cost=0.0)  # what a job costs is told by the task that reads its answers
    checked, order, job, equipment = _for_jobs(ids, data)
    from tasks.filling.carried import add_documents

    bible = equipment.all_else.bible
    purchase = equipment.purchase(job.entry, _provenance(job), _tell_jobs)
    changed = add_documents(bible, order, order.prompt)
    wanted = [one for one in checked if one not in changed]
    _until_done(lambda: purchase.submit(wanted, order))
    return {
        "jobs": purchase.documents(),
        "model": order.model.name,
        "prompt": order.prompt,
        "database": bible.identity,
        "cost": 0.0,
    }


@task
def collect_batch_task(
    ids: list[str], data: dict[str, JsonValue], submitted_by: str
) -> dict[str, JsonValue]:
    """Write the rows that the batch jobs of the entry ``submitted_by`` have brought.

    A job that has not ended is looked at later: the task asks Celery to be run again after
    GAP_FILL_POLL seconds, and holds no worker until then. What comes under a wrong key, twice or
    not at all is asked for again, by a job for that alone. The result is that of
    ``process_batch_task``, and ``batch_jobs``. Raises what ``submit_batch_task`` does.
    """
    try:
        checked, order, job, equipment = _for_jobs(ids, data)
    except Exception:
        evidence(cost=0.0)
        raise
    from tasks.filling.carried import add_documents

    if equipment.all_else.asker.price is not None:
        evidence(cost=0.0)  # told at the end, for all attempts that have not told
    purchase = equipment.purchase(submitted_by, _provenance(job), _tell_jobs)
    changed = add_documents(equipment.all_else.bible, order, order.prompt)
    wanted = [one for one in checked if one not in changed]
    try:
        _until_done(lambda: purchase.collect(wanted, order))
    except Retry:
        raise
    except Exception:
        evidence(gap_fill=_collected(equipment, purchase, checked, order, changed))
        raise
    return _collected(equipment, purchase, checked, order, changed)


def _collected(
    equipment: JobEquipment, purchase: Purchase, ids: list[str], order: Order, changed: set[str]
) -> dict[str, JsonValue]:
    """Report what this attempt, and others that were killed, have collected; it is told once."""
    from tasks.filling.job_outcome import report_of
    from tasks.filling.report import usd

    untold = purchase.untold()
    whole = equipment.all_else
    report = report_of(whole.bible, purchase, untold, ids, order, changed)
    if whole.asker.price is not None:
        evidence(cost=usd(report.spent.cost_nanos))
    document = {**whole.document(report), "batch_jobs": purchase.documents()}
    purchase.tell(untold)
    return document


def _for_jobs(
    ids: list[str], data: dict[str, JsonValue]
) -> tuple[list[str], Order, Job, JobEquipment]:
    """Check what a task was given, and open what batch jobs need."""
    from tasks.filling.equipment import equip_jobs

    checked, order = read_order(ids, data)
    if isinstance(order, RemoveOrphans) or order.model.tier != BATCH:
        raise BadOrderError("the order is none of the tier batch; nothing was done")
    job = current_job()
    if job is None:
        raise BadOrderError(
            "batch jobs are those of a run's entry, and this task runs for none; nothing was done"
        )
    return checked, order, job, equip_jobs(order)


def _provenance(job: Job) -> Provenance:
    from tasks.filling.writing import Provenance

    return Provenance(job.run, job.entry, job.attempt)


def _tell_jobs(jobs: list[JsonValue]) -> None:
    evidence(batch_jobs=jobs)


def _until_done(step: Callable[[], float | None]) -> None:
    """Take steps until all is done; raise Retry where one is to be waited for."""
    while (wait := step()) is not None:
        if wait > 0:
            raise app.current_task.retry(countdown=wait, max_retries=LOOKS)


def _equipment(order: Order) -> Equipment:
    from tasks.filling.equipment import equip

    if order.model.tier == BATCH:
        raise BadOrderError("an order of the tier batch is for submit_batch_task; nothing was done")
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
        if not batch.may_have_cost:
            evidence(cost=0.0)  # else its estimate would count
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
