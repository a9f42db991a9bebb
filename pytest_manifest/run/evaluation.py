"""Evaluate a run's attempts: by receipts, for want of one, and what follows for the entry.

All methods read and write the ledger and keep nothing of their own, so that a run which is taken up
again judges as the first one did. A failure of the evaluation itself concerns one entry, and never
ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_manifest.ledger import (
    Ledger,
    Start,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.casebook import unforeseen_failure
from pytest_manifest.run.evidence import EvidenceEvaluator, ReportedEnd
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.schema import Receipt, Verdict

Evaluated = tuple[Verdict, Receipt | None]


class AttemptEvaluator:
    """Evaluate the attempts of one run.

    ``lifetime``: seconds for which a result is kept; ``kills``: deaths that quarantine an entry.
    """

    def __init__(
        self,
        run: str,
        manifest: Manifest,
        ledger: Ledger,
        *,
        kills: int,  # noqa: ARG002 - the judge takes both
        lifetime: float,  # noqa: ARG002 - from the stretch of the run
        facts: FactLog | None = None,
    ) -> None:
        self.run = run
        self.facts = facts or FactLog(ledger)
        self.manifest = manifest
        self._ledger = ledger
        self.evidence = EvidenceEvaluator(run, ledger, self.facts)
        self.to_repeat: set[str] = set()
        """Entries that are sent again when their attempt's tree has ended, unless it has passed."""

    # One attempt

    def evaluate(
        self, job: PendingAttempt, receipt: Receipt, starts: Sequence[Start] | None = None
    ) -> Evaluated:
        """Return the verdict by a final receipt; without ``starts``, by all that the ledger has."""
        reported: Sequence[ReportedEnd] = [(None, receipt)]
        if starts is None:
            reported = self._ledger.events.receipts(job.task_id) or reported
            starts = self._ledger.events.starts(job.task_id)
        return self.evaluate_evidence(job, reported, starts)

    def evaluate_evidence(
        self, job: PendingAttempt, reported: Sequence[ReportedEnd], starts: Sequence[Start]
    ) -> Evaluated:
        """Return the verdict by these ends and starts of the attempt."""
        entry, number = job.entry, job.number
        try:
            return self.evidence.evaluate(entry, job.task_id, number, reported, starts, job.sent_at)
        except Exception as error:  # one unforeseen receipt must not end the run for all
            return unforeseen_failure(entry, number, reported[0][1], error)
