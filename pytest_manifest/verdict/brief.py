"""A verdict in a few words: what was found where what was expected, or the error of the job."""

from __future__ import annotations

from typing import Final

from pytest_manifest.schema import ErrorInfo, Mismatch, Receipt, Verdict
from pytest_manifest.verdict.evidence import DENIALS
from pytest_manifest.verdict.sentences import SCHEMA_PATH
from pytest_manifest.verdict.text import middle, plain

_LIMIT: Final = 300
_BY_SENTENCE: Final = DENIALS | {"forged", "quarantined", "lost"}
"""Verdicts that are not about what a job has raised."""


def in_brief(verdict: Verdict, receipt: Receipt | None) -> str:
    """One line of plain text for a list of what went wrong."""
    reason = reason_of(verdict, receipt)
    if isinstance(reason, Mismatch):
        return _one_line(f"{reason.path} is {reason.actual} where {reason.expected} was expected")
    if reason is not None and verdict.verdict == "failed":
        return _one_line(f"{reason.type}: {reason.message}" if reason.message else reason.type)
    return _one_line(verdict.sentence)


def reason_of(verdict: Verdict, receipt: Receipt | None) -> Mismatch | ErrorInfo | None:
    """What tells best why an entry went wrong; None where the verdict's sentence does."""
    error = None
    if receipt is not None and verdict.verdict not in _BY_SENTENCE:
        error = receipt.error
    mismatch = verdict.mismatches[0] if verdict.mismatches else None
    if mismatch is None or mismatch.path in ("code", SCHEMA_PATH):
        return error
    if mismatch.path == "state" and (verdict.verdict != "failed" or error is not None):
        return error
    return mismatch


def _one_line(text: str) -> str:
    return middle(" ".join(plain(text).split()), _LIMIT)
