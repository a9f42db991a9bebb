"""The thread of a run: it sends, gathers and judges, and commits before it tells."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from loguru import logger

from pytest_manifest.dispatch.attempt import Attempt
from pytest_manifest.dispatch.orphans import OrphanSearch
from pytest_manifest.dispatch.preflight import add_consumers
from pytest_manifest.dispatch.publisher import Publisher
from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.gather.gatherer import Gatherer, Sip
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.flights import Flights
from pytest_manifest.run.receipts import complete_receipt
from pytest_manifest.run.settings import RunSettings, WorkerLoss
from pytest_manifest.schema import Receipt, Verdict, VerdictKind
from pytest_manifest.verdict import judge

SIP_PERIOD = 0.05
"""Seconds from one look at the receipts to the next: eager reading costs three times as much."""
BATCH = 500
FIRST_BATCH = 20
"""A small first batch lets the first job start while the rest is still being written."""
REPAIRS_AFTER = (2.0, 5.0, 10.0, 20.0)
"""Seconds after a worker's death at which its successor may be up and be asked."""
LOOK_GAP = 1.0
QUIET = 5.0
"""Seconds without any news after which a stack of our own is asked where the jobs are."""
PATIENCE = 60.0
"""Seconds that broker and result store may be out of reach before a run gives up."""

Judged = tuple[Verdict, Receipt | None]


@dataclass
class Signals:
    """How the thread and the rest of the process speak: ``settled`` is called with entry ids."""

    stop: threading.Event = field(default_factory=threading.Event)
    all_sent: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    settled: Callable[[Sequence[str]], None] = lambda _entries: None
    lost_workers: Callable[[], Sequence[WorkerLoss]] = lambda: ()
    stack_failure: Callable[[], str | None] = lambda: None


class Outage:
    """How long something has been out of reach without a break."""

    def __init__(self) -> None:
        self._since: float | None = None

    def goes_on(self) -> bool:
        """Note a failure; true when they have gone on for longer than our patience."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since > PATIENCE

    def over(self) -> None:
        self._since = None


class Engine:
    """One pass through a run's work, with everything it needs open. Use it from one thread."""

    def __init__(
        self,
        run: str,
        manifest: Manifest,
        settings: RunSettings,
        signals: Signals,
        ledger: Ledger,
        gatherer: Gatherer,
        publisher: Publisher | None,
        to_send: list[Attempt],
        added_queues: Sequence[str] = (),
        orphans: OrphanSearch | None = None,
        queues: Sequence[str] = (),
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._signals = signals
        self._ledger = ledger
        self._gatherer = gatherer
        self._publisher = publisher
        self._to_send = to_send
        self._sent = 0
        self._sending, self._gathering = Outage(), Outage()
        self._losses_seen = 0
        self._fresh_losses: Sequence[WorkerLoss] = ()
        self._added_queues = list(added_queues)
        self._orphans = orphans
        self._queues = list(queues)
        self._quiet_since = time.monotonic()
        self._nowhere: set[str] = set()
        self._after_loss: deque[tuple[float, Callable[[], object]]] = deque()
        self._log = logger.bind(run=run)
        self.flights = Flights()

    @property
    def _all_sent(self) -> bool:
        return self._sent >= len(self._to_send)

    @property
    def _room(self) -> bool:
        return not self._all_sent and len(self.flights) < self._settings.window

    def work(self) -> None:
        """Send and gather until every entry has its verdict, time is over, or it is stopped.

        Raises StackError where broker or result store stay out of reach, or the stack has ended.
        """
        deadline = time.monotonic() + self._settings.deadline
        while not self._signals.stop.is_set():
            began = time.monotonic()
            failure = self._signals.stack_failure()
            if failure is not None:
                raise StackError(failure)
            self._send_some()
            if self._all_sent and (self._settings.send_only or not self.flights):
                return
            self._sip()
            self._expire()
            if time.monotonic() > deadline:
                self._last_look()
                note = f"the run's deadline of {self._settings.deadline:g} s is over"
                self.settle_rest("timed_out", note)
                return
            if not self._room:
                self._signals.stop.wait(max(0.0, SIP_PERIOD - (time.monotonic() - began)))

    def _last_look(self) -> None:
        try:
            self.look_once()
        except StackError as error:
            self._log.warning("no last look before the deadline: {}", error)

    def look_once(self) -> None:
        """Gather everything that is there now, and wait for nothing."""
        self._take(self._gatherer.sweep_all(self.flights.by_task_id))

    def revoke_queued(self) -> None:
        """Have the workers drop what is sent and not finished."""
        if self._publisher is None or not self.flights:
            return
        try:
            self._publisher.revoke(list(self.flights.by_task_id))
        except StackError as error:
            self._log.warning("what is queued could not be revoked: {}", error)

    def settle_rest(self, kind: VerdictKind, note: str) -> None:
        """Give every entry that has no verdict this one."""
        judged: list[Judged] = []
        for row in self._ledger.attempts(unsettled=True):
            why = f"{note}; it had not been sent yet" if row.state == "planned" else note
            entry = self._manifest[row.entry]
            judged.append((judge(entry, None, attempt=row.attempt, problem=kind, note=why), None))
        self.flights.clear()
        self.commit(judged)

    def commit(self, judged: Iterable[Judged]) -> None:
        """Write verdicts down, then tell."""
        rows = list(judged)
        if rows:
            with self._ledger.transaction():
                self._ledger.settle(rows)
            self._tell([verdict for verdict, _ in rows])

    # Sending

    def _send_some(self) -> None:
        if self._publisher is not None and self._room:
            size = min(
                BATCH if self._sent else FIRST_BATCH, self._settings.window - len(self.flights)
            )
            self._publish(self._publisher, self._to_send[self._sent : self._sent + size])
        if self._all_sent:
            self._signals.all_sent.set()

    def _publish(self, publisher: Publisher, batch: Sequence[Attempt]) -> None:
        """Intent is in the ledger before the broker is asked, and what came of it right after."""
        sent_at = utc_now()
        with self._ledger.transaction():
            self._ledger.mark((a.task_id for a in batch), "intent", sent_at=sent_at)
        try:
            result = publisher.publish(batch, sent_at)
        except DispatchError as error:  # nothing of the batch was sent
            with self._ledger.transaction():
                self._ledger.mark((a.task_id for a in batch), "planned", note=str(error))
            raise
        with self._ledger.transaction():
            self._ledger.mark(result.certain, "sent")
            self._ledger.mark(result.uncertain, "uncertain", note=result.error)
            self._ledger.mark(result.unsent, "planned", note=result.error)
        now = time.monotonic()
        unsent = set(result.unsent)
        for attempt in batch:
            if attempt.task_id not in unsent:
                self.flights.follow(attempt, now)
        self._sent += len(batch)
        self._to_send[self._sent : self._sent] = [a for a in batch if a.task_id in unsent]
        if result.error is None:
            self._sending.over()
        else:
            fault = f"the broker failed while jobs were being sent: {result.error}"
            self._trouble(self._sending, StackError(fault))

    def _trouble(self, outage: Outage, error: StackError) -> None:
        """Broker or store is out of reach: be patient for a while, then give up."""
        if outage.goes_on():
            raise error
        self._log.warning("{}; trying again", error)
        self._signals.stop.wait(0.5)

    # Gathering and judging

    def _sip(self) -> None:
        block_ms = 0 if self._room else int(SIP_PERIOD * 1000)
        try:
            sip = self._gatherer.sip(self.flights.by_task_id, block_ms)
        except StackError as error:
            self._trouble(self._gathering, error)
            return
        self._gathering.over()
        self._take(sip)

    def _take(self, sip: Sip) -> None:
        """Commit what a sip brought and the verdicts that follow from it at once; then tell."""
        if not sip:
            return
        now = self._quiet_since = time.monotonic()
        judged: list[Judged] = []
        with self._ledger.transaction():
            self._ledger.add_starts(sip.starts)
            for start in sip.starts:
                self.flights.started(start.task_id, start.worker, now)
            self._ledger.add_receipts(sip.finals)
            for task_id, _, receipt in sip.finals:
                judged += self._judge(task_id, receipt)
            self._ledger.settle(judged)
            if sip.position is not None:
                self._ledger.note("stream_position", sip.position)
        self._tell([verdict for verdict, _ in judged])

    def _judge(self, task_id: str, receipt: Receipt) -> list[Judged]:
        """The verdict that a final receipt brings; none where it is late and changes nothing."""
        flight = self.flights.by_task_id.get(task_id)
        if flight is not None and flight.entry.id != receipt.entry:
            self._log.warning("a receipt of {!r} came for {!r}", receipt.entry, flight.entry.id)
            return []
        whole = complete_receipt(receipt, self._ledger.starts(task_id))
        if self.flights.land(task_id) is not None and flight is not None:
            return [(judge(flight.entry, whole, attempt=flight.number), whole)]
        if whole.executions < 2 or whole.entry not in self._manifest.ids:
            return []
        entry = self._manifest[whole.entry]
        return [(judge(entry, whole, attempt=whole.attempt), whole)]

    def _expire(self) -> None:
        """Speak for the jobs that nobody else will speak for any more."""
        now = time.monotonic()
        # One sip after the news of a death, so that the starts that came before it are known.
        for loss in self._fresh_losses:
            self.flights.worker_lost(loss, now)
        losses = self._signals.lost_workers()
        self._fresh_losses = losses[self._losses_seen :]
        if self._fresh_losses:
            self._after_loss = deque((now + after, do) for after, do in self._repairs())
        self._losses_seen = len(losses)
        while self._after_loss and self._after_loss[0][0] <= now:
            self._repair(self._after_loss.popleft()[1])
        self._give_up_overdue(now)
        self._give_up_lost(now)

    def _give_up_lost(self, now: float) -> None:
        """On a stack of our own that is idle: what is nowhere, twice, is lost."""
        orphans = self._orphans
        if orphans is None or not self._all_sent or now - self._quiet_since < QUIET:
            return
        self._quiet_since = now
        waiting = self.flights.unstarted()
        if not waiting or not self._is_nowhere(orphans, waiting):
            self._nowhere = set()
            return
        if waiting != self._nowhere:
            self._nowhere = waiting
            return
        self.look_once()
        judged: list[Judged] = []
        for task_id in waiting & self.flights.unstarted():
            flight = self.flights.land(task_id)
            if flight is not None:
                note = "it is in no queue, and no worker has it or has begun it"
                verdict = judge(
                    flight.entry, None, attempt=flight.number, problem="lost", note=note
                )
                judged.append((verdict, None))
        self.commit(judged)

    def _is_nowhere(self, orphans: OrphanSearch, waiting: set[str]) -> bool:
        try:
            return orphans.nowhere(waiting, self._queues)
        except Exception as error:  # the broker may be away: there is a next time
            self._log.warning("the jobs could not be looked for: {}", error)
            return False

    def _give_up_overdue(self, now: float) -> None:
        overdue = self.flights.overdue(now)
        if not overdue:
            return
        try:
            # Once more, for a receipt that is there and has only not been read yet.
            self._take(self._gatherer.sweep_all({i: o.flight for i, o in overdue.items()}))
        except StackError as error:
            self._log.warning("no last look for overdue jobs: {}", error)
        judged: list[Judged] = []
        for task_id, late in overdue.items():
            flight = self.flights.land(task_id)
            if flight is not None:
                verdict = judge(
                    flight.entry, None, attempt=flight.number, problem=late.kind, note=late.note
                )
                judged.append((verdict, None))
        self.commit(judged)

    def _repairs(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """What to do, and how many seconds after a worker died: its successor must be up."""
        publisher, orphans = self._publisher, self._orphans
        for after in REPAIRS_AFTER:
            if publisher is not None and self._added_queues:
                # A worker that was started anew consumes only the queues of its app.
                yield after, lambda: add_consumers(publisher, self._added_queues)
            if orphans is not None:
                yield after, lambda: orphans.look(self.flights.unstarted())
                yield after + LOOK_GAP, lambda: orphans.restore(self.flights.unstarted())

    def _repair(self, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # the broker may be away: there is a next time
            self._log.warning("a repair after a worker's death did not succeed: {}", error)

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            self._log.bind(entry=verdict.entry).debug("{}: {}", verdict.verdict, verdict.sentence)
        if verdicts:
            self._signals.settled([verdict.entry for verdict in verdicts])
