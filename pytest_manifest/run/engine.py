"""Run the loop of a run's thread: send, poll, search, and commit before anyone is notified."""

from __future__ import annotations

import time
from collections.abc import Sequence

from loguru import logger

from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import OVER_BUDGET
from pytest_manifest.run.absence import Absence
from pytest_manifest.run.context import EngineContext, FailureWindow
from pytest_manifest.run.corrections import Correction
from pytest_manifest.run.fact_log import run_over
from pytest_manifest.run.missing import MissingJobs, job_search, silent_holder
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.run.sending import Sender
from pytest_manifest.run.verdict_recorder import VerdictRecorder
from pytest_manifest.run.withdrawal import Withdrawal
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.text import plural
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import Problem

POLL_PERIOD = 0.05
"""Seconds from one poll to the next: eager reading costs three times as much."""
DRAIN = 10.0
"""Seconds to wait for messages that are left when every verdict is there."""
ACKNOWLEDGING = 0.2
"""Seconds that a worker has to acknowledge what it has reported to have ended."""

OVERTAKEN = (
    "another pytest has begun to go on with this run, by a copy of its ledger; this one sends "
    "nothing more, and leaves the rest to that one: keep one ledger of a run"
)


class Engine:
    """Make one pass through a run's work. Use it from one thread."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._settings = context.settings
        self._signals = context.signals
        self.ledger = context.ledger
        self._collector = context.collector
        self._publisher = context.publisher
        self._evaluator = context.evaluator
        self._facts = context.evaluator.facts
        self._schedule = context.schedule
        self.pending = context.pending
        self._sender: Sender | None = None
        if context.publisher is not None:
            self._sender = Sender(
                *(context.ledger, context.publisher, context.schedule, context.pending),
                context.window,
                context.evaluator.facts,
            )
        self._search = job_search(context)
        self._recorder = VerdictRecorder(context, self._search)
        self.unread = self._recorder.unread
        self._sending, self._polling = FailureWindow(), FailureWindow()
        self._withdrawal = Withdrawal(
            context, self._recorder.revoke, self._poll, self.poll_once, context.look_at_store
        )
        self.missing = MissingJobs(
            context, self._search, self._recorder, self._sender, self._withdrawal
        )
        self._absence = Absence(context)
        self._deadline = float("inf")
        self._left = 0
        self._log = logger.bind(run=context.run)
        self._evaluator.evidence.is_whole = context.is_store_whole

    @property
    def given_up(self) -> int:
        """Return how many attempts were judged as time was over: a worker may have them, or get
        them yet."""
        return self._left + self.missing.given_up

    @property
    def corrections(self) -> Sequence[Correction]:
        return self._evaluator.corrections

    @property
    def _finished(self) -> bool:
        if self._settings.send_only:
            return not self._schedule.has_ready
        return self._schedule.exhausted and not (self.pending or self.pending.held)

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
        self.end()

    def begin(self) -> None:
        """Sort what is to be sent; before the first :meth:`step`."""
        self._deadline = time.monotonic() + self._settings.deadline
        self._context.wait_budget.end_at(self._deadline)
        attempts = self.pending.attempts()
        self._schedule.count_in_flight(attempts)
        self._recorder.record_blocked(self._schedule.start([one.entry.id for one in attempts]))
        self._recorder.record_complete_trees()

    def step(self) -> bool:
        """Go round once: send, poll, handle what is missing; return whether the work is done."""
        self._check_stack()
        self._evaluator.evidence.clock.look()
        self._send_some()
        if self._finished:
            self._drain()
            return True
        self._poll()
        self.missing.check(time.monotonic())
        if ending := self._absence.check(time.monotonic()):
            self._schedule.close(ending.why)
            self.record_rest(ending.status, ending.why)
            self._context.warnings.append(ending.advice)
            self._signals.is_deserted = True
            return True
        if time.monotonic() <= self._deadline:
            return False
        self._time_is_over()
        return True

    def end(self) -> None:
        """Leave our own stack clean, where the run was stopped when its work was done already.

        The last test may end the session before this thread has gone round again.
        """
        if self._finished and not self._signals.force_stop.is_set():
            self._drain()

    def poll_once(self) -> None:
        """Poll everything that is there now, and wait for nothing."""
        self._recorder.poll_once()

    def send_nothing(self) -> None:
        """Close the schedule: no attempt follows from what is found."""
        self._schedule.close(problems.LookedAt())

    def wind_down(self) -> None:
        """Take back what waits after a stop; await what runs, where a person stopped the run."""
        self._recorder.unconfirmed.hold_revoked()  # what a worker drops now the run has taken back
        by_a_person = self._signals.interrupted.is_set()
        back = self._withdrawal.take_back(self._settings.grace if by_a_person else 0.0, "stop")
        self._recorder.commit_inferred((one, "withdrawn", _stopped(one)) for one in back)

    def _time_is_over(self) -> None:
        """End at the deadline; on our own stack, let nothing start after its verdict."""
        limit = self._settings.deadline
        over: problems.RunOver = problems.RunDeadline(limit=limit)
        left = self._schedule.close(over)
        if self._settings.send_only:  # what was sent is the workers', and not judged here
            unsent = plural(len(left), "entry")
            raise DispatchError(f"{over.phrase()}, and {unsent} had not been sent yet")
        unread = self._last_poll()
        if self._context.is_private:
            self._recorder.unconfirmed.hold_revoked()
            back = self._withdrawal.take_back(self._settings.grace, "time")
            self._recorder.commit_inferred(
                (one, "timed_out", _taken_back(one, limit)) for one in back
            )
            unread = self._last_poll()
        elif self._search is not None and self._search.is_deserted():
            over = problems.RunDeadlineUnanswered(limit=limit, unread=unread)
            if not self._context.can_ask_workers():
                over = problems.RunDeadlineUnasked(limit=limit, unread=unread)
            self.record_rest("pending", over)
            return
        self.record_rest("timed_out", over.having(unread=unread))

    def record_rest(self, status: VerdictStatus, why: problems.RunOver) -> None:
        """Give every entry that has no verdict this one."""
        dead: list[PendingAttempt] = []
        own: list[PendingAttempt] = []
        for one in self.pending.by_task_id.values():
            unread = bool(self._recorder.unread.reason(one.task_id))
            # Of what is known to be dead, that its time is over is no answer.
            is_judged = status == "timed_out" and one.is_running and not unread
            if is_judged and self._facts.has_died(one):
                dead.append(one)
            elif one.origin is not None or one.stranded or unread:
                own.append(one)
                self._facts.stranded(one)
        self._facts.add(None, run_over(why))
        if not self._context.moves_orphans:
            self._signals.held_by_dead |= any(one.stranded for one in own)
        self._recorder.commit_inferred(
            (one, *self._evaluator.explain_death(one, emptied=False)) for one in dead
        )
        self._recorder.commit_inferred(
            (one, status, why.having(holder=silent_holder(one))) for one in own
        )
        evaluated = self._evaluator.remaining(status, why)
        self._left += len(self.pending)
        self.pending.clear()
        self._recorder.commit(evaluated)

    # Sending

    @property
    def _has_room(self) -> bool:
        return self._sender is not None and self._sender.has_room

    def _send_some(self) -> None:
        self._schedule.forget_ended(self.pending.awaits)
        self._block_beyond_budget()
        if self._sender is not None:
            self._recorder.record_unsent(self._sender.overdue(time.monotonic()), "timed_out")
        if self._sender is not None and self._sender.has_room:
            error = self._sender.send_some()
            self._recorder.record_unsent(self._sender.refused(), "rejected")
            if error is not None:
                self._note_outage(self._sending, error)
            elif self._sending.close() and self._search is not None:
                self._search.schedule(time.monotonic())  # what was uncertain can be looked for
        if self._schedule.exhausted or (self._settings.send_only and self._finished):
            self._signals.all_sent.set()

    def _block_beyond_budget(self) -> None:
        skipped = self._schedule.over_budget()
        if skipped:
            self.ledger.info.set_meta(OVER_BUDGET, skipped[0].why.phrase())
            self._recorder.record_blocked(skipped)

    def _note_outage(self, outage: FailureWindow, error: StackError) -> None:
        """Note a failure of broker or store, and wait; raise ``error`` after OUTAGE_LIMIT."""
        if outage.expired():
            raise error
        self._log.warning("{}; trying again", error)
        self._signals.stop.wait(0.5)

    def _check_stack(self) -> None:
        failure = self._signals.stack_failure()
        if failure is not None:
            raise StackError(failure)
        if self._collector.is_overtaken:
            raise DispatchError(OVERTAKEN)

    # Polling

    def _poll(self) -> None:
        block_ms = 0 if self._has_room else int(POLL_PERIOD * 1000)
        try:
            batch = self._collector.poll(self.pending.by_task_id, block_ms)
        except StackError as error:
            self.pending.postpone_timeouts(time.monotonic())
            self._note_outage(self._polling, error)
            return
        self._polling.close()
        if batch:
            self._absence.seen()
        self._recorder.record_batch(batch)

    # The end

    def _last_poll(self) -> str:
        """Read once more; return why that failed, "" where it did not."""
        try:
            self.poll_once()
        except StackError as error:
            self._log.warning("no last look before the deadline: {}", error)
            return f"{error}"
        return ""

    def _drain(self) -> None:
        """Leave nothing on our own stack that would run again: wait for what is left in its queues.

        And remove what its broker keeps for workers that have ended it, as it has refused their
        acknowledgement: with a full disk it refuses all writes.
        """
        publisher = self._publisher
        if publisher is None or not self._context.is_private or self._settings.send_only:
            return
        until = time.monotonic() + DRAIN
        try:
            while any(publisher.queue_lengths(self._context.queues).values()):
                if time.monotonic() > until or self._signals.stop.wait(POLL_PERIOD):
                    break
                self._poll()
            self._poll()
            locator = self._context.locator
            if locator is None or not (kept := locator.kept()):
                return
            time.sleep(ACKNOWLEDGING)
            there = locator.snapshot(self.ledger.attempts.known([*kept]))
            if not there.maybe_alive:
                refused = {i: t for i, t in there.unacked.items() if not there.has_worker(i)}
                locator.discard(refused)
        except StackError as error:
            self._log.warning("no look for what is left on the broker: {}", error)


def _stopped(job: PendingAttempt) -> Problem:
    """Return the reason for what was revoked when the run was stopped."""
    return problems.StoppedBeforeStart() if job.started is None else problems.StoppedBetweenTries()


def _taken_back(job: PendingAttempt, limit: float) -> Problem:
    """Return the reason for what was taken back when the run's time was over."""
    if job.started is None:
        return problems.RunDeadlineBeforeStart(limit=limit)
    return problems.RunDeadlineBetweenTries(limit=limit)
