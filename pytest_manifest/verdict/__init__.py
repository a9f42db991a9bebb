"""Compare receipts with expectations: the verdict, and its explanation for people."""

from pytest_manifest.verdict.costs import Costs, cost_of_verdict
from pytest_manifest.verdict.evidence import (
    NEVER_STARTED_STATES,
    contradiction,
    is_revocation_notice,
    may_have_run,
)
from pytest_manifest.verdict.expectations import Outcome, differences, evaluate, outcome
from pytest_manifest.verdict.explanation import (
    AttemptLine,
    TreeText,
    brief,
    explain,
    next_step,
    reason_of,
)

__all__ = [
    "NEVER_STARTED_STATES",
    "AttemptLine",
    "Costs",
    "Outcome",
    "TreeText",
    "brief",
    "contradiction",
    "cost_of_verdict",
    "differences",
    "evaluate",
    "explain",
    "is_revocation_notice",
    "may_have_run",
    "next_step",
    "outcome",
    "reason_of",
]
