"""Verdicts of a run's attempts: on receipts, on the lack of one, and what follows for the entry.

All methods read and write the ledger and keep nothing of their own, so that a run which is taken
up again judges as the first one did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from loguru import logger

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import (
    OTHER_BROKER,
    EntryVerdict,
    Ledger,
    Start,
    has_all_starts,
    utc_now,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.flights import InFlight
from pytest_manifest.run.own_limits import OwnLimitsOfRun
from pytest_manifest.run.receipts import turn_of
from pytest_manifest.run.scales import Scales
from pytest_manifest.run.schedule import Held
from pytest_manifest.run.search import is_alive
from pytest_manifest.run.unforeseen import set_aside, unforeseen
from pytest_manifest.run.weighing import Said
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.verdict import Costs, is_hearsay, judge

Judged = tuple[Verdict, Receipt | None]

SENT_AGAIN: Final = frozenset({"lost", "crashed", "unknown"})
"""What an idempotent entry with retries is sent again for."""
EMPTIED_MEANWHILE: Final = "the broker or the result store was emptied while it was out"
SPOKEN_FOR: Final = frozenset({"lost", "crashed", "timed_out", "unknown", "revoked"})
"""What the harness may have said for want of a receipt; one that comes late knows better."""

UNTOLD: Final = (
    "it is in no queue and no worker has it, but not every worker says when it begins a job: it "
    "may have run and left nothing that counts as an end, as it raised Ignore, stored a state of "
    "its own, or handed the job on"
)
"""What may have become of a job of stock workers that is nowhere."""
UNCONFIRMED: Final = (
    "the result store has an end of it that its worker has not told, and that a task can store "
    "before it ends"
)
OF_ITSELF: Final = frozenset({"timed_out", "crashed"})
"""What a job that was begun may have come to by itself, though the harness says it."""
_NOT_BY_RECEIPTS: Final = frozenset({"forged", "quarantined", "skipped"})
"""Verdicts that no further receipt changes: one lie makes all of them doubtful, and what the run
itself has taken out or held back was not to end."""

_WAITED_FOR: Final = {
    "retry": "where it asked to be tried again, and its next try is nowhere",
    "task": "where it was handed on to another task, which is nowhere",
    "canvas": "where it was handed on to other tasks, and nothing was heard of them",
}


def taken_back(flight: InFlight) -> str:
    """A phrase for what was revoked when the run was stopped."""
    if flight.started is None:
        return "the run was stopped before a worker had begun it"
    return "the run was stopped after a try of it, while it waited for the next one"


@dataclass(frozen=True, slots=True)
class Correction:
    """An entry's verdict that was changed after it had been told."""

    before: VerdictStatus
    verdict: Verdict


class Bench:
    """Judges for one run. ``lifetime``: seconds for which a result is kept; ``kills``: deaths that
    quarantine an entry."""

    def __init__(
        self,
        run: str,
        manifest: Manifest,
        ledger: Ledger,
        *,
        kills: int,
        lifetime: float,
    ) -> None:
        self.run = run
        self._manifest = manifest
        self._ledger = ledger
        self._kills = kills
        self._lifetime = lifetime
        self.scales = Scales(run, ledger)
        self._held = OwnLimitsOfRun.noted(ledger)
        self._costs = Costs(ledger, manifest)
        self._resent: Counter[str] = Counter()
        self.corrections: list[Correction] = []

    # One attempt

    def judge(
        self, flight: InFlight, receipt: Receipt, starts: Sequence[Start] | None = None
    ) -> Judged:
        """The verdict that a final receipt brings; without ``starts``, by all that the ledger has
        of the attempt."""
        if starts is not None:
            return self.weigh(flight, [(None, receipt)], starts)
        said = self._ledger.receipts(flight.task_id) or [(None, receipt)]
        return self.weigh(flight, said, self._ledger.starts(flight.task_id))

    def weigh(self, flight: InFlight, said: Sequence[Said], starts: Sequence[Start]) -> Judged:
        """The verdict by these ends and starts of the attempt."""
        entry, number = flight.entry, flight.number
        try:
            return self.scales.weigh(entry, flight.task_id, number, said, starts, flight.sent_at)
        except Exception as error:  # one receipt that nobody foresaw must not end the run for all
            return unforeseen(entry, number, said[0][1], error)

    def has_begun(self, task_id: str) -> bool:
        """Whether some worker has said that it began the attempt."""
        return bool(self._ledger.starts(task_id))

    def speak_for(self, flight: InFlight, kind: VerdictStatus, note: str) -> Verdict:
        """The verdict on an attempt that no receipt will come of."""
        seen = kind in OF_ITSELF and flight.is_running
        number = flight.number
        entry = self._held(flight.entry)
        return judge(entry, None, attempt=number, problem=kind, note=note, seen=seen)

    def word_on(self, flight: InFlight, kind: VerdictStatus, note: str) -> Judged:
        """The same, or by what the result store tells of the job's revocation, where it does."""
        if kind == "revoked" and flight.hearsay is not None and is_hearsay(flight.hearsay):
            return self.judge(flight, flight.hearsay)
        return self.speak_for(flight, kind, note), None

    def how_it_died(self, flight: InFlight) -> str:
        """A phrase for an attempt whose process is gone."""
        loss = flight.loss
        if loss is not None:
            how = f"exit code {loss.returncode}"
            return f"worker {loss.worker} ended ({how}) while it was running it"
        where = f"process {flight.pid} of {flight.worker or flight.host}"
        return f"{where}, which had begun it, is gone"

    def missing(self, flight: InFlight, *, emptied: bool) -> tuple[VerdictStatus, str]:
        """What to say of an attempt that is nowhere."""
        if flight.sent_at is not None:
            age = (utc_now() - flight.sent_at).total_seconds()
            if age > self._lifetime:
                return "unknown", "a receipt may have been, and be past its lifetime"
        if emptied:
            # It may be gone with the broker's queue, or have ended and be gone with its receipt.
            return "unknown", EMPTIED_MEANWHILE
        other = self.elsewhere()
        if other and not (flight.is_running and is_alive(flight) is False):
            return "unknown", other
        said = flight.hearsay
        if said is not None and is_hearsay(said) and not flight.is_running:
            return "revoked", "it was revoked, and nobody has it"
        if flight.started is None and not self._would_be_told():
            return "unknown", UNTOLD
        if flight.started is None:
            return "lost", "it is in no queue, and no worker has it or has begun it"
        if flight.between is not None:
            return "lost", f"started on {flight.worker}, {_WAITED_FOR[flight.between.how]}"
        if is_alive(flight) is False:
            if said is not None and not is_hearsay(said):
                return "unknown", f"{self.how_it_died(flight)}; {UNCONFIRMED}"
            return "crashed", self.how_it_died(flight)
        return "lost", f"started on {flight.worker}, which has it no more"

    def elsewhere(self) -> str:
        """Why it may be somewhere though it is found nowhere; "" where it is looked for rightly."""
        broker = self._ledger.get_meta(OTHER_BROKER)
        return "" if broker is None else f"this run's jobs were sent to another broker, {broker}"

    def _would_be_told(self) -> bool:
        """Whether a worker that had begun a job would have said so, and that would be known."""
        return has_all_starts(self._ledger, some_start=self._ledger.has_starts())

    def cost(self, task_id: str) -> Decimal | None:
        """What an attempt has cost by what the ledger has, None for one that is not the run's."""
        return self._costs.of(task_id)

    # What follows for the entry

    def next_attempt(
        self, flight: InFlight, verdict: Verdict, receipt: Receipt | None
    ) -> Attempt | None:
        """Another attempt, where the entry allows one; the last one is closed in the ledger."""
        entry = flight.entry
        if verdict.verdict not in SENT_AGAIN or not entry.idempotent:
            return None
        if verdict.verdict == "unknown" and receipt is not None:
            return None  # it ran; what cannot be told is whether it met its expectations
        if self._resent[entry.id] >= entry.retries:
            return None
        if verdict.verdict == "crashed" and self._deaths(flight) >= self._kills:
            return None
        self._resent[entry.id] += 1
        ordinal = self._ledger.attempts_of(entry.id)[-1].position
        attempt = attempt_of(self.run, entry, flight.number + 1, ordinal)
        self._ledger.end_attempt(flight.task_id, verdict)
        row = (attempt.task_id, entry.id, attempt.number, ordinal, verdict.verdict)
        self._ledger.plan([row])
        logger.bind(entry=entry.id).info(
            "attempt {} of {!r} was {}; it is sent again", flight.number, entry.id, verdict.verdict
        )
        return attempt

    def final(self, flight: InFlight, verdict: Verdict) -> Verdict:
        """The entry's verdict: quarantined, where its workers died of it too often."""
        if verdict.verdict != "crashed":
            return verdict
        deaths = self._deaths(flight)
        return verdict if deaths < self._kills else self._quarantined(flight, deaths)

    def quarantine(self, flight: InFlight) -> Verdict | None:
        """The verdict on a job that is being started again and again; None below the limit."""
        starts = self._ledger.starts(flight.task_id)
        by_turn = Counter(map(turn_of, starts))
        deaths = self._earlier_crashes(flight) + max(by_turn.values(), default=1) - 1
        return None if deaths < self._kills else self._quarantined(flight, deaths, starts)

    def goes_on_killing(self, task_id: str) -> bool:
        """Whether a job that was given up as crashed is handed out and begun again and again."""
        row, settled = self._ledger.attempt(task_id), self._verdict_on(task_id)
        kind = settled.verdict.verdict if settled is not None else row and row.status
        starts = Counter(map(turn_of, self._ledger.starts(task_id)))
        return kind in ("crashed", "quarantined") and max(starts.values(), default=0) > self._kills

    def _deaths(self, flight: InFlight) -> int:
        return self._earlier_crashes(flight) + 1

    def _earlier_crashes(self, flight: InFlight) -> int:
        rows = self._ledger.attempts_of(flight.entry.id)
        return sum(row.status == "crashed" for row in rows if row.attempt < flight.number)

    def _quarantined(self, flight: InFlight, deaths: int, starts: Sequence[Start] = ()) -> Verdict:
        pids = ", ".join(str(start.pid) for start in starts[:deaths] if start.pid is not None)
        note = f"{deaths} processes died of it{f', with the pids {pids}' if pids else ''}"
        return judge(flight.entry, None, attempt=flight.number, problem="quarantined", note=note)

    def held(self, held: Sequence[Held]) -> list[Judged]:
        """The verdicts of what will not be sent; to be called within a transaction."""
        if not held:  # nearly always: this is asked after each verdict
            return []
        self._ledger.mark((one.attempt.task_id for one in held), "withheld")
        return [(self._skipped(one.attempt, one.note), None) for one in held]

    def _skipped(self, attempt: Attempt, note: str) -> Verdict:
        return judge(attempt.entry, None, attempt=attempt.number, problem="skipped", note=note)

    def unsent(self, unsent: Sequence[Held], kind: VerdictStatus) -> list[Judged]:
        """The verdicts of what was never sent, each with its reason."""
        return [
            (judge(a.entry, None, attempt=a.number, problem=kind, note=note), None)
            for a, note in ((one.attempt, one.note) for one in unsent)
        ]

    def rest(self, kind: VerdictStatus, note: str) -> list[Judged]:
        """A verdict for every entry that has none."""
        judged: list[Judged] = []
        for row in self._ledger.attempts(undecided=True):
            if self._cannot_be_told(row.entry):
                continue
            why = f"{note}; it had not been sent yet" if row.state == "planned" else note
            try:
                if row.entry not in self._manifest:
                    continue
                entry = self._manifest[row.entry]
            except ManifestError as error:  # it is known what to say, whatever the entry expects
                why = f"{why} (what it expects cannot be read: {error})"
                verdict = Verdict(verdict=kind, entry=row.entry, attempt=row.attempt, sentence=why)
            else:
                seen = kind == entry.expect.state == "timed_out"
                seen = seen and self._outran(entry, row.task_id)
                number = row.attempt
                verdict = judge(entry, None, attempt=number, problem=kind, note=why, seen=seen)
            judged.append((verdict, None))
        return judged

    def _cannot_be_told(self, entry: str) -> bool:
        """Whether it has been said, with the reason, that nobody can tell what became of it."""
        settled = self._ledger.entry_verdict(entry)
        return settled is not None and settled.verdict.verdict == "unknown"

    def _outran(self, entry: Entry, task_id: str) -> bool:
        """Whether a job that was begun runs for longer than its own timeout by now."""
        limit = utc_now() - timedelta(seconds=entry.timeout)
        ended = {end.execution for end in self._ledger.handed_on(task_id)}
        starts = [one for one in self._ledger.starts(task_id) if one.execution not in ended]
        return any(one.started_at is not None and one.started_at < limit for one in starts)

    # What comes after the verdict

    def late(self, task_id: str) -> list[Judged]:
        """A receipt has come of an attempt that has its verdict: it may know better, or show that
        the one which came first cannot be believed."""
        settled = self._verdict_on(task_id)
        if settled is None or settled.verdict.verdict in _NOT_BY_RECEIPTS:
            return []
        with set_aside(f"a late receipt of {task_id}"):
            return self._again(settled, task_id)
        return []

    def started_after_end(self, task_id: str) -> list[Judged]:
        """A job that has its receipt was started once more: that counts, however it will end."""
        settled = self._verdict_on(task_id)
        if settled is None or settled.receipt is None:
            return []
        if settled.verdict.verdict in _NOT_BY_RECEIPTS:
            return []
        with set_aside(f"a late start of {task_id}"):
            return self._again(settled, task_id)
        return []

    def _again(self, settled: EntryVerdict, task_id: str) -> list[Judged]:
        """The verdict anew, by all that the ledger has; nothing where it is the same."""
        name, number = settled.verdict.entry, settled.verdict.attempt
        if name not in self._manifest or number is None:
            return []
        told = self._ledger.receipts(task_id)
        said = [one for one in told if self.scales.is_of(one[1], name, task_id, number)]
        if not said:
            return []
        row, starts = self._ledger.attempt(task_id), self._ledger.starts(task_id)
        sent_at = None if row is None else row.sent_at
        # Of what was published twice nobody knows which of the messages a receipt is of.
        verdict, receipt = self.scales.weigh(
            self._manifest[name], task_id, number, said, starts, sent_at, which=False
        )
        if verdict == settled.verdict and receipt == settled.receipt:
            return []
        return self._correct(settled, verdict, receipt)

    def _verdict_on(self, task_id: str) -> EntryVerdict | None:
        """The entry's verdict, where it is about the attempt with this task id."""
        row = self._ledger.attempt(task_id)
        settled = None if row is None else self._ledger.entry_verdict(row.entry)
        if row is None or settled is None or settled.verdict.attempt != row.attempt:
            return None
        return settled

    def _correct(
        self, settled: EntryVerdict, verdict: Verdict, receipt: Receipt | None
    ) -> list[Judged]:
        before = settled.verdict.verdict
        if verdict.verdict != before:
            logger.bind(entry=verdict.entry).info(
                "{!r} was {} and is {} now", verdict.entry, before, verdict.verdict
            )
            self.corrections.append(Correction(before, verdict))
        return [(verdict, receipt)]
