"""Evaluate a run's attempts: by receipts, for want of one, and what follows for the entry.

All methods read and write the ledger and keep nothing of their own, so that a run which is taken up
again judges as the first one did. A failure of the evaluation itself concerns one entry, and never
ends the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from loguru import logger

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import (
    OTHER_BROKER,
    EntryVerdict,
    Ledger,
    Start,
    has_all_starts,
    stores_asked,
    utc_now,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.run import doubts
from pytest_manifest.run.corrections import Correction, is_no_news, note_correction
from pytest_manifest.run.evidence import EvidenceEvaluator, ReportedEnd
from pytest_manifest.run.fact_log import FactLog, withheld
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.quarantine import Quarantine
from pytest_manifest.run.schedule import Skipped
from pytest_manifest.run.signatures import for_want_of_a_signed_end, unsigned_end
from pytest_manifest.run.task_metadata import OwnLimits
from pytest_manifest.run.tree_evaluation import TreeEvaluator
from pytest_manifest.run.unforeseen import failure_ignored, unforeseen_failure
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import FIXED, OWN
from pytest_manifest.verdict import Costs, evaluate, is_revocation_notice, problems
from pytest_manifest.verdict.problems import RunOver
from pytest_manifest.verdict.reasons import Problem, reason_of, verdict_of

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
        self._costs = Costs(ledger, manifest)
        self._resent: Counter[str] = Counter()
        self.to_repeat: set[str] = set()
        """Entries that are sent again when their attempt's tree has ended, unless it has passed."""
        self.corrections: list[Correction] = []
        self.keeps_unknown = False
        """Whether only a report changes what was unknown, or given up as overdue."""

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

    def infer(self, job: PendingAttempt, status: VerdictStatus, why: Problem) -> Verdict:
        """Return the verdict on an attempt that no receipt will come of."""
        if self.evidence.signatures is not None:
            status, why = for_want_of_a_signed_end(self._ledger, job.task_id, status, why)
        if status == "unknown" or self.keeps_unknown:
            row = self._ledger.attempts.get(job.task_id)
            known = None if row is None else row.verdict
            given_up = known is not None and self.keeps_unknown and known.verdict == "timed_out"
            if known is not None and (known.verdict == "unknown" or given_up):
                return known  # nothing was reported since
        seen = status in OWN and job.is_running
        entry = self._own_limits.of(job)
        return evaluate(entry, None, attempt=job.number, problem=status, why=why, seen=seen)

    def infer_or_revoked(
        self, job: PendingAttempt, status: VerdictStatus, why: Problem
    ) -> Evaluated:
        """Infer the verdict, or judge by the revocation that the result store has."""
        notice = job.unconfirmed
        if status == "revoked" and notice is not None and is_revocation_notice(notice):
            return self.evaluate(job, notice)
        return self.infer(job, status, why), None

    def explain_death(self, job: PendingAttempt, *, emptied: bool) -> tuple[VerdictStatus, Problem]:
        """Return the verdict on an attempt that a dead worker had begun and not acknowledged."""
        self.facts.has_died(job)
        doubt = doubts.emptied(self._ledger.info, self._run_of(job.root), now=emptied)
        return ("crashed", _death(job)) if doubt is None else ("unknown", doubt)

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

    def cost(self, task_id: str) -> Decimal | None:
        """Return what an attempt cost by the ledger, None for one that is not the run's."""
        return self._costs.of(task_id)

    # What follows for the entry

    def next_attempt(
        self, job: PendingAttempt, verdict: Verdict, receipt: Receipt | None
    ) -> Attempt | None:
        """Plan another attempt, where the entry allows one, and close the last in the ledger."""
        entry = job.entry
        was_asked_for = entry.id in self.to_repeat
        if was_asked_for:
            self.to_repeat.discard(entry.id)
            is_due = verdict.verdict != "passed"
        else:
            is_due = self._is_resent(job, verdict, receipt)
            self._resent[entry.id] += is_due
        if not is_due or self.trees.goes_on(job.task_id):
            return None
        ordinal = self._ledger.attempts.of_entry(entry.id)[-1].position
        attempt = attempt_of(self.run, entry, job.number + 1, ordinal)
        self._ledger.verdicts.end_attempt(job.task_id, verdict)
        row = (attempt.task_id, entry.id, attempt.number, ordinal, verdict.verdict)
        self._ledger.attempts.plan([row], why="resume" if was_asked_for else "retry")
        if was_asked_for:
            self._ledger.info.add_sent_on_request([attempt.task_id])
        logger.bind(entry=entry.id).info(
            "attempt {} of {!r} was {}; it is sent again", job.number, entry.id, verdict.verdict
        )
        return attempt

    def _is_resent(self, job: PendingAttempt, verdict: Verdict, receipt: Receipt | None) -> bool:
        """Return whether the entry's ``retries`` allow for another attempt after this verdict."""
        entry = job.entry
        if verdict.verdict == "passed" or not entry.idempotent:
            return False
        if not reason_of(verdict).cause.sent_again:
            return False
        if verdict.verdict == "unknown" and receipt is not None:
            return False  # it ran; only whether it met its expectations is unknown
        if self._resent[entry.id] >= entry.retries:
            return False
        return verdict.verdict != "crashed" or not self.quarantine.has_killed_enough(job)

    def final(self, job: PendingAttempt, verdict: Verdict) -> Verdict:
        """Return the entry's verdict: quarantined, where its workers died of it too often."""
        is_crashed = verdict.verdict == "crashed"
        return self.quarantine.of_crashed(job, verdict) if is_crashed else verdict

    def keeps_crashing(self, task_id: str) -> bool:
        """Return whether a job that was given up is delivered and started again and again."""
        row, settled = self._ledger.attempts.get(task_id), self._verdict_on(task_id)
        if settled is not None:
            return self.quarantine.is_to_be_revoked(task_id, settled.verdict.verdict)
        return row is not None and self.quarantine.is_to_be_revoked(task_id, row.status)

    def blocked(self, skipped: Sequence[Skipped]) -> list[Evaluated]:
        """Return the verdicts of what will not be sent; call it within a transaction."""
        if not skipped:  # nearly always: this is asked after each verdict
            return []
        for one in skipped:
            if (fact := withheld(one.attempt.task_id, one.why)) is not None:
                self.facts.add(one.attempt.entry.id, fact)
        self.facts.write()
        self._ledger.attempts.mark((one.attempt.task_id for one in skipped), "withheld")
        return self.unsent(skipped, "skipped")

    def unsent(self, unsent: Sequence[Skipped], status: VerdictStatus) -> list[Evaluated]:
        """Return the verdicts of what was never sent, each with its reason."""
        return [
            (evaluate(a.entry, None, attempt=a.number, problem=status, why=why), None)
            for a, why in ((one.attempt, one.why) for one in unsent)
        ]

    def remaining(self, status: VerdictStatus, why: RunOver) -> list[Evaluated]:
        """Return this verdict for every entry that has none."""
        evaluated: list[Evaluated] = []
        for row in self._ledger.attempts.all(undecided=True):
            if self._is_unknown(row.entry):
                continue
            known = why.having(unsent=True) if row.state == "planned" else why
            try:
                if row.entry not in self.manifest:
                    continue
                entry = self.manifest[row.entry]
            except ManifestError as error:  # it is known what to say, whatever the entry expects
                unread = problems.ExpectationUnread(why=known, error=str(error))
                verdict = verdict_of(row.entry, row.attempt, status, unread)
            else:
                own, found = for_want_of_a_signed_end(self._ledger, row.task_id, status, known)
                seen = own == entry.expect.state == "timed_out"
                seen = seen and self._outran(entry, row.task_id)
                number = row.attempt
                verdict = evaluate(entry, None, attempt=number, problem=own, why=found, seen=seen)
            evaluated.append((verdict, None))
        return evaluated

    def _is_unknown(self, entry: str) -> bool:
        """Return whether the entry was already judged unknown, with its reason."""
        settled = self._ledger.verdicts.of_entry(entry)
        return settled is not None and settled.verdict.verdict == "unknown"

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

    # What comes after the verdict

    def late_receipt(self, task_id: str) -> list[Evaluated]:
        """Judge again an attempt by a later receipt: it may know better, or belie the first one."""
        settled = self._verdict_on(task_id)
        if settled is None:
            return []
        if settled.verdict.verdict in FIXED and not unsigned_end(self._ledger, task_id):
            return []  # where what came before was not signed, this is the first that counts
        with failure_ignored(f"a late receipt of {task_id}"):
            return self._reevaluate(settled, task_id)
        return []

    def started_after_end(self, task_id: str) -> list[Evaluated]:
        """Judge again a job that started once more after its receipt, however that will end."""
        settled = self._verdict_on(task_id)
        if settled is None or settled.receipt is None:
            return []
        if settled.verdict.verdict in FIXED:
            return []
        with failure_ignored(f"a late start of {task_id}"):
            return self._reevaluate(settled, task_id)
        return []

    def _reevaluate(self, settled: EntryVerdict, task_id: str) -> list[Evaluated]:
        """Judge again by all that the ledger has; return nothing where the verdict is the same."""
        name, number = settled.verdict.entry, settled.verdict.attempt
        if name not in self.manifest or number is None:
            return []
        receipts = self._ledger.events.receipts(task_id)
        reported = [one for one in receipts if self.evidence.is_of(one[1], name, task_id, number)]
        if not reported:
            return []
        row, starts = self._ledger.attempts.get(task_id), self._ledger.events.starts(task_id)
        sent_at = None if row is None else row.sent_at
        # Of what was published twice it is unknown which message a receipt is of.
        verdict, receipt = self.evidence.evaluate(
            self.manifest[name], task_id, number, reported, starts, sent_at, exact_message=False
        )
        verdict = self.trees.with_tree(self.manifest[name], task_id, verdict, receipt)
        if verdict == settled.verdict and receipt == settled.receipt:
            return []
        if verdict.verdict == "revoked" and is_no_news(settled.verdict.verdict, "revoked"):
            return []
        return self._correct(settled, verdict, receipt)

    def _verdict_on(self, task_id: str) -> EntryVerdict | None:
        """Return the entry's verdict, where it is about the attempt with this task id."""
        row = self._ledger.attempts.get(task_id)
        settled = None if row is None else self._ledger.verdicts.of_entry(row.entry)
        if row is None or settled is None or settled.verdict.attempt != row.attempt:
            return None
        return settled

    def _correct(
        self, settled: EntryVerdict, verdict: Verdict, receipt: Receipt | None
    ) -> list[Evaluated]:
        before = settled.verdict.verdict
        if verdict.verdict != before:
            self.corrections.append(note_correction(self._ledger, before, verdict))
        return [(verdict, receipt)]


def _death(job: PendingAttempt, *, unconfirmed: bool = False) -> Problem:
    """Return how the process that ran a job is known to be gone."""
    loss = job.loss
    if loss is not None:
        ended = problems.ProcessEndedUnconfirmed if unconfirmed else problems.ProcessEnded
        return ended(worker=loss.worker, exit_code=loss.returncode)
    gone = problems.ProcessGoneUnconfirmed if unconfirmed else problems.ProcessGone
    return gone(worker=job.worker or job.host, pid=job.pid)
