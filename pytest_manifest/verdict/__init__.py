"""Receipts held against expectations: the verdict, and its explanation for people."""

from pytest_manifest.verdict.authenticity import contradiction
from pytest_manifest.verdict.brief import in_brief, reason_of
from pytest_manifest.verdict.containment import differences
from pytest_manifest.verdict.costs import NOT_RUN, Costs, cost_of_settled
from pytest_manifest.verdict.explaining import AttemptLine, explain
from pytest_manifest.verdict.judging import Outcome, judge, outcome
from pytest_manifest.verdict.text import plain, plural, short

__all__ = [
    "NOT_RUN",
    "AttemptLine",
    "Costs",
    "Outcome",
    "contradiction",
    "cost_of_settled",
    "differences",
    "explain",
    "in_brief",
    "judge",
    "outcome",
    "plain",
    "plural",
    "reason_of",
    "short",
]
