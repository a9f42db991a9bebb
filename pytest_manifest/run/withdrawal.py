"""Take back what was sent: when a run ends before its work, or an entry's time is over.

A verdict must not be followed by the job that it is about. Workers that hear of a revocation drop
what they are handed; but one that started since knows of none, so on our own stack the messages
leave the queues, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from loguru import logger

from pytest_manifest.broker.locating import BrokerSnapshot
from pytest_manifest.errors import StackError
from pytest_manifest.run.context import EngineContext
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.schema.facts import RecallReason
from pytest_manifest.verdict.belief import is_revocation_notice

POLL_PERIOD = 0.05
"""Seconds from one poll to the next while running jobs are waited for."""
START_DELAY = 0.3
"""Seconds within which a job that a worker holds, and whose turn it is, has started."""


class Withdrawal:
    """Take back jobs of one run, in its thread.

    ``revoke`` casts to the workers, by task id and reason, ``poll`` reads what they report next and
    ``read_all`` all that is there; ``intact`` returns whether the store still has all of it.
    """

    def __init__(
        self,
        context: EngineContext,
        revoke: Callable[[Mapping[str, RecallReason]], None],
        poll: Callable[[], None],
        read_all: Callable[[], None],
        intact: Callable[[], bool | None],
    ) -> None:
        self._locator = context.locator
        self._pending = context.pending
        self._ledger = context.ledger
        self._facts = context.facts
        self._force_stop = context.signals.force_stop
        self._is_private = context.is_private
        self._revoke = revoke
        self._poll = poll
        self._read_all = read_all
        self._intact = intact

    def take_back(self, seconds: float, why: RecallReason) -> Collection[str]:
        """Take back what waits, and await what runs for so many seconds; return what is taken back.

        A job that no worker has started, now that all of them know that it is revoked, never will
        be.
        """
        revoked = self._pending.waiting()
        self._revoke(dict.fromkeys(revoked, why))
        removed = self._withdraw(revoked)
        if seconds:
            self._await_running(seconds)
            # What runs may have started others meanwhile.
            while fresh := self._pending.waiting() - revoked:
                revoked |= fresh
                self._revoke(dict.fromkeys(fresh, why))
                removed |= self._withdraw(fresh)
                self._poll()
        started = self._started_or_unknown() - removed - self._dropped()
        left = self._pending.waiting() - started
        back = [self._pending.by_task_id[task_id] for task_id in left]
        for job in back:
            self._facts.recalled(job.task_id, why, "heard", job.entry.id)
        if (
            self._is_private
        ):  # a broker of others may give it to a worker that heard of no revocation
            self._mark_withdrawn([job for job in back if job.started is None], why)
        return left

    def withdraw_overdue(self, task_ids: Collection[str]) -> None:
        """Withdraw from our own stack's queues what an entry's own deadline leaves there."""
        waiting = self._pending.waiting().intersection(task_ids)
        if self._is_private and waiting:
            self._revoke(dict.fromkeys(waiting, "deadline"))
            removed = self._withdraw(waiting) & self._pending.unstarted()
            self._mark_withdrawn([self._pending.by_task_id[i] for i in removed], "deadline")

    def _withdraw(self, task_ids: Collection[str]) -> set[str]:
        if self._locator is None or not self._is_private or not task_ids:
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
            if not started and not self._started_or_unknown():
                return
            self._force_stop.wait(POLL_PERIOD)

    def _started_or_unknown(self) -> set[str]:
        """Return what a worker runs, or may run; queried after the revocation, which all have
        heard."""
        everything = set(self._pending.by_task_id)
        if self._locator is None or not everything:
            return everything
        try:
            look = self._snapshot(everything)
            self._read_all()  # to the end, and not in silence where that cannot be done
            intact = self._intact()
        except StackError as error:
            logger.warning("what runs could not be asked for: {}", error)
            return everything
        if look.unresponsive or not look.answered or intact is False:
            return everything  # an emptied store may have lost starts
        return set(look.running)

    def _snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        assert self._locator is not None
        look = self._locator.snapshot(task_ids)
        if look.reserved:
            # One of them may be on its way to a process that has a free hand, past all questions
            # for revocations; what is still held after that waits for its turn, and will be asked.
            self._force_stop.wait(START_DELAY)
            look = self._locator.snapshot(task_ids)
        return look
