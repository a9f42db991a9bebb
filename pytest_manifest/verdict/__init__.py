"""Compare receipts with expectations: the verdict, and its explanation for people."""

from pytest_manifest.schema.statuses import outcome
from pytest_manifest.verdict.expectations import differences
from pytest_manifest.verdict.explanation import (
    AttemptLine,
    TreeText,
    best_known,
    brief,
    explain,
    next_step,
)
from pytest_manifest.verdict.judging import Costs, cost_of_verdict

__all__ = [
    "AttemptLine",
    "Costs",
    "TreeText",
    "best_known",
    "brief",
    "cost_of_verdict",
    "differences",
    "explain",
    "next_step",
    "outcome",
]
