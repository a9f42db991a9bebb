"""Receipts held against expectations: the verdict, and its explanation for people."""

from pytest_manifest.verdict.authenticity import contradiction
from pytest_manifest.verdict.brief import in_brief, reason_of
from pytest_manifest.verdict.containment import differences
from pytest_manifest.verdict.costs import Costs, cost_of_settled
from pytest_manifest.verdict.evidence import DENIALS, is_hearsay, may_have_run
from pytest_manifest.verdict.explaining import AttemptLine, explain
from pytest_manifest.verdict.judging import Outcome, judge, outcome
from pytest_manifest.verdict.text import plain, plural, short

__all__ = [
    "DENIALS",
    "AttemptLine",
    "Costs",
    "Outcome",
    "contradiction",
    "cost_of_settled",
    "differences",
    "explain",
    "in_brief",
    "is_hearsay",
    "judge",
    "may_have_run",
    "outcome",
    "plain",
    "plural",
    "reason_of",
    "short",
]
