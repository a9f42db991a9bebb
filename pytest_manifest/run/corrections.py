"""Note verdicts that change after they were reported: why a session fails that had been green."""

from __future__ import annotations

from dataclasses import dataclass

from loguru import logger

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import Verdict, VerdictStatus
from pytest_manifest.schema.statuses import GIVEN_UP


@dataclass(frozen=True, slots=True)
class Correction:
    """Hold an entry's verdict that was changed after it had been reported."""

    before: VerdictStatus
    verdict: Verdict


def is_no_news(before: VerdictStatus, after: VerdictStatus) -> bool:
    """Return whether a later verdict says no more than the one before it.

    What was given up at its deadline, or when the run was stopped, is taken back then, and its
    worker says so.
    """
    return after == before or (before in GIVEN_UP and after == "revoked")


def note_correction(ledger: Ledger, before: VerdictStatus, verdict: Verdict) -> Correction:
    """Write down that an entry's reported verdict becomes this one; return that."""
    ledger.verdicts.note_correction(verdict.entry, verdict.attempt, verdict.verdict)
    logger.bind(entry=verdict.entry).info(
        "{!r} was {} and is {} now", verdict.entry, before, verdict.verdict
    )
    return Correction(before, verdict)
