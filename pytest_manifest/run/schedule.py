"""Decide what may be sent, and send it: dependencies, canary, failures, budget, keys.

An entry is free when every entry that it waits for (``after``) has passed. It is blocked, for good,
when one of them did not pass, when the canary failed, when too many entries have failed, or when
the run has no money left for it. A free entry may have to wait for the others of its keys. What is
sent stands in the ledger before a message leaves.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.publisher import Publisher, PublishResult
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.run import send_queue
from pytest_manifest.run.fact_log import ClockWatch, FactLog, stamp
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.pressure import Pressure
from pytest_manifest.run.settings import FailureLimit
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Sending, SendOutcome, SendResult
from pytest_manifest.schema.run_facts import JobFact
from pytest_manifest.schema.statuses import BAD, KEPT, STATUSES
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.problems import NeverTaken, NotMade
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


@dataclass(eq=False)
class Schedule:
    """Hold the attempts of a run that are still to be sent.

    ``verdicts`` are those of entries outside of ``attempts``: of an earlier segment of the same
    run. Call :meth:`start` first. Nothing here knows of time or of a broker.
    """

    attempts: Sequence[Attempt]
    verdicts: Mapping[str, VerdictStatus] = field(default_factory=dict)
    canary: int = 0
    max_failed: FailureLimit | None = None
    budget: send_queue.Budget | None = None
    key_limits: send_queue.KeyLimits | None = None

    def __post_init__(self) -> None:
        self._ready = self._queue(())
        self._after_canary = self._queue(())
        self._canary: set[str] = set()
        self._canary_failed: list[str] = []
        self._blocked: dict[str, _Blocked] = {}
        self._waiting_for: dict[str, list[str]] = {}
        self._dead: dict[str, _Dead] = {}
        self._failed_entries: set[str] = set()
        self.closed: Problem | None = None
        self.paused = False
        """Whether an operator has sending wait."""
        self.cancelled: set[str] = set()
        """Entries of which nothing is sent any more, as an operator has cancelled them."""

    def _queue(self, positions: Iterable[int]) -> send_queue.SendQueue:
        """Return a queue of the attempts at these positions, by their keys where those count."""
        return send_queue.SendQueue(self.attempts, positions, self.key_limits)

    def count_in_flight(self, attempts: Iterable[Attempt]) -> None:
        """Count attempts that are in flight already towards the budget, and of their keys."""
        for attempt in attempts:
            if self.budget is not None:
                self.budget.reserve(attempt.task_id, attempt.entry)
            if self.key_limits is not None:
                self.key_limits.reserve(attempt.task_id, attempt.entry)

    def start(self, underway: Iterable[str] = ()) -> list[Skipped]:
        """Sort the attempts; return those that can never be sent.

        ``underway`` are entries that are not to be sent but whose verdict is still to come.
        """
        waiting = list(send_queue.dependents(self.attempts))
        blocked = frozenset(place for place, _ in waiting)
        free = array("I", (n for n in range(len(self.attempts)) if n not in blocked))
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
        coming = {entry for _, entry in send_queue.names_of(self.attempts)} | set(underway)
        freed: list[int] = []
        for place, attempt in waiting:
            for name in attempt.entry.after:
                if name not in coming and self.verdicts.get(name) != "passed":
                    self._dead.setdefault(name, _Dead((name,), self.verdicts.get(name, "")))
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
        size = min(self.canary, len(free))
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
        attempt = None if self.paused else self._ready.next_sendable()
        return attempt is not None and self._affordable(attempt)

    def forget_ended(self, is_awaited: Callable[[str], bool]) -> None:
        """Give the keys of attempts to others of which the run awaits nothing any more.

        ``is_awaited`` by task id. What has to wait for its keys is only looked at again by this.
        """
        if self.key_limits is not None:
            self.key_limits.forget_ended(is_awaited)
            self._ready.look_again()

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
            self.count_in_flight(taken[-1:])
            if self.key_limits is not None:
                self.key_limits.sent(taken[-1].entry)
        return taken

    def put_back(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts that could not be sent: they come first again."""
        for attempt in attempts:
            if self.budget is not None:
                self.budget.cancel(attempt.task_id)
            if self.key_limits is not None:
                self.key_limits.cancel(attempt.task_id, attempt.entry)
        for attempt in reversed(attempts):
            self._ready.appendleft(attempt)

    def withdraw(self, task_ids: Container[str]) -> list[Attempt]:
        """Remove and return those of these that were :meth:`put_back`: they will not be sent."""
        return self._ready.remove(task_ids)

    def add(self, attempt: Attempt) -> Skipped | None:
        """Queue one more attempt of an entry that was sent before; skip it where sending is
        over."""
        if self.closed is not None:
            return Skipped(attempt, self.closed)
        self._ready.appendleft(attempt)
        return None

    # What operators ask for

    def cancel(self, entries: Collection[str]) -> list[Attempt]:
        """Remove and return the attempts of these entries: they will not be sent."""
        found = [*self._ready.drop(entries), *self._after_canary.drop(entries)]
        found += [self._blocked.pop(name).attempt for name in entries if name in self._blocked]
        return found

    def unsent(self) -> set[str]:
        """Return the entries that are still to be sent."""
        left = (*self._ready, *self._after_canary, *(one.attempt for one in self._blocked.values()))
        return {attempt.entry.id for attempt in left}

    def send_again(self, attempt: Attempt, missing: Collection[str]) -> None:
        """Queue an attempt of an entry that had come to an end; ``missing``: for which it waits."""
        name = attempt.entry.id
        self._failed_entries.discard(name)
        if not missing:
            self._ready.append(attempt)
            return
        self._blocked[name] = _Blocked(attempt, set(missing))
        for one in missing:
            self._waiting_for.setdefault(one, []).append(name)

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
            self._failed_entries.add(entry)
        return skipped + self._block_for_failures()

    def _block_for_failures(self) -> list[Skipped]:
        limit, failed, entries = self.max_failed, len(self._failed_entries), len(self.attempts)
        if limit is None or self.closed or limit.allows(failed, entries):
            return []
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
        if status not in KEPT:
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


BATCH = 500
FIRST_BATCH = 20
"""A small first batch lets the first job start while the rest is still being written."""
REPEATS = 3
"""How often a message that got lost on its way is published again."""


@dataclass(eq=False)
class Sender:
    """Send what the schedule has free, at most ``window`` entries in flight. For one thread."""

    _ledger: Ledger
    _publisher: Publisher
    _schedule: Schedule
    _pending: PendingAttempts
    _window: int
    _facts: FactLog
    _pressure: Pressure
    _clock: ClockWatch

    def __post_init__(self) -> None:
        results = self._ledger.facts.of_kind(SendResult)
        self._sendings = {one.job: (one.number, one.outcome) for one in results}
        """The number and outcome of the last sending of what has facts of it, by task id."""
        self.set_window(self._window)
        self._has_begun_sending = False
        self._repeats: Counter[str] = Counter()
        self.uncertain: set[str] = set()
        """Task ids whose message may have got lost on its way to the broker."""
        self._refused: list[Skipped] = []
        self._tried: dict[str, tuple[float, float]] = {}
        """When that was first tried, and until when it may be sent, which the broker did not
        certainly take, by task id."""

    def set_window(self, window: int) -> None:
        """Have at most so many entries in flight from now on."""
        self._window = window
        self._refill = max(1, min(BATCH, window // 10))
        self._was_full = False

    @property
    def has_room(self) -> bool:
        """Return whether something may be sent at this moment.

        A window that was full is filled up again when a tenth of it is free: a batch costs as much
        as many entries, and workers have the rest of the window to do meanwhile.
        """
        room = self._room
        if room >= self._refill:
            self._was_full = False
        is_free = self._schedule.has_ready and room > 0 and not self._was_full
        return is_free and self._pressure.has_room

    @property
    def _room(self) -> int:
        return self._pressure.window(self._window) - len(self._pending)

    def send_some(self) -> StackError | None:
        """Send one batch; return the broker's error, None where there was none."""
        size = BATCH if self._has_begun_sending else FIRST_BATCH
        try:
            batch = self._schedule.take(min(size, self._room, self._pressure.room()))
        except StackError as error:
            return error
        if not batch:
            return None
        self._pressure.sent(len(batch))
        self._has_begun_sending = True
        self._was_full = len(batch) >= self._room
        result, seq = self._publish(batch)
        now = time.monotonic()
        unsent, uncertain = set(result.unsent), set(result.uncertain)
        doubtful = unsent | uncertain
        sending = Sending(seq=seq, at=self._sent_at, number=1, sent_at=self._sent_at)
        taken = SendResult(seq=seq, at=self._sent_at, number=1, outcome="published")
        usual: list[JobFact] = [sending, taken]  # of each job of a batch that is published once
        for attempt in batch:
            if attempt.task_id in result.refused:
                self._refused.append(Skipped(attempt, result.refused[attempt.task_id]))
            elif attempt.task_id not in unsent:
                # Of what was published twice it is unknown which message a receipt will be of.
                name = attempt.task_id
                sent_at = self._sent_at if self._repeats[name] == 0 else None
                is_usual = attempt.number == 1 and name not in self._sendings
                known = usual if is_usual else None
                tried = self._tried.get(name)
                first = None if tried is None else tried[0]
                self._pending.track(attempt, now, sent_at, tried=first, facts=known)
                if name not in uncertain:
                    self._tried.pop(name, None)
        self.uncertain.update(uncertain)
        self._pressure.sent(-len(unsent))
        self._schedule.put_back([a for a in batch if a.task_id in unsent])
        for attempt in batch:
            if attempt.task_id in doubtful:
                until = now + (attempt.entry.deadline or math.inf)
                self._tried.setdefault(attempt.task_id, (now, until))
        if result.error is None:
            return None
        return StackError(f"the broker failed while jobs were being sent: {result.error}")

    def refused(self) -> list[Skipped]:
        """Return what the broker will never take, and why; each once."""
        refused, self._refused = self._refused, []
        return refused

    def overdue(self, now: float) -> list[Skipped]:
        """Withdraw and return what could not be sent before its deadline.

        The deadline counts from the first try: an outage may never end, and a message that got lost
        on its way is published again.
        """
        late = {name for name, (_, until) in self._tried.items() if until <= now}
        withdrawn = self._schedule.withdraw(late)
        for one in withdrawn:
            del self._tried[one.task_id]
        return [Skipped(one, NeverTaken(limit=one.entry.deadline or 0.0)) for one in withdrawn]

    def resend(self, attempt: Attempt) -> bool:
        """Publish again a message that certainly got lost on its way; return False where that is no
        use.

        The attempt stays the same, as no worker has ever had it.
        """
        over = self._schedule.closed is not None or attempt.entry.id in self._schedule.cancelled
        over = over or self._repeats[attempt.task_id] >= REPEATS
        if over or attempt.task_id not in self.uncertain:
            return False
        self._repeats[attempt.task_id] += 1
        self.uncertain.discard(attempt.task_id)
        self._schedule.put_back([attempt])
        return True

    def _publish(self, batch: Sequence[Attempt]) -> tuple[PublishResult, int]:
        """Publish, with the intent in the ledger before, and the result right after.

        Returns the result, and the number of the sending in the order of facts.
        """
        self._clock.look()  # at this very moment: by its time what is reported is believed
        self._sent_at = utc_now()
        with self._ledger.transaction():
            names = [attempt.task_id for attempt in batch]
            seq = self._ledger.attempts.mark(names, "intent", sent_at=self._sent_at)
        result = self._publisher.publish(batch, self._sent_at)
        self._note_results(batch, result)
        with self._ledger.transaction():
            self._facts.write()
            self._ledger.attempts.mark(result.certain, "sent")
            self._ledger.attempts.mark(result.uncertain, "uncertain", note=result.error)
            self._ledger.attempts.mark(result.unsent, "planned", note=result.error)
            for task_id, why in result.refused.items():
                self._ledger.attempts.mark([task_id], "withheld", note=why.phrase())
        return result, seq

    def _note_results(self, batch: Sequence[Attempt], result: PublishResult) -> None:
        """Add the sendings of what is sent again, or was not certainly taken; few are.

        Of all others the attempt itself has the only one. Tries in a row of which the broker took
        nothing are one.
        """
        if len(result.certain) == len(batch) and not self._sendings:
            return
        outcomes: dict[str, SendOutcome] = {
            **dict.fromkeys(result.unsent, "unsent"),
            **dict.fromkeys(result.uncertain, "uncertain"),
            **dict.fromkeys(result.refused, "refused"),
        }
        for attempt in batch:
            name, outcome = attempt.task_id, outcomes.get(attempt.task_id, "published")
            number, last = self._sendings.get(name, (0, "published"))
            if outcome == last and (outcome == "unsent" or not number):
                continue
            number += 1
            self._sendings[name] = number, outcome
            refusal = result.refused.get(name)
            error = (result.error or "") if outcome != "published" else ""
            why = error if refusal is None else str(vars(refusal).get("error", refusal.phrase()))
            one = Sending(**stamp(name), number=number, sent_at=self._sent_at)
            end = SendResult(
                **stamp(name),
                number=number,
                outcome=outcome,
                error=why,
                is_unmade=isinstance(refusal, NotMade),
            )
            self._facts.add(attempt.entry.id, one)
            self._facts.add(attempt.entry.id, end)
