"""Handle jobs that no worker reports any more: requeue, send again, or give them up.

And take back what waits when a run is to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loguru import logger

from pytest_manifest.broker.locating.base import BrokerSnapshot, JobLocations
from pytest_manifest.errors import StackError
from pytest_manifest.run.connections import EngineContext, Part
from pytest_manifest.run.fact_log import stamp, was_emptied
from pytest_manifest.run.inflight import Overdue, PendingAttempt, StrandedJobs
from pytest_manifest.run.schedule import Sender
from pytest_manifest.run.search import AFTER_LOSS, RETRY_AFTER, Handling, JobSearch
from pytest_manifest.run.verdict_recorder import VerdictRecorder
from pytest_manifest.schema.facts import Moved, RecallReason
from pytest_manifest.schema.run_facts import RunFacts
from pytest_manifest.text import listed, plural
from pytest_manifest.verdict.belief import is_revocation_notice
from pytest_manifest.verdict.case import reports_starts

POLL_PERIOD = 0.05
"""Seconds from one poll to the next while running jobs are waited for."""
START_DELAY = 0.3
"""Seconds within which a job that a worker holds, and whose turn it is, has started."""


@dataclass(eq=False)
class Withdrawal(Part):
    """Take back jobs of one run, in its thread.

    ``poll`` reads what workers report next.
    """

    _recorder: VerdictRecorder
    _poll: Callable[[], None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._force_stop = self._signals.force_stop
        self._is_private = self._context.is_private
        self.untold: set[str] = set()
        """What could not be revoked the last time: the broker was away."""

    def take_back(
        self, seconds: float, why: RecallReason, chosen: Container[str] | None = None
    ) -> Collection[str]:
        """Take back what waits, and await what runs for so many seconds; return what is taken back.

        A job that no worker has started, now that all of them know that it is revoked, never will
        be: not what could not be revoked, as the broker was away. ``chosen``: task ids; None: all.
        """
        revoked = self._waiting(chosen)
        untold = self._revoke(revoked, why)
        removed = self._withdraw(revoked, why)
        if seconds:
            self._await_running(seconds)
            # What runs may have started others meanwhile.
            while fresh := self._waiting(chosen) - revoked:
                revoked |= fresh
                untold |= self._revoke(fresh, why)
                removed |= self._withdraw(fresh, why)
                self._poll()
        self.untold = untold = self._revoke(untold, why) - removed
        asked = set(self._pending.by_task_id) if chosen is None else revoked
        started = (self._started_or_unknown(asked, removed) | untold) - self._dropped()
        left = self._waiting(chosen) - started
        if why == "operator" and not self._is_private:
            # A worker that starts later knows of no revocation: only what is out of the queue, or
            # was dropped, is certain. All else is judged by what is reported of it.
            left &= removed | self._dropped()
        back = [self._pending.by_task_id[task_id] for task_id in left]
        for job in back:
            self._facts.recalled(job.task_id, why, "heard", job.entry.id)
        # A broker of others may give the rest to a worker that heard of no revocation.
        out = [job for job in back if self._is_private or job.task_id in removed]
        self._mark_withdrawn([job for job in out if job.started is None], why)
        return left

    def _revoke(self, task_ids: Collection[str], why: RecallReason) -> set[str]:
        """Have the workers drop these; return those that none hears of, as the broker is away."""
        is_told = self._recorder.revoke(dict.fromkeys(task_ids, why))
        return set() if is_told else set(task_ids)

    def withdraw_overdue(self, task_ids: Collection[str]) -> None:
        """Withdraw from our own stack's queues what an entry's own deadline leaves there."""
        waiting = self._pending.waiting().intersection(task_ids)
        if self._is_private and waiting:
            self._recorder.revoke(dict.fromkeys(waiting, "deadline"))
            removed = self._withdraw(waiting, "deadline")
            if removed and self._has_read_reports():  # of another copy of it, say
                removed &= self._pending.unstarted()
                self._mark_withdrawn([self._pending.by_task_id[i] for i in removed], "deadline")

    def _withdraw(self, task_ids: Collection[str], why: RecallReason) -> set[str]:
        """Take these out of their queues where the broker shows them: on a broker of others only
        what an operator has asked for."""
        may = self._is_private or why == "operator"
        if self._locator is None or not may or not task_ids:
            return set()
        try:
            return set(self._locator.withdraw(task_ids))
        except StackError as error:
            logger.warning("what is queued could not be removed: {}", error)
            return set()

    def _dropped(self) -> set[str]:
        """Return what the worker that had it says that it revoked, before it began it."""
        return {
            task_id
            for task_id, job in self._pending.by_task_id.items()
            if job.unconfirmed is not None
            and job.unconfirmed.state == "revoked"
            and not is_revocation_notice(job.unconfirmed)
        }

    def _mark_withdrawn(self, jobs: Sequence[PendingAttempt], why: RecallReason) -> None:
        """Record that no worker has begun these; a store that was emptied may have lost a start,
        of a try before the one that is taken back."""
        if was_emptied(self._context.ledger.jobs.run_facts()):
            return
        for job in jobs:
            self._facts.recalled(job.task_id, why, "withdrawn", job.entry.id)
        with self._ledger.transaction():
            self._facts.write()
            self._ledger.attempts.mark((job.task_id for job in jobs), "withdrawn")

    def _await_running(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._force_stop.is_set():
            self._poll()
            idle = len(self._pending.waiting()) + len(self._pending.out_of_sight())
            started = len(self._pending) > idle
            if not started and not self._started_or_unknown(set(self._pending.by_task_id)):
                return
            self._force_stop.wait(POLL_PERIOD)

    def _waiting(self, chosen: Container[str] | None) -> set[str]:
        """Return the task ids of what waits for a worker, of those that are ``chosen``."""
        waiting = self._pending.waiting()
        return waiting if chosen is None else {one for one in waiting if one in chosen}

    def _started_or_unknown(
        self, everything: set[str], removed: Collection[str] = frozenset()
    ) -> set[str]:
        """Return which of these a worker runs, or may run; queried after the revocation, which all
        have heard.

        ``removed``: what was taken out of its queue, so that no silent worker gets it. Only once
        all reports are read is it known that no other copy of its message had begun.
        """
        if self._locator is None or not everything:
            return everything
        try:
            look = self._snapshot(everything)
        except StackError as error:
            logger.warning("what runs could not be asked for: {}", error)
            return everything
        if not self._has_read_reports():
            return everything
        if look.unresponsive or not look.answered:
            return everything.difference(removed)
        return set(look.running)

    def _has_read_reports(self) -> bool:
        """Read what workers report to the end; return whether nothing of it can be missing."""
        try:
            # An emptied store may lack starts.
            return read_reports(self._recorder, self._context) is not False
        except StackError as error:
            logger.warning("the reports could not be read to their end: {}", error)
            return False

    def _snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        assert self._locator is not None
        look = self._locator.snapshot(task_ids)
        if look.reserved:
            # One of them may be on its way to a process that has a free hand, past all questions
            # for revocations; what is still held after that waits for its turn, and will be asked.
            self._force_stop.wait(START_DELAY)
            look = self._locator.snapshot(task_ids)
        return look


UNSAFE_REPAIR: Final = "--manifest-resume=unsafe --manifest-repair"
SEARCHING = 15.0
"""Seconds to search for an overdue job whose process is dead before it is judged all the same."""


def job_search(context: EngineContext) -> JobSearch | None:
    """Make the search for an engine's pending jobs; None where it has no locator."""
    if context.locator is None:
        return None
    allowed = context.moves_orphans
    stranded = StrandedJobs(
        *(context.pending, context.live_warnings),
        allowed=allowed,
        repairs=lambda held: bool(held - may_run_twice(context, held)),
    )
    retried = context.collector.retried
    return JobSearch(context.locator, context.pending, stranded, context.departures, retried)


@dataclass(eq=False)
class MissingJobs(Part):
    """Find and settle the jobs of one run that are overdue or missing. Use it from one thread."""

    _search: JobSearch | None
    _recorder: VerdictRecorder
    _sender: Sender | None
    _withdrawal: Withdrawal

    def __post_init__(self) -> None:
        super().__post_init__()
        self._said: dict[str, str] = {}
        self.not_requeued: frozenset[str] = frozenset()
        """Task ids that were not requeued, though allowed, as they may have been started."""
        if self._sender is not None:
            self._recorder.resend = self._sender.resend
        self._searched_for: set[tuple[str, float | None]] = set()
        """Task ids and starts of overdue jobs whose process is dead, and that were searched for."""
        self._elsewhere = frozenset[str]()
        self.given_up = 0
        """Attempts that were judged as their time was over; a worker may have them, or get them
        yet."""

    def check(self, now: float) -> None:
        """Judge the jobs that no worker reports any more, so far as it is their time."""
        self._recorder.remind_workers(now)
        if self._recorder.deaths.check(now) and self._search is not None:
            self._search.schedule(now, *AFTER_LOSS)
        self._give_up_overdue(now)
        if self._search is not None:
            self._search.beat(now)
            located = self._search.tick(now)
            if self._context.departures.has_news:
                self._context.departures.keep(self._context.ledger.info)
            if located is not None:
                self.act_on(located)

    def act_on(self, located: JobLocations, search: JobSearch | None = None) -> None:
        """Requeue, discard, send again or give up what the snapshots of a search located.

        ``search``: where it was not the engine's own.
        """
        if not self._context.moves_orphans:
            held = located.unacked_by_dead.keys() & self._pending.by_task_id.keys()
            self._context.signals.held_by_dead = bool(held - may_run_twice(self._context, held))
        self._note_elsewhere(search or self._search)
        if not (located.unacked_by_dead or located.missing):
            return
        as_of = self._facts.last_seq()
        self.confirm(located, as_of, search or self._search)
        try:
            self.read_reports()
            self._context.record_unknown_workers()
            started = self.requeue(located)
            missing = {*located.missing, *self.take_out_doubtful(located)}
        except StackError as error:
            self._log.warning("what was found could not be mended: {}", error)
            if self._search is not None:
                self._search.schedule(time.monotonic(), RETRY_AFTER)
            return
        self.note_search(search or self._search, located, as_of, missing)
        self._recorder.record_judged([*started, *missing])

    def _note_elsewhere(self, search: JobSearch | None) -> None:
        """Say what waits for its next try in a queue that the run does not know."""
        waiting = frozenset() if search is None else search.waits_elsewhere
        names = sorted(self._pending.by_task_id[i].entry.id for i in waiting - self._elsewhere)
        self._elsewhere |= waiting
        if names:
            self._context.live_warnings.append(
                f"{plural(len(names), 'job')}, {names[0]!r} first, asked for a retry, as the "
                "result store says, and no queue of the run and no worker has it: it waits in a "
                "queue that the run does not know, until a worker of that takes it"
            )

    def note_search(
        self, search: JobSearch | None, located: JobLocations, as_of: int, missing: Iterable[str]
    ) -> None:
        """Add a search that has found these in no place; ``as_of``: see ``facts.Nowhere``."""
        pending = self._pending.by_task_id
        jobs = [pending[task_id] for task_id in missing if task_id in pending]
        if jobs and search is not None and search.looks is not None:
            self._facts.searched(search.looks, located, as_of, jobs)

    def read_reports(self) -> bool | None:
        """Read what was told by the second snapshot, before anything is moved or judged by it.

        Returns and raises what :func:`read_reports` does.
        """
        return read_reports(self._recorder, self._context)

    def confirm(self, located: JobLocations, as_of: int, search: JobSearch | None) -> None:
        """Count what the store alone reports of what is missing; see :class:`UnconfirmedEnds`."""
        ended = self._recorder.unconfirmed.confirm_missing(located.missing)
        self.note_search(search, located, as_of, ended)

    def unconfirmed(self, located: JobLocations) -> list[str]:
        """Return what is missing and has ended since, by the store alone: it is searched again."""
        return list(filter(self._recorder.unconfirmed.is_to_be_confirmed, located.missing))

    def _give_up_overdue(self, now: float) -> None:
        overdue = self._pending.overdue(now)
        if not overdue:
            return
        try:
            # Once more, for a receipt that is there and has only not been read yet.
            self._recorder.read_all({i: o.job for i, o in overdue.items()})
        except StackError as error:
            self._log.warning("no last look for overdue jobs: {}", error)
        as_of = self._facts.last_seq()
        for task_id in self._given_back(overdue):
            job = overdue.pop(task_id).job
            self._facts.seen(job, "queue", as_of)
            self._pending.count_time(job, now)
        self._spare_dead(overdue, now)
        self._withdrawal.withdraw_overdue(overdue)
        pending = self._pending.by_task_id
        late = {i: o for i, o in overdue.items() if i in pending}
        for one in late.values():
            self._facts.stranded(one.job)
            entry = self._pending.with_own_limit(one.job)
            self._facts.time_over(one, entry.timeout if one.by_start else entry.deadline or 0.0)
        self._recorder.record_judged(late)
        self.given_up += sum(task_id not in pending for task_id in late)

    def _spare_dead(self, overdue: dict[str, Overdue], now: float) -> None:
        """Search first for what is overdue, and whose process is known to be dead.

        What its worker had not acknowledged is taken out of the broker.
        """
        for task_id, one in list(overdue.items()):
            if not one.by_start or not self._facts.has_died(one.job):
                continue
            turn = task_id, one.job.started
            if self._search is not None and turn not in self._searched_for:
                self._searched_for.add(turn)
                self._search.schedule(now)
                self._pending.count_time(overdue.pop(task_id).job, now, SEARCHING)

    def _given_back(self, overdue: Mapping[str, Overdue]) -> Collection[str]:
        """Return which of these do not run too long, but wait for a worker once more.

        The broker has delivered them again, as their process had died. A deadline counts on.
        """
        if self._search is None:
            return ()
        pending = self._pending.by_task_id
        return self._search.waiting([i for i, o in overdue.items() if o.by_start and i in pending])

    # What dead workers had taken

    def requeue(self, located: JobLocations) -> list[str]:
        """Requeue what a dead worker had taken and not started, and discard what it had started.

        Returns the task ids that had been started, and that no worker will run any more; where
        nothing may be moved, all that had been started. Raises StackError where the broker is away.
        """
        if self._locator is None:
            return []
        orphans = {
            i: tags for i, tags in located.unacked_by_dead.items() if i in self._pending.by_task_id
        }
        started = {i: t for i, t in orphans.items() if self._pending.by_task_id[i].is_running}
        waiting = {i: t for i, t in orphans.items() if i not in started}
        if not self._context.moves_orphans:
            if waiting:
                helps = waiting.keys() > may_run_twice(self._context, waiting)
                back = "when its visibility timeout is over"
                back += ", --manifest-repair at once" if helps else ""
                self._warn("given back", waiting, f"; the broker gives them back {back}")
            self._note(started, "left")
            return list(started)
        self.not_requeued = self._not_to_be_repeated(waiting)
        waiting = {i: tags for i, tags in waiting.items() if i not in self.not_requeued}
        restored = self._locator.restore(waiting, self._begun(waiting)) if waiting else []
        self._note(restored, "put_back")
        for task_id in restored:
            entry = self._pending.by_task_id[task_id].entry.id
            logger.bind(entry=entry).info(
                "a worker died before it began {!r}; it is back in its queue", entry
            )
        # What the broker has given to another worker meanwhile is not ours to judge.
        discarded = self._locator.discard(started) if started else []
        self._note(discarded, "taken_out")
        return discarded

    def _begun(self, task_ids: Iterable[str]) -> dict[str, int]:
        """Map those of these that were handed on -> up to which retry they have begun.

        Of a task that acknowledges late its worker had that message, too, as it died.
        """
        jobs = (self._pending.by_task_id[task_id] for task_id in task_ids)
        return {
            job.task_id: job.start.retries
            for job in jobs
            if job.start is not None and job.between is not None and job.between.how == "retry"
        }

    def take_out_doubtful(self, located: JobLocations) -> list[str]:
        """Remove from our own stack what dead workers had and may have begun; return what it was.

        The broker would give it to another worker one day.
        """
        if self._locator is None or not self._context.is_private or not self.not_requeued:
            return []
        tags = {i: located.unacked_by_dead[i] for i in self.not_requeued}
        removed = self._locator.discard(tags)
        self._note(removed, "taken_out")
        return removed

    def _note(self, task_ids: Iterable[str], how: Handling) -> None:
        for task_id in task_ids:
            self._facts.has_died(self._pending.by_task_id[task_id])
            fact = Moved(**stamp(task_id), how=how)
            self._facts.of(self._pending.by_task_id[task_id], fact)

    def _not_to_be_repeated(self, waiting: Iterable[str]) -> frozenset[str]:
        once = may_run_twice(self._context, waiting)
        if once:
            self._warn(
                "not put back",
                once,
                f", and may have begun them, as {why_started_unknown(self._context)}; they are not "
                "put back, but the broker does so when its visibility timeout is over; "
                f"{UNSAFE_REPAIR} puts them back at once",
            )
        return once

    def _warn(self, kind: str, orphans: Iterable[str], what: str) -> None:
        names = sorted(self._pending.by_task_id[task_id].entry.id for task_id in orphans)
        jobs = f"{plural(len(names), 'job')}, {names[0]!r} first"
        sentence = f"a worker that is gone holds {jobs}{what}"
        warnings, before = self._context.warnings, self._said.get(kind)
        if before in warnings:  # the newest count stands for those before it
            warnings.remove(before)
        self._said[kind] = sentence
        if sentence not in warnings:  # as another search of this session has said it
            warnings.append(sentence)
            self._context.live_warnings += [] if before else [sentence]


def read_reports(recorder: VerdictRecorder, context: EngineContext) -> bool | None:
    """Read what workers have reported to the end.

    Returns whether all of that was there, see ``EngineContext.look_at_store``. Raises StackError
    where the store cannot be reached.
    """
    recorder.poll_once()
    is_intact = context.look_at_store()
    if is_intact is False:
        recorder.poll_once()  # what an emptied store has had reported since
    return is_intact


def may_run_twice(context: EngineContext, held: Iterable[str]) -> frozenset[str]:
    """Return which of these jobs that dead workers hold may have begun, and must not run twice."""
    if context.settings.unsafe and not context.is_private:
        return frozenset()
    pending = context.pending.by_task_id
    once = frozenset(i for i in held if not pending[i].entry.idempotent)
    return once if once and why_started_unknown(context) else frozenset()


def why_started_unknown(context: EngineContext) -> str:
    """Return why a job may have started unreported, "" where none may; our own workers report every
    start, but a store that was emptied has lost what they reported."""
    known = context.ledger.jobs.run_facts()
    if context.is_private and not was_emptied(known):
        return ""
    return why_starts_may_lack(known)


def why_starts_may_lack(run: RunFacts) -> str:
    """Return a phrase that says why a start may be unreported; "" where none can be."""
    if reports_starts(run):
        return ""
    if was_emptied(run):
        return "the result store has lost what workers had reported"
    if any(one.why == "gave_up" for one in run.overs):
        return "a session of this run gave up, and may have missed reports"
    if any(one.what == "other_broker" for one in run.places):
        return "the run was searched for on another broker once"
    if any(one.what == "nobody" for one in run.nodes):
        return "no worker had answered when the jobs were sent, so it is not known who had them"
    stock = [one.name for one in run.nodes if one.what == "stock"]
    stock += [f"any worker of queue {one.name!r}" for one in run.nodes if one.what == "unserved"]
    if stock:
        return f"of {', '.join(sorted(set(stock)))} it is not known when it begins a job"
    names = {one.name for one in run.nodes if one.what == "silent"}
    names -= {one.name for one in run.nodes if one.what == "reports"}
    return f"of {listed(sorted(names), 3)} nothing is known but the name"
