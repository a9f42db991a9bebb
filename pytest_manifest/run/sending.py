"""Send from the schedule to the broker, with every step in the ledger before it is taken."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.publisher import Publisher, PublishResult
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.run.schedule import Schedule, Skipped
from pytest_manifest.schema.facts import Kind, Sending, SendOutcome, SendResult
from pytest_manifest.schema.run_facts import JobFact
from pytest_manifest.verdict.problems import NeverTaken, NotMade

BATCH = 500
FIRST_BATCH = 20
"""A small first batch lets the first job start while the rest is still being written."""
REPEATS = 3
"""How often a message that got lost on its way is published again."""


class Sender:
    """Send what the schedule has free, at most ``window`` entries in flight. For one thread."""

    def __init__(
        self,
        ledger: Ledger,
        publisher: Publisher,
        schedule: Schedule,
        pending: PendingAttempts,
        window: int,
        facts: FactLog | None = None,
    ) -> None:
        self._ledger = ledger
        self._facts = facts or FactLog(ledger)
        self._sendings = _sendings_of(ledger)
        self._publisher = publisher
        self._schedule = schedule
        self._pending = pending
        self._window = window
        self._refill = max(1, min(BATCH, window // 10))
        self._was_full = False
        self._has_begun_sending = False
        self._sent_at = utc_now()
        self._repeats: Counter[str] = Counter()
        self.uncertain: set[str] = set()
        """Task ids whose message may have got lost on its way to the broker."""
        self._refused: list[Skipped] = []
        self._tried: dict[str, float] = {}
        """Task id -> when it was first tried, of what the broker did not certainly take then."""

    @property
    def has_room(self) -> bool:
        """Return whether something may be sent at this moment.

        A window that was full is filled up again when a tenth of it is free: a batch costs as much
        as many entries, and workers have the rest of the window to do meanwhile.
        """
        room = self._window - len(self._pending)
        if room >= self._refill:
            self._was_full = False
        return self._schedule.has_ready and room > 0 and not self._was_full

    def send_some(self) -> StackError | None:
        """Send one batch; return the broker's error, None where there was none."""
        size = BATCH if self._has_begun_sending else FIRST_BATCH
        batch = self._schedule.take(min(size, self._window - len(self._pending)))
        self._has_begun_sending = True
        self._was_full = len(batch) >= self._window - len(self._pending)
        result, seq = self._publish(batch)
        now = time.monotonic()
        unsent, uncertain = set(result.unsent), set(result.uncertain)
        usual = _sent_once(seq, self._sent_at)
        for attempt in batch:
            if attempt.task_id in result.refused:
                self._refused.append(Skipped(attempt, result.refused[attempt.task_id]))
            elif attempt.task_id not in unsent:
                # Of what was published twice it is unknown which message a receipt will be of.
                name = attempt.task_id
                sent_at = self._sent_at if self._repeats[name] == 0 else None
                is_usual = attempt.number == 1 and name not in self._sendings
                known = usual if is_usual else None
                first = self._tried.pop(name, None)
                self._pending.track(attempt, now, sent_at, tried=first, facts=known)
                if attempt.task_id in uncertain:
                    self._tried[attempt.task_id] = now if first is None else first
        self.uncertain.update(uncertain)
        self._schedule.put_back([a for a in batch if a.task_id in unsent])
        for task_id in result.unsent:
            self._tried.setdefault(task_id, now)
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
        if not self._tried:
            return []
        # What was put back comes first, after further attempts that were added since.
        waiting = self._schedule.first(len(self._tried) + BATCH)
        skipped = [
            Skipped(one, NeverTaken(limit=one.entry.deadline))
            for one in waiting
            if one.entry.deadline is not None
            and now >= self._tried.get(one.task_id, now) + one.entry.deadline
        ]
        self._schedule.withdraw([one.attempt for one in skipped])
        for one in skipped:
            self._tried.pop(one.attempt.task_id, None)
        return skipped

    def resend(self, attempt: Attempt) -> bool:
        """Publish again a message that certainly got lost on its way; return False where that is no
        use.

        The attempt stays the same, as no worker has ever had it.
        """
        over = self._schedule.closed is not None or self._repeats[attempt.task_id] >= REPEATS
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
        self._sent_at = utc_now()
        with self._ledger.transaction():
            names = (attempt.task_id for attempt in batch)
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


def _sent_once(seq: int, sent_at: datetime) -> list[JobFact]:
    """Return the facts of each job of a batch that is published once, without its name."""
    sending = Sending(seq=seq, at=sent_at, number=1, sent_at=sent_at)
    result = SendResult(seq=seq, at=sent_at, number=1, outcome="published")
    return [sending, result]


def _sendings_of(ledger: Ledger) -> dict[str, tuple[int, SendOutcome]]:
    """Return the number and outcome of the last sending of what has facts of it, by task id."""
    facts = (one.fact for one in ledger.facts.of_kind(Kind.SEND_RESULT))
    return {one.job: (one.number, one.outcome) for one in facts if isinstance(one, SendResult)}
