"""What the start records of an attempt add to its receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_manifest.ledger import Start
from pytest_manifest.schema import Receipt


def complete_receipt(receipt: Receipt, starts: Sequence[Start]) -> Receipt:
    """Add what the start records know: the executions, and what a killed process could not say.

    Executions are counted per turn: neither Celery's own retry of a task, nor another task that a
    task handed its job on to, is a second execution.
    ``starts`` are of the receipt's attempt, oldest first.
    """
    if not starts:
        return receipt
    last = starts[-1]
    started_at = receipt.started_at or last.started_at
    wait = receipt.wait
    if wait is None and started_at is not None and receipt.sent_at is not None:
        wait = max(0.0, (started_at - receipt.sent_at).total_seconds())
    more = {
        "executions": _executions(starts),
        "redelivered": receipt.redelivered or any(start.redelivered for start in starts),
        "started_at": started_at,
        "wait": wait,
        "worker": receipt.worker or last.worker,
        "host": receipt.host or last.host,
        "pid": receipt.pid or last.pid,
    }
    if all(getattr(receipt, name) == value for name, value in more.items()):
        return receipt
    return receipt.model_copy(update=more)


def _executions(starts: Sequence[Start]) -> int:
    if len(starts) == 1:
        return 1
    return max(Counter(map(turn_of, starts)).values())


def turn_of(start: Start) -> tuple[int, int]:
    """Which of its turns a job was in: how often it had been handed on, and retried since."""
    return start.hop, start.retries
