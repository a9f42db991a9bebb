"""Decide what may be sent, and when: dependencies, canary, failures, budget, keys. Pure logic.

An entry is free when every entry that it waits for (``after``) has passed. It is blocked, for good,
when one of them did not pass, when the canary failed, when too many entries have failed, or when
the run has no money left for it. A free entry may have to wait for the others of its keys.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.run.budget import Budget
from pytest_manifest.run.key_limits import KeyedQueue, KeyLimits
from pytest_manifest.run.send_queue import SendQueue, dependents, names_of
from pytest_manifest.run.settings import FailureLimit
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import BAD, STATUSES
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.reasons import Problem

CHAIN_SHOWN = 4
"""Entries of a chain of dependencies that a message names; the others are counted."""
NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """Hold an attempt that will not be sent, and why."""

    attempt: Attempt
    why: Problem


@dataclass(slots=True)
class _Blocked:
    attempt: Attempt
    missing: set[str]


@dataclass(frozen=True, slots=True)
class _Dead:
    """Hold an entry that did not pass: the chain from it to the culprit, and that one's status.

    A chain may be as long as the manifest: of a long one only the two ends are kept.
    """

    chain: tuple[str, ...]
    end: str
    left_out: int = 0

    def behind(self, entry: str) -> _Dead:
        chain = (entry, *self.chain)
        if len(chain) <= CHAIN_SHOWN:
            return _Dead(chain, self.end)
        return _Dead((*chain[:2], *chain[-2:]), self.end, self.left_out + 1)

    def why(self) -> Problem:
        return problems.WaitsFor(names=self.chain, end=self.end, left_out=self.left_out)


class Schedule:
    """Hold the attempts of a run that are still to be sent.

    ``verdicts`` are those of entries outside of ``attempts``: of an earlier segment of the same
    run. Call :meth:`start` first. Nothing here knows of time or of a broker.
    """

    def __init__(
        self,
        attempts: Sequence[Attempt],
        *,
        verdicts: Mapping[str, VerdictStatus] | None = None,
        canary: int = 0,
        max_failed: FailureLimit | None = None,
        budget: Budget | None = None,
        key_limits: KeyLimits | None = None,
    ) -> None:
        self._attempts = attempts
        self._verdicts: Mapping[str, VerdictStatus] = verdicts or {}
        self._entries = len(attempts)
        self._max_failed = max_failed
        self._canary_size = canary
        self._key_limits = key_limits
        self._ready = self._queue(())
        self._after_canary = self._queue(())
        self._canary: set[str] = set()
        self._canary_failed: list[str] = []
        self._blocked: dict[str, _Blocked] = {}
        self._waiting_for: dict[str, list[str]] = {}
        self._dead: dict[str, _Dead] = {}
        self._failed = 0
        self.budget = budget
        self.closed: Problem | None = None

    def _queue(self, positions: Iterable[int]) -> SendQueue:
        """Return a queue of the attempts at these positions, by their keys where those count."""
        if self._key_limits is None:
            return SendQueue(self._attempts, positions)
        return KeyedQueue(self._attempts, positions, self._key_limits)

    def count_in_flight(self, attempts: Iterable[Attempt]) -> None:
        """Count attempts that are in flight already towards the budget, and of their keys."""
        for attempt in attempts:
            self._reserve(attempt)

    def start(self, underway: Iterable[str] = ()) -> list[Skipped]:
        """Sort the attempts; return those that can never be sent.

        ``underway`` are entries that are not to be sent but whose verdict is still to come.
        """
        waiting = list(dependents(self._attempts))
        blocked = frozenset(place for place, _ in waiting)
        free = array("I", (n for n in range(len(self._attempts)) if n not in blocked))
        if waiting:
            free = self._block(waiting, free, underway)
        skipped: list[Skipped] = []
        for name in list(self._dead):
            skipped += self._block_dependents(name)
        self._line_up(free)
        return skipped

    def _block(
        self, waiting: Sequence[tuple[int, Attempt]], free: array[int], underway: Iterable[str]
    ) -> array[int]:
        """Note what these wait for; return the positions of all that wait for nothing any more."""
        coming = {entry for _, entry in names_of(self._attempts)} | set(underway)
        freed: list[int] = []
        for place, attempt in waiting:
            for name in attempt.entry.after:
                if name not in coming and self._verdicts.get(name) != "passed":
                    self._dead.setdefault(name, _Dead((name,), self._verdicts.get(name, "")))
            missing = {n for n in attempt.entry.after if n in coming or n in self._dead}
            if missing:
                self._blocked[attempt.entry.id] = _Blocked(attempt, missing)
                for name in missing:
                    self._waiting_for.setdefault(name, []).append(attempt.entry.id)
            else:
                freed.append(place)
        return array("I", merge(free, freed)) if freed else free

    def _line_up(self, free: array[int]) -> None:
        """Queue the attempts at the ``free`` positions, the canary first."""
        size = min(self._canary_size, len(free))
        if not size:
            self._ready = self._queue(free)
            return
        chosen = {index * len(free) // size for index in range(size)}
        self._ready = self._queue(free[index] for index in sorted(chosen))
        others = (place for index, place in enumerate(free) if index not in chosen)
        self._after_canary = self._queue(others)
        self._canary = {attempt.entry.id for attempt in self._ready}

    # What is left

    @property
    def has_ready(self) -> bool:
        """Return whether something may be sent at this moment."""
        attempt = self._ready.next_sendable()
        return attempt is not None and self._affordable(attempt)

    def forget_ended(self, is_awaited: Callable[[str], bool]) -> None:
        """Give the keys of attempts to others of which the run awaits nothing any more.

        ``is_awaited`` by task id. What has to wait for its keys is only looked at again by this.
        """
        if self._key_limits is not None:
            self._key_limits.forget_ended(is_awaited)
            self._ready.look_again()

    def _reserve(self, attempt: Attempt) -> None:
        if self.budget is not None:
            self.budget.reserve(attempt.task_id, attempt.entry)
        if self._key_limits is not None:
            self._key_limits.reserve(attempt.task_id, attempt.entry)

    def _affordable(self, attempt: Attempt) -> bool:
        return self.budget is None or self.budget.allows(attempt.entry)

    @property
    def exhausted(self) -> bool:
        """Return whether nothing is left to be sent, now or later."""
        return not (self._ready or self._after_canary or self._blocked)

    def take(self, number: int) -> list[Attempt]:
        """Take up to so many attempts that may be sent now, in order."""
        taken: list[Attempt] = []
        while len(taken) < number and self.has_ready:
            taken.append(self._ready.popleft())
            self._reserve(taken[-1])
        return taken

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts that could not be sent: they come first again."""
        for attempt in attempts:
            if self.budget is not None:
                self.budget.cancel(attempt.task_id)
            if self._key_limits is not None:
                self._key_limits.cancel(attempt.task_id, attempt.entry)
        for attempt in reversed(attempts):
            self._ready.appendleft(attempt)

    def first(self, number: int) -> list[Attempt]:
        """Return up to so many that come next; they stay queued."""
        return list(islice(self._ready, number))

    def withdraw(self, attempts: Collection[Attempt]) -> None:
        """Remove these of the :meth:`first` ones: they will not be sent."""
        self._ready.remove(attempt.task_id for attempt in attempts)

    def add(self, attempt: Attempt) -> Skipped | None:
        """Queue one more attempt of an entry that was sent before; skip it where sending is
        over."""
        if self.closed is not None:
            return Skipped(attempt, self.closed)
        self._ready.appendleft(attempt)
        return None

    # What became of entries

    def finished(self, entry: str, status: VerdictStatus) -> list[Skipped]:
        """Note an entry's final verdict; return what can never be sent because of it."""
        skipped = self._passed(entry) if status == "passed" else self._failed_with(entry, status)
        return skipped + self._check_canary(entry, status)

    def over_budget(self) -> list[Skipped]:
        """Close the schedule where the budget allows nothing that is left; return all of that.

        While something is in flight that may cost less than its estimate, what is left may wait.
        """
        budget = self.budget
        if budget is None or self.closed is not None or self.exhausted:
            return []
        following = self._ready.next_sendable()
        is_affordable = following is None or self._affordable(following)
        if (is_affordable or budget.has_reservations) and not budget.reached:
            return []
        entry = None if following is None else following.entry
        return self.close(budget.why_closed(entry))

    def close(self, why: Problem) -> list[Skipped]:
        """Send no more; return everything that was left."""
        self.closed = why
        left = [*self._ready, *self._after_canary, *(b.attempt for b in self._blocked.values())]
        self._ready.clear()
        self._after_canary.clear()
        self._blocked.clear()
        self._waiting_for.clear()
        return [Skipped(attempt, why) for attempt in left]

    def _passed(self, entry: str) -> list[Skipped]:
        for name in self._waiting_for.pop(entry, ()):
            blocked = self._blocked.get(name)
            if blocked is None:
                continue
            blocked.missing.discard(entry)
            if not blocked.missing:
                del self._blocked[name]
                (self._after_canary if self._canary else self._ready).append(blocked.attempt)
        return []

    def _failed_with(self, entry: str, status: VerdictStatus) -> list[Skipped]:
        self._dead[entry] = _Dead((entry,), status)
        skipped = self._block_dependents(entry)
        if STATUSES[status].outcome in BAD:
            self._failed += 1
        return skipped + self._block_for_failures()

    def _block_for_failures(self) -> list[Skipped]:
        limit = self._max_failed
        if limit is None or self.closed or limit.allows(self._failed, self._entries):
            return []
        failed, entries = self._failed, self._entries
        return self.close(problems.TooManyFailed(failed=failed, entries=entries, limit=str(limit)))

    def _block_dependents(self, entry: str) -> list[Skipped]:
        """Skip everything that waits for an entry that did not pass, directly or not."""
        skipped: list[Skipped] = []
        fallen = deque([entry])
        while fallen:
            culprit = fallen.popleft()
            for name in self._waiting_for.pop(culprit, ()):
                blocked = self._blocked.pop(name, None)
                if blocked is not None:
                    skipped.append(Skipped(blocked.attempt, self._dead[culprit].why()))
                    self._dead[name] = self._dead[culprit].behind(name)
                    fallen.append(name)
        return skipped

    def _check_canary(self, entry: str, status: VerdictStatus) -> list[Skipped]:
        if entry not in self._canary:
            return []
        self._canary.discard(entry)
        if status != "passed":
            self._canary_failed.append(entry)
        if self._canary:
            return []
        if not self._canary_failed:
            left = [*self._ready]
            self._ready, self._after_canary = self._after_canary, self._queue(())
            for attempt in reversed(left):
                self._ready.appendleft(attempt)
            return []
        if self.closed is not None:
            return []
        names = tuple(self._canary_failed[:NAMES_SHOWN])
        more = len(self._canary_failed) - len(names)
        return self.close(problems.CanaryFailed(names=names, more=more))
