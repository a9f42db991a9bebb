"""Looking for jobs that nobody speaks of: when to look, and what two looks together say."""

from __future__ import annotations

import heapq
import time
from dataclasses import replace

from loguru import logger

from pytest_manifest.broker.locating import (
    BrokerSnapshot,
    JobLocations,
    Locator,
    StartedOn,
    compare,
)
from pytest_manifest.errors import StackError
from pytest_manifest.run.pending import PendingAttempt, PendingAttempts
from pytest_manifest.run.stranded import StrandedJobs
from pytest_manifest.schema.identity import has_ended, means_the_same_here

SNAPSHOT_GAP = 1.0
"""Seconds between the two looks: what is on its way from one place to the next arrives in them."""
AFTER_LOSS = (0.5, 2.0, 5.0, 10.0, 20.0)
"""Seconds after a worker's death at which to look: its successor may be up and answer by then."""
QUIET = 5.0
"""Seconds without any news after which the stack is asked where the jobs are."""
LONGEST_QUIET = 30.0
SILENCE = 60.0
"""Seconds that a node may be silent beyond the longest timeout before it counts as gone: one whose
only process runs a job answers nothing meanwhile, one that was renamed will never answer."""
RETRY_AFTER = 2.0
"""Seconds until the next look after one that did not succeed."""


class JobSearch:
    """Two looks at the places where a job can be, with a gap. Use it from one thread."""

    def __init__(
        self, locator: Locator, pending: PendingAttempts, stranded: StrandedJobs | None = None
    ) -> None:
        self._stranded = stranded
        self._locator = locator
        self._pending = pending
        self._first: tuple[float, BrokerSnapshot, frozenset[str]] | None = None
        self._due: list[float] = []
        self._quiet = QUIET
        self._news_at = time.monotonic()
        self._silent_since: dict[str, float] = {}

    def reset_quiet(self, now: float) -> None:
        """Something was heard: jobs are on their way."""
        self._news_at, self._quiet = now, QUIET

    def schedule(self, now: float, *after: float) -> None:
        """Look at these moments, seconds from now, whatever is heard meanwhile."""
        for seconds in after or (0.0,):
            heapq.heappush(self._due, now + seconds)

    def tick(self, now: float) -> JobLocations | None:
        """Take a look where it is time for one; after a second look, what the two say."""
        if not self._pending:
            return None
        if self._first is not None:
            return self._take_second() if now >= self._first[0] + SNAPSHOT_GAP else None
        if self._is_due(now):
            self._take_first()
        return None

    def search_now(self) -> JobLocations:
        """Both looks at once, waiting for the gap. Raises StackError where the broker is away."""
        ids = frozenset(self._pending.by_task_id)
        first = self._locator.snapshot(ids)
        time.sleep(SNAPSHOT_GAP)
        return self._compare(first, self._locator.snapshot(ids), ids)

    def is_deserted(self) -> bool:
        """Whether all that is out waits in its queue, and no worker at all answers.

        Where the broker does not show what waits, it is what nobody has begun.
        """
        pending = self._pending.by_task_id
        if any(job.started is not None for job in pending.values()):
            return False
        look = self._snapshot(frozenset(pending))
        if look is None or look.answered or look.running or look.reserved:
            return False
        return bool(look.blind_spot) or look.queued.keys() == pending.keys()

    def _is_due(self, now: float) -> bool:
        if self._due and self._due[0] <= now:
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
            return True
        if now - self._news_at < self._quiet:
            return False
        self._news_at, self._quiet = now, min(2 * self._quiet, LONGEST_QUIET)
        return True

    def _take_first(self) -> None:
        ids = frozenset(self._pending.by_task_id)
        look = self._snapshot(ids)
        if look is not None:
            self._first = (time.monotonic(), look, ids)

    def _take_second(self) -> JobLocations | None:
        assert self._first is not None
        _, first, seen = self._first
        self._first = None
        ids = frozenset(self._pending.by_task_id) & seen
        look = self._snapshot(ids)
        return None if look is None else self._compare(first, look, ids)

    def _compare(
        self, first: BrokerSnapshot, second: BrokerSnapshot, ids: frozenset[str]
    ) -> JobLocations:
        if self._stranded is not None:
            self._stranded.update(first, second)
        first, second = self._with_starters(first, ids), self._with_starters(second, ids)
        gone = self._gone(second)
        first = replace(first, unresponsive=first.unresponsive - gone)
        second = replace(second, unresponsive=second.unresponsive - gone)
        elsewhere = self._pending.elsewhere() & ids
        located = compare(first, second, ids - elsewhere, started=self._starts(ids))
        # Other messages carry these, under ids that nobody here knows.
        located = replace(located, unknown=located.unknown | elsewhere)
        if first.answered and second.answered:
            return located
        # Where no worker answers at all, nobody has said what they hold.
        silent = located.missing | frozenset(located.unacked_by_dead)
        return replace(
            located, missing=frozenset(), unacked_by_dead={}, unknown=located.unknown | silent
        )

    def _with_starters(self, look: BrokerSnapshot, ids: frozenset[str]) -> BrokerSnapshot:
        """The look with every node that has begun one of these jobs and is not known to be gone: a
        session that has found others at its start would take its silence for nothing."""
        began = {
            start.worker
            for start in self._starts(ids).values()
            if start.alive is not False and start.worker is not None
        }
        return replace(look, unresponsive=look.unresponsive | (began - look.answered))

    def _snapshot(self, ids: frozenset[str]) -> BrokerSnapshot | None:
        try:
            return self._locator.snapshot(ids)
        except StackError as error:  # the broker is away: there is a next time
            logger.warning("the jobs could not be looked for: {}", error)
            self.schedule(time.monotonic(), RETRY_AFTER)
            return None

    def _gone(self, look: BrokerSnapshot) -> frozenset[str]:
        """The nodes that have been silent for longer than any job would keep them."""
        now = time.monotonic()
        since = {node: self._silent_since.get(node, now) for node in look.unresponsive}
        self._silent_since = since
        pending = self._pending.by_task_id.values()
        longest = max((self._pending.with_own_limit(f.entry).timeout for f in pending), default=0.0)
        return frozenset(node for node, t in since.items() if now - t > longest + SILENCE)

    def _starts(self, ids: frozenset[str]) -> dict[str, StartedOn]:
        pending = (self._pending.by_task_id[i] for i in ids)
        # Between two tries any worker may hold the message: which one ran the last says nothing.
        return {f.task_id: StartedOn(f.worker, is_alive(f)) for f in pending if f.is_running}


def is_alive(job: PendingAttempt) -> bool | None:
    """Whether the process that began the job still is; None where that cannot be told from here."""
    here = means_the_same_here(job.host, job.boot, job.pid_namespace)
    if job.pid is None or not here:
        return None if job.loss is None else False
    return not has_ended(job.pid)
