"""Receipts that the ledger has of jobs without a verdict: they are not read from the stack again.

A session that follows some entries reads the whole run's stream, and keeps what it hears of the
others; so does one that is killed between keeping a receipt and judging by it.
"""

from __future__ import annotations

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.judging import AttemptEvaluator
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.verdict import is_hearsay


def evaluate_kept_receipts(
    ledger: Ledger, pending: PendingAttempts, evaluator: AttemptEvaluator
) -> None:
    """Settle what is in flight and has a receipt already, by all that was said of it."""
    with ledger.transaction():
        for job in list(pending.by_task_id.values()):
            kept = [one for _, one in ledger.receipts(job.task_id) if not is_hearsay(one)]
            if kept:
                pending.complete(job.task_id)
                ledger.record_verdicts([evaluator.evaluate(job, kept[0])])
