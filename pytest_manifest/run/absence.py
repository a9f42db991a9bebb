"""Notice that nobody is there: no worker answers, and no job of the run runs, for a while."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from loguru import logger

from pytest_manifest.broker.preflight import Presence
from pytest_manifest.errors import StackError
from pytest_manifest.run.context import EngineContext
from pytest_manifest.text import listed
from pytest_manifest.verdict.problems import RunNobody, RunOver, RunUnanswered, RunUndecodable

FIRST_LOOK: Final = 5.0
"""Seconds without any report after which the workers are looked for."""
LOOKS: Final = 30.0
"""Seconds from one look to the next, at most."""
SHOWN: Final = 3
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a run as nobody is there: the reason of the rest, and what to do."""

    why: RunOver
    advice: str


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
        self._seen_at = time.monotonic()
        self._look_at = self._seen_at + min(FIRST_LOOK, self._limit / 2)
        self._has_warned = False
        self._ask_after = self._questions()

    def seen(self) -> None:
        """Note that somebody is there."""
        self._seen_at = time.monotonic()
        self._ask_after = self._questions()
        self._context.signals.nobody_since = None

    def check(self, now: float) -> Ending | None:
        """Look for workers where it is time; return how the run ends where nobody comes."""
        if self._look is None:
            return None
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
            self.seen()
            return None
        self._context.signals.nobody_since = self._seen_at
        waited = now - self._seen_at
        if found.silent and (ending := self._unreadable(found.silent, waited)):
            return ending
        if waited < self._limit or found.silent is None:
            return None
        return self._silent(found.silent, waited) if found.silent else self._deserted(found)

    def _deserted(self, found: Presence) -> Ending:
        queues = ",".join(sorted(self._context.queues))
        names = listed(sorted(found.others), SHOWN) if found.others else ""
        why = RunNobody(limit=self._limit, others=names, queues=queues)
        return Ending(
            why,
            f"{why.phrase()}, so the run has ended; its jobs wait in their queue: start a worker "
            f"(celery -A APP worker{queues and f' -Q {queues}'}), then go on with "
            "--manifest-resume; "
            "where workers begin later, give them time with manifest_no_worker = 15m",
        )

    def _questions(self) -> list[float]:
        """Return when to ask in other formats: twice, as who cannot read that logs each."""
        return [self._limit / 2, self._limit]

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
        advice = (
            f"{why.phrase()}: a worker throws away what it cannot decode (its log says "
            "ContentDisallowed), so give it the app's serializer in accept_content"
        )
        if waited >= self._limit and found.workers >= connected:
            return Ending(why, f"{advice}. The run has ended")
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
        advice = (
            f"{why.phrase()}: a worker throws away what it cannot decode (its log says "
            "ContentDisallowed), so give it the app's serializer in accept_content; or its only "
            "process is busy"
        )
        # A worker without a pool runs one job at a time, and answers nothing meanwhile.
        if gone > connected or waited > self._limit + longest:
            return Ending(why, f"{advice}. The run has ended")
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
