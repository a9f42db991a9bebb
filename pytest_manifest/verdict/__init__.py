"""Receipts held against expectations: the verdict, and its explanation for people."""

from pytest_manifest.verdict.authenticity import contradiction
from pytest_manifest.verdict.containment import differences
from pytest_manifest.verdict.explaining import AttemptLine, explain
from pytest_manifest.verdict.judging import Outcome, judge, outcome
from pytest_manifest.verdict.text import plain, plural, short

__all__ = [
    "AttemptLine",
    "Outcome",
    "contradiction",
    "differences",
    "explain",
    "judge",
    "outcome",
    "plain",
    "plural",
    "short",
]
