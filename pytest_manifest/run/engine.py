"""Run the loop of a run's thread: send, poll, search, and commit before anyone is notified.

And notice that nobody is there to do the work.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from loguru import logger

from pytest_manifest.broker.preflight import Presence
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import OVER_BUDGET
from pytest_manifest.run.connections import EngineContext, FailureWindow, Part
from pytest_manifest.run.fact_log import run_over
from pytest_manifest.run.missing import MissingJobs, Withdrawal, job_search
from pytest_manifest.run.schedule import Sender, Skipped
from pytest_manifest.run.steering import Steering
from pytest_manifest.run.verdict_recorder import VerdictRecorder
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Ended
from pytest_manifest.text import listed, plural
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.inference import AT_THE_END
from pytest_manifest.verdict.problems import RunNobody, RunOver, RunUnanswered, RunUndecodable

FIRST_LOOK: Final = 5.0
"""Seconds without any report after which the workers are looked for."""
LOOKS: Final = 30.0
"""Seconds from one look to the next, at most."""
SHOWN: Final = 3
"""Names that a message lists."""
_UNDECODED: Final = (
    "a worker throws away what it cannot decode (its log says ContentDisallowed), so give it the "
    "app's serializer in accept_content"
)


Ending: TypeAlias = tuple[RunOver, str]
"""How a run ends as nobody is there: the reason of the rest, and what to do."""


class Absence:
    """Watch whether anybody may run the jobs of one run. Use it from one thread.

    A report of any job, a job that runs, and a worker that answers and consumes a queue of the run
    show that somebody is there; one that is connected and silent may be busy.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._limit = context.settings.no_worker
        is_watched = not (context.is_private or context.settings.send_only) and self._limit > 0
        self._look = context.look_for_workers if is_watched else None
        self._has_warned = self._has_noted_idle = False
        self._check_at = 0.0
        self.seen()
        self._look_at = self._seen_at + min(FIRST_LOOK, self._limit / 2)

    def seen(self) -> None:
        """Note that somebody is there."""
        self._seen_at = time.monotonic()
        # When to ask in other formats: twice, as who cannot read that logs each.
        self._ask_after = [self._limit / 2, self._limit]
        self._context.signals.nobody_since = None

    def check(self, now: float) -> Ending | None:
        """Look for workers where it is time; return how the run ends where nobody comes."""
        if self._look is None or now < self._check_at:
            return None
        self._check_at = now + min(1.0, self._limit / 20)  # of all that waits each is looked at
        pending = self._context.pending.by_task_id.values()
        if not pending or any(job.is_running for job in pending):
            self.seen()
            return None
        if now < self._look_at or now - self._seen_at < min(FIRST_LOOK, self._limit / 2):
            return None
        self._look_at = now + min(LOOKS, self._limit / 4)
        try:
            return self._judge(now, self._look())
        except StackError as error:  # the broker is away, which says nothing of the workers
            logger.bind(run=self._context.run).debug("the workers were not looked for: {}", error)
            self._seen_at = max(self._seen_at, now - self._limit / 2)
            return None

    def _judge(self, now: float, found: Presence) -> Ending | None:
        if found.serving:
            self._note_idle(found)
            self.seen()
            return None
        self._context.signals.nobody_since = self._seen_at
        waited = now - self._seen_at
        if found.silent and (ending := self._unreadable(found.silent, waited)):
            return ending
        if waited < self._limit or found.silent is None:
            return None
        return self._silent(found.silent, waited) if found.silent else self._deserted(found)

    def _note_idle(self, found: Presence) -> None:
        """Say once, while no job runs, which queues wait for workers of their own."""
        if found.idle and found.silent == 0 and not self._has_noted_idle:
            self._has_noted_idle = True
            queues = ",".join(found.idle)
            self._context.live_warnings.append(
                f"no worker that answers consumes {listed(list(map(repr, found.idle)), SHOWN)}, "
                f"where jobs of this run go: start one (celery -A APP worker -Q {queues})"
            )

    def _deserted(self, found: Presence) -> Ending:
        queues = ",".join(sorted(self._context.queues))
        names = listed(sorted(found.others), SHOWN) if found.others else ""
        why = RunNobody(limit=self._limit, others=names, queues=queues if names else "")
        advice = (
            f"{why.phrase()}, so the run has ended; its jobs wait in their queue: start a worker "
            f"(celery -A APP worker{queues and f' -Q {queues}'}), then go on with "
            "--manifest-resume; "
            "where workers begin later, give them time with manifest_no_worker = 15m"
        )
        return why, advice

    def _unreadable(self, connected: int, waited: float) -> Ending | None:
        """Ask silent workers in other formats; who answers then cannot decode the run's messages.

        The run ends where that goes for all of them.
        """
        if not self._ask_after or waited < self._ask_after[0]:
            return None
        self._ask_after.pop(0)
        found = self._context.look_for_unreadable()
        if found is None:
            return None
        answered = listed(found.answered, SHOWN)
        why = RunUndecodable(workers=found.workers, answered=answered, format=found.format)
        advice = f"{why.phrase()}: {_UNDECODED}"
        if waited >= self._limit and found.workers >= connected:
            return why, f"{advice}. The run has ended"
        self._warn(advice)
        return None

    def _warn(self, advice: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._context.live_warnings.append(advice)

    def _silent(self, connected: int, waited: float) -> Ending | None:
        """Judge workers that are connected and answer nothing: busy, or unable to decode."""
        gone = self._thrown_away()
        if not gone:
            return None
        longest = max(one.entry.timeout for one in self._context.pending.by_task_id.values())
        why = RunUnanswered(gone=gone, workers=connected)
        advice = f"{why.phrase()}: {_UNDECODED}; or its only process is busy"
        # A worker without a pool runs one job at a time, and answers nothing meanwhile.
        if gone > connected or waited > self._limit + longest:
            return why, f"{advice}. The run has ended"
        self._warn(advice)
        return None

    def _thrown_away(self) -> int:
        """Count the jobs whose message no queue has, no worker names, and the broker keeps for
        none; 0 where the broker does not show that."""
        locator, ids = self._context.locator, frozenset(self._context.pending.by_task_id)
        if locator is None:
            return 0
        look = locator.snapshot(ids)
        if look.blind_spot or look.visibility_timeout is None:
            return 0
        return sum(not look.contains(task_id) for task_id in ids)


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


class Engine(Part):
    """Make one pass through a run's work. Use it from one thread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        context = self._context
        self._settings, self._clock = context.settings, context.clock
        self.ledger, self.pending = context.ledger, context.pending
        self._sender: Sender | None = None
        if context.publisher is not None:
            self._sender = Sender(
                *(context.ledger, context.publisher, context.schedule, context.pending),
                context.window,
                context.facts,
                context.pressure,
                context.clock,
            )
        self._search = job_search(context)
        self._recorder = VerdictRecorder(context, self._search)
        self.corrections, self.poll_once = self._recorder.corrections, self._recorder.poll_once
        self.retried = self._collector.retried
        self._sending, self._polling = FailureWindow(), FailureWindow()
        self._withdrawal = Withdrawal(context, self._recorder, self._poll)
        self.missing = MissingJobs(
            context, self._search, self._recorder, self._sender, self._withdrawal
        )
        self._absence = Absence(context)
        self.limit = self._settings.deadline
        """Seconds that this stretch of the run has."""
        self._began, self._deadline = 0.0, float("inf")
        self._steering = Steering(context, self)
        self._left = 0

    @property
    def given_up(self) -> int:
        """Return how many attempts were judged as time was over: a worker may have them, or get
        them yet."""
        return self._left + self.missing.given_up

    @property
    def _finished(self) -> bool:
        if self._settings.send_only:
            return self._schedule.exhausted
        return self._schedule.exhausted and not (self.pending or self.pending.held)

    def work(self) -> None:
        """Send and poll until every entry has its verdict, time is over, or it is stopped.

        Raises StackError where broker or result store stay out of reach, or the stack has ended.
        """
        self.begin()
        while not self._signals.stop.is_set():
            began = time.monotonic()
            if self.step():
                break
            if not self._has_room:
                self._signals.stop.wait(max(0.0, POLL_PERIOD - (time.monotonic() - began)))
        else:
            self.end()
        self._context.pressure.end()

    def begin(self) -> None:
        """Sort what is to be sent; before the first :meth:`step`."""
        self._began = time.monotonic()
        self.set_deadline(self.limit)
        attempts = self.pending.attempts()
        self._schedule.count_in_flight(attempts)
        self._recorder.record_blocked(self._schedule.start([one.entry.id for one in attempts]))
        self._recorder.record_complete_trees()
        self._steering.begin()

    def step(self) -> bool:
        """Go round once: send, poll, handle what is missing; return whether the work is done."""
        self._check_stack()
        self._clock.look()
        self._steering.step()
        if self._signals.stop.is_set():
            return False
        self._send_some()
        if self._finished:
            self._drain()
            return True
        self._poll()
        self.missing.check(time.monotonic())
        if ending := self._absence.check(time.monotonic()):
            why, advice = ending
            self._schedule.close(why)
            self.record_rest(why)
            self._context.warnings.append(advice)
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

    # What operators ask for

    @property
    def sends(self) -> bool:
        """Return whether this session publishes messages."""
        return self._sender is not None

    @property
    def time_left(self) -> float:
        """Return the seconds until the run's deadline."""
        return max(self._deadline - time.monotonic(), 0.0)

    def set_deadline(self, limit: float) -> None:
        """Have this stretch of the run end after so many seconds from its beginning."""
        self.limit, self._deadline = limit, self._began + limit
        self._context.wait_budget.end_at(self._deadline)

    def set_window(self, window: int) -> None:
        """Have at most so many entries in flight from now on."""
        assert self._sender is not None
        self._sender.set_window(window)

    def withhold(self, skipped: Sequence[Skipped]) -> None:
        """Record the verdicts of what will not be sent."""
        self._recorder.record_blocked(skipped)

    def cancel(self, task_ids: Collection[str], *, running: bool) -> None:
        """Take back those of these jobs that wait, and have the workers drop the others.

        ``running``: and end what runs. It is judged by what is reported of it.
        """
        if running:
            self._recorder.revoke(dict.fromkeys(task_ids, "operator"), terminate=True)
        back = self._withdrawal.take_back(0.0, "operator", frozenset(task_ids))
        self._recorder.record_judged(back)
        certain = set(back) if self._context.is_private else set[str]()
        self._recorder.keep_revoked(set(task_ids) - certain)

    def note_told(self, before: Mapping[str, VerdictStatus]) -> None:
        """Note the verdicts that were reported of what an operator has decided otherwise about."""
        self._recorder.told_before.update(before)
        self._signals.repeats = len(self._recorder.told_before)

    # Its end

    def send_nothing(self) -> None:
        """Close the schedule: no attempt follows from what is found."""
        self._schedule.close(problems.LookedAt())

    def wind_down(self) -> bool:
        """Take back what waits after a stop; await what runs, where a person stopped the run.

        Return whether the workers hear of that, where it matters: what has ended meanwhile is over.
        """
        self._recorder.unconfirmed.hold_revoked()  # what a worker drops now the run has taken back
        by_a_person = self._signals.interrupted.is_set()
        back = self._withdrawal.take_back(self._settings.grace if by_a_person else 0.0, "stop")
        self._recorder.record_judged(back)
        return self._withdrawal.untold.isdisjoint(self.pending.by_task_id)

    def _time_is_over(self) -> None:
        """End at the deadline; on our own stack, let nothing start after its verdict."""
        limit = self.limit
        over: problems.RunOver = problems.RunDeadline(limit=limit)
        left = self._schedule.close(over)
        if self._settings.send_only:  # what was sent is the workers', and not judged here
            unsent = plural(len(left), "entry")
            raise DispatchError(f"{over.phrase()}, and {unsent} had not been sent yet")
        unread = self._last_poll()
        if self._context.is_private:
            self._recorder.unconfirmed.hold_revoked()
            self._recorder.record_judged(self._withdrawal.take_back(self._settings.grace, "time"))
            unread = self._last_poll()
        elif self._search is not None and self._search.is_deserted():
            over = problems.RunDeadlineUnanswered(limit=limit, unread=unread)
            if not self._context.can_ask_workers():
                over = problems.RunDeadlineUnasked(limit=limit, unread=unread)
            self.record_rest(over)
            return
        self.record_rest(over.having(unread=unread))

    def record_rest(self, why: problems.RunOver) -> None:
        """Record a verdict of every entry that has none, as the run is over."""
        over = run_over(why)
        status, _ = AT_THE_END[over.why]
        for one in self.pending.by_task_id.values():
            # Of what is known to be dead, that its time is over is no answer.
            if status == "timed_out" and one.is_running:
                self._facts.has_died(one)
            self._facts.stranded(one)
            if not self._context.moves_orphans:
                self._signals.held_by_dead |= one.stranded
        self._facts.add(None, over)
        self._left += len(self.pending)
        self._recorder.record_rest(status, why)

    # Sending

    @property
    def _has_room(self) -> bool:
        return self._sender is not None and self._sender.has_room

    def _send_some(self) -> None:
        self._schedule.forget_ended(self.pending.awaits)
        self._context.pressure.look(is_sending=not self._schedule.exhausted)
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
        level = "WARNING" if outage.is_news(f"{error}") else "DEBUG"
        self._log.log(level, "{}; trying again", error)
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
        if self._polling.close():
            self._log.info("the result store answers again")
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
            if locator is None or not (held := locator.kept()):
                return
            time.sleep(ACKNOWLEDGING)
            there = locator.snapshot(self.ledger.attempts.known([*held]))
            if not there.maybe_alive:
                ended = self.ledger.events.each(Ended, [*there.unacked])
                kept = {i: there.unacked[i] for i in ended if not there.has_worker(i)}
                locator.discard(kept)
        except StackError as error:
            self._log.warning("no look for what is left on the broker: {}", error)
