"""Decide whether a job may have run: by the traces that a run leaves, never by its final state.

A task may do its work and then reject its message, and a revoked job may be running: Celery's name
for the end says nothing of what came before it. Resending and costs depend on this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_manifest.schema import Receipt

NEVER_STARTED_STATES: Final = frozenset({"revoked", "expired", "rejected", "unknown_task"})
"""Final states that a job can reach without having been started."""


def is_hearsay(receipt: Receipt) -> bool:
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
    if receipt.state not in NEVER_STARTED_STATES or _has_trace(receipt):
        return False
    # A stock worker does not report what it, or one before it, did before the end.
    return witnessed or (receipt.source == "worker" and not receipt.redelivered)


def may_have_run(
    *, sent: bool, begun: bool, receipts: Iterable[Receipt] = (), witnessed: bool
) -> bool:
    """Return whether the code of an attempt's task may have been entered.

    ``sent``: the broker may have had it; ``begun``: a worker reported its start; ``receipts``: all
    of the attempt; ``witnessed`` as in :func:`denies`.
    """
    if not sent or begun:
        return sent
    told = [receipt for receipt in receipts if not is_hearsay(receipt)]
    if not told:
        return not witnessed
    return not all(denies(receipt, witnessed=witnessed) for receipt in told)


def _has_trace(receipt: Receipt) -> bool:
    ran = (receipt.started_at, receipt.runtime, receipt.pid, receipt.cpu)
    earlier = receipt.retries or receipt.retried or receipt.replaced
    return bool(earlier) or any(one is not None for one in ran)
