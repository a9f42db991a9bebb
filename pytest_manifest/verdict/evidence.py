"""Weigh receipts: whether one is of this very attempt, and whether its job may have run.

Whether a job may have run is told by the traces that a run leaves, never by its final state: a task
may do its work and then reject its message, and a revoked job may be running. Resending and costs
depend on this.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pytest_manifest.redaction import redacted
from pytest_manifest.schema import Entry, Receipt, wire
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES, OF_ITS_PROCESS
from pytest_manifest.text import short
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.expectations import result_left_out
from pytest_manifest.verdict.reasons import Problem


def is_revocation_notice(receipt: Receipt) -> bool:
    """Return whether a receipt says only that some worker was told of the job's revocation.

    In Celery 5.7 every worker that is told stores it at once, even while the message is queued. A
    worker that dies forgets the revocation, and the worker that gets the message then runs it.
    """
    return receipt.state == "revoked" and receipt.source == "backend"


def denies(receipt: Receipt, *, witnessed: bool) -> bool:
    """Return whether a receipt shows that its job ended before its task's code was entered.

    ``witnessed``: every worker that may have had the job reports starts, and all reports were kept,
    so that a job without a known start never started.
    """
    if receipt.state not in NEVER_STARTED_STATES or receipt.has_trace:
        return False
    # A stock worker does not report what it, or one before it, did before the end.
    return witnessed or (receipt.source == "worker" and not receipt.redelivered)


CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""By how much the clocks of two hosts may differ."""


def contradiction(
    entry: Entry,
    receipt: Receipt,
    *,
    run: str,
    task_id: str,
    attempt: int,
    sent_at: datetime | None,
    set_back: timedelta = timedelta(),
) -> Problem | None:
    """Return a receipt's first contradiction, None where there is none.

    The receipt is compared with attempt ``attempt`` of ``entry`` in ``run``, whose message was
    created at ``sent_at`` (UTC; None: unknown) under ``task_id``; ``set_back`` says by how much the
    clock of that may have been set back since. Missing fields contradict
    nothing: receipts of older workers, and those built from a stock result, lack digests or times.
    Other code than ours is no forgery; ``evaluate`` checks that.
    """
    return (
        _another_sending(entry, receipt, run, task_id, attempt)
        or _another_job(entry, receipt)
        or _another_result(receipt)
        or _another_time(receipt, sent_at, set_back)
    )


def _another_sending(
    entry: Entry, receipt: Receipt, run: str, task_id: str, attempt: int
) -> Problem | None:
    fields = (
        ("run", receipt.run, run),
        ("entry", receipt.entry, entry.id),
        ("attempt", receipt.attempt, attempt),
        ("task id", receipt.task_id, task_id),
    )
    for name, found, true in fields:
        if found != true:
            return problems.OfAnother(of_what=name, found=short(found), true=short(true))
    return None


def _another_job(entry: Entry, receipt: Receipt) -> Problem | None:
    if receipt.replaced:  # Celery lets another task replace this one
        return None
    if receipt.task != entry.task:
        found, true = short(receipt.task), short(entry.task)
        return problems.OfAnother(of_what="task", found=found, true=true)
    if receipt.retries or receipt.args_sha256 is None:  # a retry may be with other arguments
        return None
    digest = wire.arguments_sha256(entry.args, entry.kwargs)
    is_other = digest is not None and digest != receipt.args_sha256
    return problems.OtherArguments() if is_other else None


def _another_result(receipt: Receipt) -> Problem | None:
    if receipt.result_sha256 is None or result_left_out(receipt):
        return None
    if wire.json_sha256(receipt.result) in (None, receipt.result_sha256):
        return None
    return problems.ChangedResult(result=short(redacted(receipt.result)))


def _another_time(
    receipt: Receipt, sent_at: datetime | None, set_back: timedelta
) -> Problem | None:
    if sent_at is not None and receipt.sent_at is not None and receipt.sent_at != sent_at:
        return problems.OfAnotherMessage(found=_time(receipt.sent_at), true=_time(sent_at))
    sent = sent_at or receipt.sent_at
    times = ("started", receipt.started_at), ("finished", receipt.finished_at)
    for did, moment in times:
        if sent is None or moment is None:
            continue
        if sent - moment > CLOCK_TOLERANCE + set_back:
            at, host = _time(moment), receipt.host or ""
            return problems.BeforeSending(did=did, moment=at, sent=_time(sent), host=host)
    return None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC"


def missing_fields(
    entry: Entry, receipt: Receipt, *, sent: bool, code: str | None
) -> Sequence[str]:
    """Name what our worker always reports of a task that it ran, and this receipt lacks.

    ``sent``: whether it is known when the attempt was sent; ``code``: the digest of the task's code
    on this side. A field that is absent cannot be found wrong; so without it nothing has passed.
    """
    if receipt.source != "worker" or receipt.state not in OF_ITS_PROCESS:
        return ()
    left_out = [name for name in _ALWAYS if getattr(receipt, name) is None]
    if entry.expect.max_wait is not None and receipt.wait is None:
        left_out.append("wait")
    if not receipt.executions:
        left_out.append("executions")
    if sent and receipt.sent_at is None:
        left_out.append("sent_at")
    if receipt.args_sha256 is None and _args_survive_json(entry):
        left_out.append("args_sha256")
    if code is not None and receipt.code is None and not receipt.replaced:
        left_out.append("code")
    if receipt.result_sha256 is None and _has_digest(receipt):
        left_out.append("result_sha256")
    return left_out


def _args_survive_json(entry: Entry) -> bool:
    """Return whether a worker gets the arguments as JSON that it can digest.

    kombu turns objects with this key into dates and the like.
    """
    data = wire.canonical([entry.args, entry.kwargs])
    return data is not None and b'"__type__"' not in data


_ALWAYS: Final = ("started_at", "finished_at", "runtime")


def _has_digest(receipt: Receipt) -> bool:
    return receipt.state == "succeeded" and "result_not_json" not in receipt.evidence
