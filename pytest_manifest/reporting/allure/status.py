"""Translate verdicts into Allure's statuses, categories and messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pytest_manifest.schema import VerdictStatus

Status = Literal["passed", "failed", "broken", "skipped"]

FAILED: Final[frozenset[VerdictStatus]] = frozenset({"failed", "timed_out"})
"""Verdicts of jobs that did not meet their entry's expectations."""

CATEGORIES: Final[Sequence[tuple[str, str, tuple[Status, ...]]]] = (
    ("Expectation not met", "failed", ("failed",)),
    ("Timed out", "timed_out", ("failed",)),
    ("Crashed: the process that ran it died", "crashed", ("broken",)),
    ("Quarantined: killed its worker too often", "quarantined", ("broken",)),
    ("Lost: neither a queue nor a worker has it", "lost", ("broken",)),
    ("Ran more often than is allowed", "duplicated", ("broken",)),
    ("Unknown task", "unknown_task", ("broken",)),
    ("Rejected by the worker", "rejected", ("broken",)),
    ("Expired before it was started", "expired", ("broken",)),
    ("Revoked", "revoked", ("broken",)),
    ("Forged receipt", "forged", ("broken",)),
    ("Still queued or running", "pending", ("broken",)),
    ("Unknown: it cannot be told", "unknown", ("broken",)),
    ("Held back", "skipped", ("skipped",)),
)
"""A category for each verdict that is not ``passed``: its name, the verdict, Allure's statuses."""


def status_of(kind: VerdictStatus | None) -> Status:
    """Return ``failed`` for an expectation not met, ``broken`` for a fault of stack or harness."""
    if kind == "passed":
        return "passed"
    if kind in FAILED:
        return "failed"
    return "skipped" if kind == "skipped" else "broken"


def message_of(kind: VerdictStatus | None, sentence: str | None) -> str:
    """Return the message that Allure shows; categories match the verdict at its beginning."""
    return f"{kind or 'pending'}: {sentence or 'it has no verdict'}"
