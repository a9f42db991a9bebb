"""Evaluate a run's attempts: by receipts, for want of one, and what follows for the entry.

All methods read and write the ledger and keep nothing of their own, so that a run which is taken up
again judges as the first one did. A failure of the evaluation itself concerns one entry, and never
ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pytest_manifest.ledger import (
    Ledger,
    Start,
    utc_now,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.casebook import unforeseen_failure
from pytest_manifest.run.evidence import EvidenceEvaluator, ReportedEnd
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.quarantine import Quarantine
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.run.tree_evaluation import TreeEvaluator
from pytest_manifest.schema import Entry, Receipt, Verdict

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
        kills: int,
        lifetime: float,  # noqa: ARG002 - the judge takes it from the stretch of the run
        facts: FactLog | None = None,
    ) -> None:
        self.run = run
        self.facts = facts or FactLog(ledger)
        self.manifest = manifest
        self._ledger = ledger
        self.quarantine = Quarantine(ledger, kills)
        self.evidence = EvidenceEvaluator(run, ledger, self.facts)
        self.trees = TreeEvaluator(run, manifest, ledger, self.evidence.may_lack_starts)
        self._own_limits = OwnLimits(ledger)
        self._run_of = ledger.info.task_runs().run_of
        self.to_repeat: set[str] = set()
        """Entries that are sent again when their attempt's tree has ended, unless it has passed."""

    # One attempt

    def evaluate(
        self, job: PendingAttempt, receipt: Receipt, starts: Sequence[Start] | None = None
    ) -> Evaluated:
        """Return the verdict by a final receipt; without ``starts``, by all that the ledger has.

        What became of its descendants counts, as far as the ledger has it.
        """
        reported: Sequence[ReportedEnd] = [(None, receipt)]
        if starts is None:
            reported = self._ledger.events.receipts(job.task_id) or reported
            starts = self._ledger.events.starts(job.task_id)
        verdict, whole = self.evaluate_evidence(job, reported, starts)
        return self.trees.with_tree(job.entry, job.task_id, verdict, whole), whole

    def evaluate_evidence(
        self, job: PendingAttempt, reported: Sequence[ReportedEnd], starts: Sequence[Start]
    ) -> Evaluated:
        """Return the verdict by these ends and starts of the attempt."""
        entry, number = job.entry, job.number
        try:
            return self.evidence.evaluate(entry, job.task_id, number, reported, starts, job.sent_at)
        except Exception as error:  # one unforeseen receipt must not end the run for all
            return unforeseen_failure(entry, number, reported[0][1], error)

    def final(self, job: PendingAttempt, verdict: Verdict) -> Verdict:
        """Return the entry's verdict: quarantined, where its workers died of it too often."""
        is_crashed = verdict.verdict == "crashed"
        return self.quarantine.of_crashed(job, verdict) if is_crashed else verdict

    def _outran(self, entry: Entry, task_id: str, by: datetime | None = None) -> bool:
        """Return whether a started job had run longer than it may by then, by now for None."""
        row = self._ledger.attempts.get(task_id)
        sent_at = None if row is None else row.sent_at
        limited = self._own_limits.of_run(entry, self._run_of(task_id), sent_at)
        limit = (by or utc_now()) - timedelta(seconds=limited.timeout)
        running = self._ledger.events.left_running(task_id)
        left = (one for one in running if not one.is_given_again)
        return any(one.started_at is not None and one.started_at < limit for one in left)
