"""Run the loop of a run's thread: send, poll, search, and commit before anyone is notified."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from loguru import logger

from pytest_manifest.broker.locating import JobLocations
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import OVER_BUDGET, STORE_EMPTIED, Start, may_lack_starts
from pytest_manifest.results.collector import ReceiptBatch
from pytest_manifest.run.context import EngineContext, FailureWindow
from pytest_manifest.run.evaluation import Correction, Evaluated, revoked_message
from pytest_manifest.run.evidence import ReportedEnd
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.recovery import (
    AFTER_LOSS,
    RETRY_AFTER,
    JobSearch,
    OrphanRecovery,
    StrandedJobs,
)
from pytest_manifest.run.schedule import Skipped
from pytest_manifest.run.sending import Sender
from pytest_manifest.run.unconfirmed import Final, UnconfirmedEnds, UnreadableResults
from pytest_manifest.run.withdrawal import Withdrawal, withdrawn_message
from pytest_manifest.run.workers import WorkerDeaths
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.verdict import plural

POLL_PERIOD = 0.05
"""Seconds from one poll to the next: eager reading costs three times as much."""
REMIND_PERIOD = 10.0
"""Seconds from one repeated revocation to the next: shorter than brokers take to requeue what a
dead worker had."""
DRAIN = 10.0
"""Seconds to wait for messages that are left when every verdict is there."""


InferredEnd: TypeAlias = tuple[PendingAttempt, VerdictStatus, str]
"""A verdict on an attempt for want of a receipt, and the reason."""


class Engine:
    """Make one pass through a run's work. Use it from one thread."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._settings = context.settings
        self._signals = context.signals
        self._ledger = context.ledger
        self._gatherer = context.gatherer
        self._publisher = context.publisher
        self._evaluator = context.evaluator
        self._schedule = context.schedule
        self.pending = context.pending
        self._sender: Sender | None = None
        if context.publisher is not None:
            self._sender = Sender(
                context.ledger, context.publisher, context.schedule, context.pending, context.window
            )
        allowed = context.is_private or context.settings.repair
        self._search: JobSearch | None = None
        if context.locator is not None:
            stranded = StrandedJobs(context.pending, context.live_warnings, allowed=allowed)
            self._search = JobSearch(context.locator, context.pending, stranded)
        self.unread = UnreadableResults(context.gatherer)
        self._unconfirmed = UnconfirmedEnds(context.pending, self._search)
        self._sending, self._gathering = FailureWindow(), FailureWindow()
        self._deaths = WorkerDeaths(context)
        self._withdrawal = Withdrawal(
            context, self._revoke, self._poll, self.poll_once, self._is_intact
        )
        self._orphans: OrphanRecovery | None = None
        if context.locator is not None:
            self._orphans = OrphanRecovery(
                context.locator,
                context.pending,
                context.warnings,
                allowed=allowed,
                starts_unknown=self._starts_unknown,
            )
        self._quarantined: list[str] = []
        self._dropped: list[str] = []
        self._remind_at = 0.0
        self._uncharged: list[str] = []
        """Task ids whose cost is not charged to the budget yet."""
        self._deadline = float("inf")
        self.given_up = 0
        """Attempts that were judged as time was over; a worker may have them, or get them yet."""
        self._log = logger.bind(run=context.run)
        self._evaluator.evidence.is_whole = lambda: self._is_intact() is True

    @property
    def corrections(self) -> Sequence[Correction]:
        return self._evaluator.corrections

    @property
    def _finished(self) -> bool:
        if self._settings.send_only:
            return not self._schedule.has_ready
        return self._schedule.exhausted and not self.pending

    def work(self) -> None:
        """Send and poll until every entry has its verdict, time is over, or it is stopped.

        Raises StackError where broker or result store stay out of reach, or the stack has ended.
        """
        self.begin()
        while not self._signals.stop.is_set():
            began = time.monotonic()
            if self.step():
                return
            if not self._has_room:
                self._signals.stop.wait(max(0.0, POLL_PERIOD - (time.monotonic() - began)))

    def begin(self) -> None:
        """Sort what is to be sent; before the first :meth:`step`."""
        self._deadline = time.monotonic() + self._settings.deadline
        self._context.patience.end_at(self._deadline)
        underway = [job.entry.id for job in self.pending.by_task_id.values()]
        self._schedule.count_in_flight(job.attempt for job in self.pending.by_task_id.values())
        self._record_blocked(self._schedule.start(underway))

    def step(self) -> bool:
        """Go round once: send, poll, handle what is missing; return whether the work is done."""
        self._check_stack()
        self._send_some()
        if self._finished:
            self._drain()
            return True
        self._poll()
        self._check_missing(time.monotonic())
        if time.monotonic() <= self._deadline:
            return False
        self._time_is_over()
        return True

    def poll_once(self) -> None:
        """Poll everything that is there now, and wait for nothing."""
        self._record_batch(self._gatherer.poll_all(self.pending.by_task_id))

    def send_nothing(self) -> None:
        """Close the schedule: no attempt follows from what is found."""
        self._schedule.close("the run is only looked at")

    def confirm_missing(self, nowhere: Iterable[str]) -> None:
        """Count what the store alone reports of these; see :class:`UnconfirmedEnds`."""
        self._unconfirmed.confirm_missing(nowhere)

    def requeue(self, located: JobLocations) -> list[str]:
        """Requeue what dead workers had taken, where allowed; see :class:`OrphanRecovery`."""
        return [] if self._orphans is None else self._orphans.requeue(located)

    @property
    def not_requeued(self) -> Collection[str]:
        """Return the task ids that dead workers had and may have started: they were not moved."""
        return () if self._orphans is None else self._orphans.not_requeued

    def _starts_unknown(self) -> bool:
        """Return whether a job may have started unreported; our own workers report every start."""
        return not self._context.is_private and may_lack_starts(self._ledger)

    def wind_down(self) -> None:
        """Take back what waits after a stop; await what runs, where a person stopped the run."""
        by_a_person = self._signals.interrupted.is_set()
        back = self._withdrawal.take_back(self._settings.grace if by_a_person else 0.0)
        self.commit(self._inferred((one, "revoked", revoked_message(one)) for one in back))

    def _time_is_over(self) -> None:
        """End at the deadline; on our own stack, let nothing start after its verdict."""
        note = f"the run's deadline of {self._settings.deadline:g} s is over"
        left = self._schedule.close(note)
        if self._settings.send_only:  # what was sent is the workers', and not judged here
            raise DispatchError(f"{note}, and {plural(len(left), 'entry')} had not been sent yet")
        self._last_poll()
        if self._context.is_private:
            back = self._withdrawal.take_back(self._settings.grace)
            self.commit(
                self._inferred(
                    (one, "timed_out", f"{note}; {withdrawn_message(one)}") for one in back
                )
            )
            self._last_poll()
        elif self._search is not None and self._search.is_deserted():
            self.record_rest("pending", f"{note}, and no worker has answered: is one started?")
            return
        self.record_rest("timed_out", note)

    def record_rest(self, kind: VerdictStatus, note: str) -> None:
        """Give every entry that has no verdict this one."""
        unread = [
            one for one in self.pending.by_task_id.values() if self.unread.reason(one.task_id)
        ]
        self.commit(self._inferred((one, kind, note) for one in unread))
        evaluated = self._evaluator.remaining(kind, note)
        self.given_up += len(self.pending)
        self.pending.clear()
        self.commit(evaluated)

    def _inferred(self, reported: Iterable[InferredEnd]) -> Iterator[Evaluated]:
        for job, kind, note in reported:
            yield self._evaluator.infer(job, *self.unread.adjust(job, kind, note)), None

    def commit(self, evaluated: Iterable[Evaluated]) -> None:
        """Record verdicts, then report them."""
        rows = list(evaluated)
        if rows:
            with self._ledger.transaction():
                self._ledger.record_verdicts(rows)
            self._report([verdict for verdict, _ in rows])

    # Sending

    @property
    def _has_room(self) -> bool:
        return self._sender is not None and self._sender.has_room

    def _send_some(self) -> None:
        self._block_beyond_budget()
        if self._sender is not None and self._sender.has_room:
            error = self._sender.send_some()
            self._record_unsent(self._sender.refused(), "rejected")
            if error is not None:
                self._note_outage(self._sending, error)
            elif self._sending.close() and self._search is not None:
                self._search.schedule(time.monotonic())  # what was uncertain can be looked for
        if self._schedule.exhausted or (self._settings.send_only and self._finished):
            self._signals.all_sent.set()

    def _block_beyond_budget(self) -> None:
        skipped = self._schedule.over_budget()
        if skipped:
            self._ledger.set_meta(OVER_BUDGET, skipped[0].reason)
            self._record_blocked(skipped)

    def _note_outage(self, outage: FailureWindow, error: StackError) -> None:
        """Note a failure of broker or store, and wait; raise ``error`` once PATIENCE is over."""
        if outage.expired():
            raise error
        self._log.warning("{}; trying again", error)
        self._signals.stop.wait(0.5)

    def _check_stack(self) -> None:
        failure = self._signals.stack_failure()
        if failure is not None:
            raise StackError(failure)

    # Gathering and judging

    def _poll(self) -> None:
        block_ms = 0 if self._has_room else int(POLL_PERIOD * 1000)
        try:
            sip = self._gatherer.poll(self.pending.by_task_id, block_ms)
        except StackError as error:
            self.pending.be_patient(time.monotonic())
            self._note_outage(self._gathering, error)
            return
        self._gathering.close()
        self._record_batch(sip)

    def _record_batch(self, sip: ReceiptBatch) -> None:
        """Commit a batch of receipts and the verdicts that follow at once; then report them."""
        finals = self._unconfirmed.confirmed(sip.finals, sip.starts)
        if not (sip.starts or sip.handed_on or finals):
            if (
                sip.moved and sip.position is not None
            ):  # so that --manifest-resume does not read it again
                self._ledger.set_meta("stream_position", sip.position)
            return
        now = time.monotonic()
        if self._search is not None:
            self._search.reset_quiet(now)
        evaluated: list[Evaluated] = []
        with self._ledger.transaction():
            self._ledger.add_starts(sip.starts)
            repeated: list[str] = []
            for start in sip.starts:
                self._deaths.has_started(start.worker)
                job = self.pending.by_task_id.get(start.task_id)
                if job is None or job.started is not None:
                    repeated.append(start.task_id)
                    self._evaluator.evidence.check_repeated_start(start)
                self.pending.started(start, now)
            self._ledger.add_handed_on(sip.handed_on)
            for end in sip.handed_on:
                self.pending.handed_on(end)
            self._ledger.add_receipts(finals)
            known = self._starts_of(finals)
            for task_id, reported in _by_attempt(finals).items():
                job = self.pending.complete(task_id)
                if job is None:
                    evaluated += self._evaluator.late_receipt(task_id)
                    self._uncharged.append(task_id)
                else:
                    starts = known.get(task_id, ())
                    evaluated += self._conclude(
                        job, *self._evaluator.evaluate_evidence(job, reported, starts)
                    )
            for task_id in repeated:
                evaluated += self._handle_repeated_start(task_id)
            self._ledger.record_verdicts(evaluated)
            self._charge_budget()
            if sip.position is not None:
                self._ledger.set_meta("stream_position", sip.position)
        if not self._ledger.commits_deferred:
            self._gatherer.trim()
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def _starts_of(self, finals: Iterable[Final]) -> Mapping[str, Sequence[Start]]:
        """Return the starts of these attempts; few have more than the one just reported."""
        known: dict[str, Sequence[Start]] = {}
        asked: list[str] = []
        for task_id, _, _ in finals:
            job = self.pending.by_task_id.get(task_id)
            if job is None or job.only_start is None:
                asked.append(task_id)
            else:
                known[task_id] = (job.only_start,)
        return known | self._ledger.starts_of(asked)

    def _conclude(
        self, job: PendingAttempt, verdict: Verdict, receipt: Receipt | None
    ) -> list[Evaluated]:
        """Return what follows from an attempt's verdict: the entry's verdict, or another attempt.

        Call it within a transaction, for an attempt that is no longer pending.
        """
        self._uncharged.append(job.task_id)
        if not self._signals.stop.is_set() and self._schedule.closed is None:
            another = self._evaluator.next_attempt(job, verdict, receipt)
            if another is not None:
                self._schedule.add(another)
                return []
        verdict = self._evaluator.final(job, verdict)
        return [(verdict, receipt), *self._finish(job.entry.id, verdict.verdict)]

    def _finish(self, entry: str, kind: VerdictStatus) -> list[Evaluated]:
        """Give the schedule a final verdict; return the verdicts of what it blocks."""
        was_open = self._schedule.closed is None
        skipped = self._schedule.finished(entry, kind)
        closes = was_open and self._schedule.closed is not None
        if closes and self._settings.revoke_on_max_failed:
            self._quarantined += self.pending.unstarted()
        return self._evaluator.blocked(skipped)

    def _charge_budget(self) -> None:
        """Charge the budget with the recorded cost of attempts that have ended."""
        landed, self._uncharged = self._uncharged, []
        budget = self._schedule.budget
        for task_id in landed if budget is not None else ():
            cost = self._evaluator.cost(task_id)
            if budget is not None and cost is not None:
                budget.charge(task_id, cost)

    def _handle_repeated_start(self, task_id: str) -> list[Evaluated]:
        """Judge a job that started a second time: after its end, or as it kills its workers."""
        job = self.pending.by_task_id.get(task_id)
        if job is None:
            self._uncharged.append(task_id)
            if self._evaluator.keeps_crashing(task_id):  # no other job would get a turn
                self._quarantined.append(task_id)
            return self._evaluator.started_after_end(task_id)
        verdict = self._evaluator.quarantine(job)
        if verdict is None:
            return []
        self.pending.complete(task_id)
        self._quarantined.append(task_id)
        return self._conclude(job, verdict, None)

    def _revoke_quarantined(self) -> None:
        if self._quarantined:
            task_ids, self._quarantined = self._quarantined, []
            self._dropped += task_ids
            self._revoke(task_ids)

    def _remind_workers(self, now: float) -> None:
        """Repeat the revocation of quarantined jobs.

        Workers keep revocations in memory: one that started since knows of none, and would run what
        has killed it as soon as the broker hands it out again.
        """
        if self._dropped and now >= self._remind_at:
            self._remind_at = now + REMIND_PERIOD
            self._revoke(self._dropped)

    def _record_inferred(self, pending: Iterable[InferredEnd]) -> None:
        """Record the verdicts of attempts that no receipt will come of; they are not pending any
        more."""
        evaluated: list[Evaluated] = []
        with self._ledger.transaction():
            for job, kind, note in pending:
                kind, note = self.unread.adjust(job, kind, note)
                verdict, receipt = self._evaluator.infer_or_revoked(job, kind, note)
                if receipt is not None and job.hearsay is not None:  # it counts now
                    self._ledger.add_receipts([(job.task_id, None, job.hearsay)])
                evaluated += self._conclude(job, verdict, receipt)
            self._ledger.record_verdicts(evaluated)
            self._charge_budget()
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def _record_unsent(self, unsent: Sequence[Skipped], kind: VerdictStatus) -> None:
        """Record the verdicts of what will never be sent: refused, or overdue within an outage."""
        if not unsent:
            return
        with self._ledger.transaction():
            evaluated = self._evaluator.unsent(unsent, kind)
            for one in unsent:
                if self._schedule.budget is not None:
                    self._schedule.budget.cancel(one.attempt.task_id)
                evaluated += self._finish(one.attempt.entry.id, kind)
            self._ledger.record_verdicts(evaluated)
        self._report([verdict for verdict, _ in evaluated])
        self._revoke_quarantined()

    def _record_blocked(self, skipped: Sequence[Skipped]) -> None:
        if skipped:
            with self._ledger.transaction():
                evaluated = self._evaluator.blocked(skipped)
                self._ledger.record_verdicts(evaluated)
            self._report([verdict for verdict, _ in evaluated])

    # What is overdue or missing

    def _check_missing(self, now: float) -> None:
        """Judge the jobs that no worker reports any more."""
        self._remind_workers(now)
        if self._deaths.check(now) and self._search is not None:
            self._search.schedule(now, *AFTER_LOSS)
        self._give_up_overdue(now)
        if self._sender is not None:
            self._record_unsent(self._sender.overdue(now), "timed_out")
        if self._search is not None:
            located = self._search.tick(now)
            if located is not None:
                self.act_on(located)

    def _give_up_overdue(self, now: float) -> None:
        overdue = self.pending.overdue(now)
        if not overdue:
            return
        try:
            # Once more, for a receipt that is there and has only not been read yet.
            self._record_batch(self._gatherer.poll_all({i: o.pending for i, o in overdue.items()}))
        except StackError as error:
            self._log.warning("no last look for overdue jobs: {}", error)
        self._withdrawal.withdraw_overdue(overdue)
        late = {i: o for i, o in overdue.items() if self.pending.complete(i) is not None}
        self.given_up += len(late)
        self._record_inferred((o.pending, o.status, o.reason) for o in late.values())

    def act_on(self, located: JobLocations) -> None:
        """Requeue, discard, send again or give up what two snapshots located."""
        if not (located.unacked_by_dead or located.missing):
            return
        self.confirm_missing(located.missing)
        try:
            self.poll_once()  # for a receipt that came between the two looks
            self._context.record_unknown_workers()
            started = self.requeue(located)
        except StackError as error:
            self._log.warning("what was found could not be mended: {}", error)
            if self._search is not None:
                self._search.schedule(time.monotonic(), RETRY_AFTER)
            return
        self._give_up(started, located.missing)

    def _give_up(self, started: Iterable[str], nowhere: Iterable[str]) -> None:
        """Judge what died with its worker, and what is missing."""
        intact = self._is_intact()
        rows: list[InferredEnd] = [
            (job, "crashed", self._evaluator.how_it_died(job))
            for job in self.pending.complete_all(started)
        ]
        for job in self.pending.complete_all(nowhere):
            if job.started is None and intact is not False and self._resend(job):
                continue
            kind, note = self._evaluator.explain_missing(job, emptied=intact is False)
            rows.append((job, kind, note))
        self._record_inferred(rows)

    def _resend(self, job: PendingAttempt) -> bool:
        """Publish again a message that got lost on its way, and that no worker can have started."""
        if self._sender is None:
            return False
        if self.unread.reason(job.task_id):
            return False
        starts_reported = self._gatherer.reports_starts and not may_lack_starts(self._ledger)
        return (starts_reported or job.entry.idempotent) and self._sender.resend(job.attempt)

    def _is_intact(self) -> bool | None:
        try:
            intact = self._gatherer.is_intact()
        except StackError as error:
            self._log.warning("the receipts stream could not be looked at: {}", error)
            return None
        if intact is False and self._ledger.get_meta(STORE_EMPTIED) is None:
            self._ledger.set_meta(STORE_EMPTIED, "1")
            self._context.warnings.append(
                "the result store was emptied, or lost what it held, while the run was going on"
            )
        return intact

    # The end

    def _last_poll(self) -> None:
        try:
            self.poll_once()
        except StackError as error:
            self._log.warning("no last look before the deadline: {}", error)

    def _drain(self) -> None:
        """Wait for messages of ours that are left in our own stack's queues, which would run
        again."""
        publisher = self._publisher
        if publisher is None or not self._context.is_private or self._settings.send_only:
            return
        until = time.monotonic() + DRAIN
        try:
            while any(publisher.queue_lengths(self._context.queues).values()):
                if time.monotonic() > until or self._signals.stop.wait(POLL_PERIOD):
                    return
                self._poll()
            self._poll()
        except StackError as error:
            self._log.warning("no look for what is left in the queues: {}", error)

    def _revoke(self, task_ids: Sequence[str]) -> None:
        """Have the workers drop what is sent and not finished."""
        if self._publisher is None or not task_ids:
            return
        self._evaluator.evidence.mark_revoked(
            f for f in map(self.pending.by_task_id.get, task_ids) if f
        )
        try:
            self._publisher.revoke(task_ids)
        except StackError as error:
            self._log.warning("what is queued could not be revoked: {}", error)

    def _report(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        others = [verdict for verdict in verdicts if verdict.verdict != "passed"]
        for verdict in others:
            self._log.bind(entry=verdict.entry).debug("{}: {}", verdict.verdict, verdict.sentence)
        if len(others) < len(verdicts):  # the ledger has each, and a line for each would cost more
            self._log.debug("{} passed", len(verdicts) - len(others))
        self._signals.on_verdicts([verdict.entry for verdict in verdicts])


def _by_attempt(finals: Iterable[Final]) -> Mapping[str, Sequence[ReportedEnd]]:
    """Group the reported ends by attempt, in the order in which they arrived."""
    found: dict[str, list[ReportedEnd]] = {}
    for task_id, execution, receipt in finals:
        found.setdefault(task_id, []).append((execution, receipt))
    return found
