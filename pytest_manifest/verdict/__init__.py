"""Compare receipts with expectations: the verdict, and its explanation for people."""

from pytest_manifest.schema.statuses import outcome
from pytest_manifest.verdict.costs import Costs, cost_of_verdict
from pytest_manifest.verdict.evidence import (
    contradiction,
    is_revocation_notice,
)
from pytest_manifest.verdict.expectations import differences, evaluate
from pytest_manifest.verdict.explanation import (
    AttemptLine,
    TreeText,
    best_known,
    brief,
    explain,
    next_step,
)

__all__ = [
    "AttemptLine",
    "Costs",
    "TreeText",
    "best_known",
    "brief",
    "contradiction",
    "cost_of_verdict",
    "differences",
    "evaluate",
    "explain",
    "is_revocation_notice",
    "next_step",
    "outcome",
]
