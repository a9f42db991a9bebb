"""Whether a job may have run: by the traces that a run leaves, never by the name of its end.

A task may do its work and then reject its message, and a job that is revoked may be running: how
Celery calls the end says nothing of what came before it. Whoever sends a job again, or tells what
one has cost, asks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_manifest.schema import Receipt

DENIALS: Final = frozenset({"revoked", "expired", "rejected", "unknown_task"})
"""Ends that a job can come to without having been begun."""


def is_hearsay(receipt: Receipt) -> bool:
    """Whether it says no more than that some worker has heard of the job's revocation.

    Celery 5.7 has every worker that hears of one store it at once, also while the message waits in
    a queue; a worker that dies forgets it, and whoever takes the message then runs it.
    """
    return receipt.state == "revoked" and receipt.source == "backend"


def denies(receipt: Receipt, *, witnessed: bool) -> bool:
    """Whether a receipt shows that its job was turned away before its task's code was entered.

    ``witnessed``: every worker that may have had the job says when it begins one, and all of that
    was kept, so that where no start is known there was none.
    """
    if receipt.state not in DENIALS or _has_trace(receipt):
        return False
    # A worker that is not ours does not say what it, or one before it, did before the end.
    return witnessed or (receipt.source == "worker" and not receipt.redelivered)


def may_have_run(
    *, sent: bool, begun: bool, receipts: Iterable[Receipt] = (), witnessed: bool
) -> bool:
    """Whether the code of an attempt's task may have been entered.

    ``sent``: the broker may have had it; ``begun``: a worker said that it began it; ``receipts``:
    all that is known of its end; ``witnessed`` as in :func:`denies`.
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
