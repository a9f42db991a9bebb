"""Evaluate a run's attempts: by receipts, for want of one, and what follows for the entry.

All methods read and write the ledger and keep nothing of their own, so that a run which is taken up
again judges as the first one did. A failure of the evaluation itself concerns one entry, and never
ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pytest_manifest.ledger import (
    OTHER_BROKER,
    Ledger,
    Start,
    has_all_starts,
    stores_asked,
    utc_now,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.run import doubts
from pytest_manifest.run.evidence import EvidenceEvaluator, ReportedEnd
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.quarantine import Quarantine
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.run.tree_evaluation import TreeEvaluator
from pytest_manifest.run.unforeseen import unforeseen_failure
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.verdict import is_revocation_notice, problems
from pytest_manifest.verdict.reasons import Problem

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
        lifetime: float,
        facts: FactLog | None = None,
    ) -> None:
        self.run = run
        self.facts = facts or FactLog(ledger)
        self.manifest = manifest
        self._ledger = ledger
        self.quarantine = Quarantine(ledger, kills)
        self._lifetime = lifetime
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
        verdict, whole = self.evaluate_itself(job, receipt, starts)
        return self.trees.with_tree(job.entry, job.task_id, verdict, whole), whole

    def evaluate_itself(
        self, job: PendingAttempt, receipt: Receipt, starts: Sequence[Start] | None = None
    ) -> Evaluated:
        """Return the verdict as :meth:`evaluate` does, but whatever became of its descendants."""
        if starts is not None:
            return self.evaluate_evidence(job, [(None, receipt)], starts)
        reported = self._ledger.events.receipts(job.task_id) or [(None, receipt)]
        return self.evaluate_evidence(job, reported, self._ledger.events.starts(job.task_id))

    def evaluate_evidence(
        self, job: PendingAttempt, reported: Sequence[ReportedEnd], starts: Sequence[Start]
    ) -> Evaluated:
        """Return the verdict by these ends and starts of the attempt."""
        entry, number = job.entry, job.number
        try:
            return self.evidence.evaluate(entry, job.task_id, number, reported, starts, job.sent_at)
        except Exception as error:  # one unforeseen receipt must not end the run for all
            return unforeseen_failure(entry, number, reported[0][1], error)

    def explain_missing(
        self, job: PendingAttempt, *, emptied: bool
    ) -> tuple[VerdictStatus, Problem]:
        """Return the verdict on an attempt that is missing, and why."""
        if job.sent_at is not None:
            age = (utc_now() - job.sent_at).total_seconds()
            if age > self._lifetime:
                return "unknown", problems.PastLifetime()
        info, run = self._ledger.info, self._run_of(job.root)
        if doubt := doubts.emptied(info, run, now=emptied):
            return "unknown", doubt
        other = info.of_run(OTHER_BROKER, run)
        if other is not None and not (job.is_running and self.facts.has_died(job)):
            return "unknown", problems.OtherBroker(broker=other)
        reported = job.unconfirmed
        if reported is not None and is_revocation_notice(reported) and not job.is_running:
            return "revoked", problems.RevokedAndGone()
        if job.started is None:
            return self._explain_unstarted(job, run)
        if job.between is not None:
            return "lost", problems.LostBetween(worker=job.worker, how=job.between.how)
        if not self.facts.has_died(job):
            return "lost", problems.LostInFlight(worker=job.worker)
        # The store says nothing else.
        is_crash = reported is None or reported.state == "crashed" or is_revocation_notice(reported)
        return ("crashed", _death(job)) if is_crash else ("unknown", _death(job, unconfirmed=True))

    def _explain_unstarted(self, job: PendingAttempt, run: str) -> tuple[VerdictStatus, Problem]:
        if job.broker is not None:
            return "unknown", problems.Elsewhere(broker=job.broker)
        store, own = stores_asked(self._ledger.info)
        if not self._starts_are_reported(run):
            return "unknown", problems.StartUnreported(store=store, own=own)
        return "lost", problems.NeverBegun(store=store, own=own)

    def _starts_are_reported(self, run: str) -> bool:
        """Return whether the start of any job of a run would have been reported and kept."""
        some_start = self._ledger.events.has_starts()
        return has_all_starts(self._ledger.info, some_start=some_start, run=run)

    def final(self, job: PendingAttempt, verdict: Verdict) -> Verdict:
        """Return the entry's verdict: quarantined, where its workers died of it too often."""
        is_crashed = verdict.verdict == "crashed"
        return self.quarantine.of_crashed(job, verdict) if is_crashed else verdict

    def was_seen(self, entry: Entry, task_id: str, status: VerdictStatus) -> bool:
        """Return whether a job itself had come to a status when it was judged without a receipt."""
        if status == "crashed":
            return bool(self._ledger.events.left_running(task_id))
        if status != "timed_out":
            return False
        return self._outran(entry, task_id, self._ledger.verdicts.moment_of(entry.id))

    def _outran(self, entry: Entry, task_id: str, by: datetime | None = None) -> bool:
        """Return whether a started job had run longer than it may by then, by now for None."""
        row = self._ledger.attempts.get(task_id)
        sent_at = None if row is None else row.sent_at
        limited = self._own_limits.of_run(entry, self._run_of(task_id), sent_at)
        limit = (by or utc_now()) - timedelta(seconds=limited.timeout)
        running = self._ledger.events.left_running(task_id)
        left = (one for one in running if not one.is_given_again)
        return any(one.started_at is not None and one.started_at < limit for one in left)


def _death(job: PendingAttempt, *, unconfirmed: bool = False) -> Problem:
    """Return how the process that ran a job is known to be gone."""
    loss = job.loss
    if loss is not None:
        ended = problems.ProcessEndedUnconfirmed if unconfirmed else problems.ProcessEnded
        return ended(worker=loss.worker, exit_code=loss.returncode)
    gone = problems.ProcessGoneUnconfirmed if unconfirmed else problems.ProcessGone
    return gone(worker=job.worker or job.host, pid=job.pid)
