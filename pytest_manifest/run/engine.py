"""The thread of a run: it sends, gathers, looks for jobs, and commits before it tells."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from loguru import logger

from pytest_manifest.broker.locating import Located
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import OVER_BUDGET, STORE_EMPTIED, Start, may_lack_starts
from pytest_manifest.results.gatherer import Sip
from pytest_manifest.run.flights import InFlight
from pytest_manifest.run.hearsay import Final, Hearsay
from pytest_manifest.run.judging import Correction, Judged, taken_back
from pytest_manifest.run.mending import Mender
from pytest_manifest.run.outage import Outage
from pytest_manifest.run.parts import Parts
from pytest_manifest.run.schedule import Held
from pytest_manifest.run.search import AFTER_LOSS, AGAIN, Search
from pytest_manifest.run.sending import Sender
from pytest_manifest.run.stranded import Stranded
from pytest_manifest.run.supervision import Supervision
from pytest_manifest.run.taking_back import TakingBack, withdrawn
from pytest_manifest.run.unread import Unread
from pytest_manifest.run.weighing import Said
from pytest_manifest.schema import Receipt, Verdict, VerdictStatus
from pytest_manifest.verdict import plural

SIP_PERIOD = 0.05
"""Seconds from one look at the receipts to the next: eager reading costs three times as much."""
REMIND_PERIOD = 10.0
"""Seconds from one reminder of what must not be run to the next: shorter than brokers take to give
back what a dead worker had."""
DRAIN = 10.0
"""Seconds that messages of ours which are left when every verdict is there are waited for."""


Word: TypeAlias = tuple[InFlight, VerdictStatus, str]
"""What is said of an attempt for want of a receipt, and why."""


class Engine:
    """One pass through a run's work. Use it from one thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._signals = parts.signals
        self._ledger = parts.ledger
        self._gatherer = parts.gatherer
        self._publisher = parts.publisher
        self._bench = parts.bench
        self._schedule = parts.schedule
        self.flights = parts.flights
        self._sender: Sender | None = None
        if parts.publisher is not None:
            self._sender = Sender(
                parts.ledger, parts.publisher, parts.schedule, parts.flights, parts.window
            )
        allowed = parts.owned or parts.settings.repair
        self._search: Search | None = None
        if parts.locator is not None:
            stranded = Stranded(parts.flights, parts.remarks, allowed=allowed)
            self._search = Search(parts.locator, parts.flights, stranded)
        self.unread = Unread(parts.gatherer)
        self._hearsay = Hearsay(parts.flights, self._search)
        self._sending, self._gathering = Outage(), Outage()
        self._supervision = Supervision(parts)
        self._taking_back = TakingBack(
            parts, self._revoke, self._sip, self.look_once, self._is_intact
        )
        self._mender: Mender | None = None
        if parts.locator is not None:
            self._mender = Mender(
                parts.locator, parts.flights, parts.findings, allowed=allowed, doubted=self._doubted
            )
        self._quarantined: list[str] = []
        self._taken_out: list[str] = []
        self._remind_at = 0.0
        self._landed: list[str] = []
        """Attempts of which more is known than the budget has been told."""
        self._deadline = float("inf")
        self.given_up = 0
        """Attempts that were judged as time was over; a worker may have them, or get them yet."""
        self._log = logger.bind(run=parts.run)
        self._bench.scales.is_whole = lambda: self._is_intact() is True

    @property
    def corrections(self) -> Sequence[Correction]:
        return self._bench.corrections

    @property
    def _finished(self) -> bool:
        if self._settings.send_only:
            return not self._schedule.has_ready
        return self._schedule.exhausted and not self.flights

    def work(self) -> None:
        """Send and gather until every entry has its verdict, time is over, or it is stopped.

        Raises StackError where broker or result store stay out of reach, or the stack has ended.
        """
        self.begin()
        while not self._signals.stop.is_set():
            began = time.monotonic()
            if self.step():
                return
            if not self._has_room:
                self._signals.stop.wait(max(0.0, SIP_PERIOD - (time.monotonic() - began)))

    def begin(self) -> None:
        """Sort what is to be sent; before the first :meth:`step`."""
        self._deadline = time.monotonic() + self._settings.deadline
        self._parts.patience.ends(self._deadline)
        underway = [flight.entry.id for flight in self.flights.by_task_id.values()]
        self._schedule.follow(flight.attempt for flight in self.flights.by_task_id.values())
        self._hold(self._schedule.start(underway))

    def step(self) -> bool:
        """Once around: send, gather, look after what is missing; true when the work is done."""
        self._check_stack()
        self._send_some()
        if self._finished:
            self._drain()
            return True
        self._sip()
        self._attend(time.monotonic())
        if time.monotonic() <= self._deadline:
            return False
        self._time_is_over()
        return True

    def look_once(self) -> None:
        """Gather everything that is there now, and wait for nothing."""
        self._take(self._gatherer.sweep_all(self.flights.by_task_id))

    def send_nothing(self) -> None:
        """Only look: no attempt follows from what is found."""
        self._schedule.close("the run is only looked at")

    def believe(self, nowhere: Iterable[str]) -> None:
        """Let what the store alone tells of these count at the next look; see :class:`Hearsay`."""
        self._hearsay.believe(nowhere)

    def mend(self, located: Located) -> list[str]:
        """Move what dead workers had taken, where that is allowed; see :class:`Mender`."""
        return [] if self._mender is None else self._mender.mend(located)

    @property
    def left(self) -> Collection[str]:
        """The task ids of what dead workers had, and were not moved: they may have begun it."""
        return () if self._mender is None else self._mender.left

    def _doubted(self) -> bool:
        """Whether a job may have been begun without a word; on our own stack all would be told."""
        return not self._parts.owned and may_lack_starts(self._ledger)

    def wind_down(self) -> None:
        """After a stop: take back what waits and, where a person stopped it, await what runs."""
        by_a_person = self._signals.interrupted.is_set()
        back = self._taking_back.take_back(self._settings.grace if by_a_person else 0.0)
        self.commit(self._words((one, "revoked", taken_back(one)) for one in back))

    def _time_is_over(self) -> None:
        """On a stack of our own, which ends with the run, nothing may begin after its verdict."""
        note = f"the run's deadline of {self._settings.deadline:g} s is over"
        left = self._schedule.close(note)
        if self._settings.send_only:  # what was sent is the workers', and not judged here
            raise DispatchError(f"{note}, and {plural(len(left), 'entry')} had not been sent yet")
        self._last_look()
        if self._parts.owned:
            back = self._taking_back.take_back(self._settings.grace)
            self.commit(
                self._words((one, "timed_out", f"{note}; {withdrawn(one)}") for one in back)
            )
            self._last_look()
        elif self._search is not None and self._search.is_deserted():
            self.settle_rest("pending", f"{note}, and no worker has answered: is one started?")
            return
        self.settle_rest("timed_out", note)

    def settle_rest(self, kind: VerdictStatus, note: str) -> None:
        """Give every entry that has no verdict this one."""
        unread = [one for one in self.flights.by_task_id.values() if self.unread.of(one.task_id)]
        self.commit(self._words((one, kind, note) for one in unread))
        judged = self._bench.rest(kind, note)
        self.given_up += len(self.flights)
        self.flights.clear()
        self.commit(judged)

    def _words(self, said: Iterable[Word]) -> Iterator[Judged]:
        for flight, kind, note in said:
            yield self._bench.speak_for(flight, *self.unread.word(flight, kind, note)), None

    def commit(self, judged: Iterable[Judged]) -> None:
        """Write verdicts down, then tell."""
        rows = list(judged)
        if rows:
            with self._ledger.transaction():
                self._ledger.record_verdicts(rows)
            self._tell([verdict for verdict, _ in rows])

    # Sending

    @property
    def _has_room(self) -> bool:
        return self._sender is not None and self._sender.has_room

    def _send_some(self) -> None:
        self._hold_beyond_budget()
        if self._sender is not None and self._sender.has_room:
            error = self._sender.send_some()
            self._speak_for_unsent(self._sender.refused(), "rejected")
            if error is not None:
                self._trouble(self._sending, error)
            elif self._sending.over() and self._search is not None:
                self._search.look_soon(time.monotonic())  # what was uncertain can be looked for
        if self._schedule.exhausted or (self._settings.send_only and self._finished):
            self._signals.all_sent.set()

    def _hold_beyond_budget(self) -> None:
        held = self._schedule.over_budget()
        if held:
            self._ledger.set_meta(OVER_BUDGET, held[0].note)
            self._hold(held)

    def _trouble(self, outage: Outage, error: StackError) -> None:
        """Broker or store is out of reach: be patient for a while, then give up."""
        if outage.goes_on():
            raise error
        self._log.warning("{}; trying again", error)
        self._signals.stop.wait(0.5)

    def _check_stack(self) -> None:
        failure = self._signals.stack_failure()
        if failure is not None:
            raise StackError(failure)

    # Gathering and judging

    def _sip(self) -> None:
        block_ms = 0 if self._has_room else int(SIP_PERIOD * 1000)
        try:
            sip = self._gatherer.sip(self.flights.by_task_id, block_ms)
        except StackError as error:
            self.flights.be_patient(time.monotonic())
            self._trouble(self._gathering, error)
            return
        self._gathering.over()
        self._take(sip)

    def _take(self, sip: Sip) -> None:
        """Commit what a sip brought and the verdicts that follow from it at once; then tell."""
        finals = self._hearsay.without(sip.finals, sip.starts)
        if not (sip.starts or sip.handed_on or finals):
            if (
                sip.moved and sip.position is not None
            ):  # so that --manifest-resume does not read it again
                self._ledger.set_meta("stream_position", sip.position)
            return
        now = time.monotonic()
        if self._search is not None:
            self._search.news(now)
        judged: list[Judged] = []
        with self._ledger.transaction():
            self._ledger.add_starts(sip.starts)
            repeated: list[str] = []
            for start in sip.starts:
                self._supervision.began(start.worker)
                flight = self.flights.by_task_id.get(start.task_id)
                if flight is None or flight.started is not None:
                    repeated.append(start.task_id)
                    self._bench.scales.heard_again(start)
                self.flights.started(start, now)
            self._ledger.add_handed_on(sip.handed_on)
            for end in sip.handed_on:
                self.flights.handed_on(end)
            self._ledger.add_receipts(finals)
            known = self._starts_of(finals)
            for task_id, said in _by_attempt(finals).items():
                flight = self.flights.land(task_id)
                if flight is None:
                    judged += self._bench.late(task_id)
                    self._landed.append(task_id)
                else:
                    starts = known.get(task_id, ())
                    judged += self._conclude(flight, *self._bench.weigh(flight, said, starts))
            for task_id in repeated:
                judged += self._started_again(task_id)
            self._ledger.record_verdicts(judged)
            self._account()
            if sip.position is not None:
                self._ledger.set_meta("stream_position", sip.position)
        if not self._ledger.commits_deferred:
            self._gatherer.trim()
        self._tell([verdict for verdict, _ in judged])
        self._take_out_quarantined()

    def _starts_of(self, finals: Iterable[Final]) -> Mapping[str, Sequence[Start]]:
        """The starts of these attempts; hardly one has more than that which was just heard of."""
        known: dict[str, Sequence[Start]] = {}
        asked: list[str] = []
        for task_id, _, _ in finals:
            flight = self.flights.by_task_id.get(task_id)
            if flight is None or flight.begun is None:
                asked.append(task_id)
            else:
                known[task_id] = (flight.begun,)
        return known | self._ledger.starts_of(asked)

    def _conclude(
        self, flight: InFlight, verdict: Verdict, receipt: Receipt | None
    ) -> list[Judged]:
        """What follows from an attempt's verdict: the entry's, or another attempt.

        To be called within a transaction, for a flight that has landed.
        """
        self._landed.append(flight.task_id)
        if not self._signals.stop.is_set() and self._schedule.closed is None:
            again = self._bench.next_attempt(flight, verdict, receipt)
            if again is not None:
                self._schedule.add(again)
                return []
        verdict = self._bench.final(flight, verdict)
        return [(verdict, receipt), *self._finish(flight.entry.id, verdict.verdict)]

    def _finish(self, entry: str, kind: VerdictStatus) -> list[Judged]:
        """Tell the schedule of a final verdict; returns those of what can never be sent for it."""
        was_open = self._schedule.closed is None
        held = self._schedule.finished(entry, kind)
        closes = was_open and self._schedule.closed is not None
        if closes and self._settings.revoke_on_max_failed:
            self._quarantined += self.flights.unstarted()
        return self._bench.held(held)

    def _account(self) -> None:
        """Tell the budget what attempts that have landed have cost, by all that is written down."""
        landed, self._landed = self._landed, []
        budget = self._schedule.budget
        for task_id in landed if budget is not None else ():
            cost = self._bench.cost(task_id)
            if budget is not None and cost is not None:
                budget.landed(task_id, cost)

    def _started_again(self, task_id: str) -> list[Judged]:
        """A job was started a second time: after its end, or because it kills its workers."""
        flight = self.flights.by_task_id.get(task_id)
        if flight is None:
            self._landed.append(task_id)
            if self._bench.goes_on_killing(task_id):  # nobody else would get a turn
                self._quarantined.append(task_id)
            return self._bench.started_after_end(task_id)
        verdict = self._bench.quarantine(flight)
        if verdict is None:
            return []
        self.flights.land(task_id)
        self._quarantined.append(task_id)
        return self._conclude(flight, verdict, None)

    def _take_out_quarantined(self) -> None:
        if self._quarantined:
            task_ids, self._quarantined = self._quarantined, []
            self._taken_out += task_ids
            self._revoke(task_ids)

    def _remind_workers(self, now: float) -> None:
        """Workers keep revocations in memory: one that was started since knows of none, and would
        run what has killed it as soon as the broker hands it out again."""
        if self._taken_out and now >= self._remind_at:
            self._remind_at = now + REMIND_PERIOD
            self._revoke(self._taken_out)

    def _speak(self, flights: Iterable[Word]) -> None:
        """Judge attempts that no receipt will come of; they must have landed."""
        judged: list[Judged] = []
        with self._ledger.transaction():
            for flight, kind, note in flights:
                kind, note = self.unread.word(flight, kind, note)
                verdict, receipt = self._bench.word_on(flight, kind, note)
                if receipt is not None and flight.hearsay is not None:  # it counts now
                    self._ledger.add_receipts([(flight.task_id, None, flight.hearsay)])
                judged += self._conclude(flight, verdict, receipt)
            self._ledger.record_verdicts(judged)
            self._account()
        self._tell([verdict for verdict, _ in judged])
        self._take_out_quarantined()

    def _speak_for_unsent(self, unsent: Sequence[Held], kind: VerdictStatus) -> None:
        """Judge what was never sent, and will not be: refused, or overdue within an outage."""
        if not unsent:
            return
        with self._ledger.transaction():
            judged = self._bench.unsent(unsent, kind)
            for one in unsent:
                if self._schedule.budget is not None:
                    self._schedule.budget.stay(one.attempt.task_id)
                judged += self._finish(one.attempt.entry.id, kind)
            self._ledger.record_verdicts(judged)
        self._tell([verdict for verdict, _ in judged])
        self._take_out_quarantined()

    def _hold(self, held: Sequence[Held]) -> None:
        if held:
            with self._ledger.transaction():
                judged = self._bench.held(held)
                self._ledger.record_verdicts(judged)
            self._tell([verdict for verdict, _ in judged])

    # What is overdue or missing

    def _attend(self, now: float) -> None:
        """Speak for the jobs that nobody else will speak for any more."""
        self._remind_workers(now)
        if self._supervision.attend(now) and self._search is not None:
            self._search.look_soon(now, *AFTER_LOSS)
        self._give_up_overdue(now)
        if self._sender is not None:
            self._speak_for_unsent(self._sender.overdue(now), "timed_out")
        if self._search is not None:
            located = self._search.tick(now)
            if located is not None:
                self.act_on(located)

    def _give_up_overdue(self, now: float) -> None:
        overdue = self.flights.overdue(now)
        if not overdue:
            return
        try:
            # Once more, for a receipt that is there and has only not been read yet.
            self._take(self._gatherer.sweep_all({i: o.flight for i, o in overdue.items()}))
        except StackError as error:
            self._log.warning("no last look for overdue jobs: {}", error)
        self._taking_back.withdraw_overdue(overdue)
        late = {i: o for i, o in overdue.items() if self.flights.land(i) is not None}
        self.given_up += len(late)
        self._speak((o.flight, o.kind, o.note) for o in late.values())

    def act_on(self, located: Located) -> None:
        """Put back, take out, send again or give up what two looks have found."""
        if not (located.orphaned or located.nowhere):
            return
        self.believe(located.nowhere)
        try:
            self.look_once()  # for a receipt that came between the two looks
            self._parts.note_strangers()
            begun = self.mend(located)
        except StackError as error:
            self._log.warning("what was found could not be mended: {}", error)
            if self._search is not None:
                self._search.look_soon(time.monotonic(), AGAIN)
            return
        self._give_up(begun, located.nowhere)

    def _give_up(self, begun: Iterable[str], nowhere: Iterable[str]) -> None:
        """Judge what its worker died of or with, and what nobody has any more."""
        intact = self._is_intact()
        rows: list[Word] = [
            (flight, "crashed", self._bench.how_it_died(flight))
            for flight in self.flights.land_all(begun)
        ]
        for flight in self.flights.land_all(nowhere):
            if flight.started is None and intact is not False and self._send_again(flight):
                continue
            kind, note = self._bench.missing(flight, emptied=intact is False)
            rows.append((flight, kind, note))
        self._speak(rows)

    def _send_again(self, flight: InFlight) -> bool:
        """Publish a message anew that got lost on its way, and that nobody can have begun."""
        if self._sender is None:
            return False
        if self.unread.of(flight.task_id):
            return False
        told = self._gatherer.hears_starts and not may_lack_starts(self._ledger)
        return (told or flight.entry.idempotent) and self._sender.send_again(flight.attempt)

    def _is_intact(self) -> bool | None:
        try:
            intact = self._gatherer.intact()
        except StackError as error:
            self._log.warning("the receipts stream could not be looked at: {}", error)
            return None
        if intact is False and self._ledger.get_meta(STORE_EMPTIED) is None:
            self._ledger.set_meta(STORE_EMPTIED, "1")
            self._parts.findings.append(
                "the result store was emptied, or lost what it held, while the run was going on"
            )
        return intact

    # The end

    def _last_look(self) -> None:
        try:
            self.look_once()
        except StackError as error:
            self._log.warning("no last look before the deadline: {}", error)

    def _drain(self) -> None:
        """Every verdict is there: see whether messages of ours are left, which would run again."""
        publisher = self._publisher
        if publisher is None or not self._parts.owned or self._settings.send_only:
            return
        until = time.monotonic() + DRAIN
        try:
            while any(publisher.queue_lengths(self._parts.queues).values()):
                if time.monotonic() > until or self._signals.stop.wait(SIP_PERIOD):
                    return
                self._sip()
            self._sip()
        except StackError as error:
            self._log.warning("no look for what is left in the queues: {}", error)

    def _revoke(self, task_ids: Sequence[str]) -> None:
        """Have the workers drop what is sent and not finished."""
        if self._publisher is None or not task_ids:
            return
        self._bench.scales.take_back(f for f in map(self.flights.by_task_id.get, task_ids) if f)
        try:
            self._publisher.revoke(task_ids)
        except StackError as error:
            self._log.warning("what is queued could not be revoked: {}", error)

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        if not verdicts:
            return
        others = [verdict for verdict in verdicts if verdict.verdict != "passed"]
        for verdict in others:
            self._log.bind(entry=verdict.entry).debug("{}: {}", verdict.verdict, verdict.sentence)
        if len(others) < len(verdicts):  # the ledger has each, and a line for each would cost more
            self._log.debug("{} passed", len(verdicts) - len(others))
        self._signals.settled([verdict.entry for verdict in verdicts])


def _by_attempt(finals: Iterable[Final]) -> Mapping[str, Sequence[Said]]:
    """All that was said of the end of each attempt, in the order in which it was."""
    found: dict[str, list[Said]] = {}
    for task_id, execution, receipt in finals:
        found.setdefault(task_id, []).append((execution, receipt))
    return found
