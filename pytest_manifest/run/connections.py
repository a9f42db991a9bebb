"""Open and close what a run talks to: broker, locator, collector; and follow its workers."""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Final, Literal, TypeAlias

from loguru import logger

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.bounded import BoundedCaller, WaitBudget
from pytest_manifest.broker.locating import Locator, open_locator, queues_of
from pytest_manifest.broker.locating.worker_replies import (
    describe_workers,
    find_workers,
    may_be_alive,
    stack_errors,
    unresponsive_nodes,
)
from pytest_manifest.broker.preflight import (
    Presence,
    add_consumers,
    look_for_unreadable,
    look_for_workers,
    serve,
)
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.redelivery import Visibility, visibility_of
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Descendant, Ledger, RunInfo
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.records import ReadErrors, ReceiverFailedRecord
from pytest_manifest.results.stream import StreamReader, has_stream, open_client_at
from pytest_manifest.run import fact_log
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.inflight import PendingAttempts, node_of
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.pressure import Health, Pressure
from pytest_manifest.run.resume_rules import Decision
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.search import AFTER_LOSS, Departures, WorkerFacts, facts_of
from pytest_manifest.run.settings import RunSettings, Signals, WorkerLoss
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import HandedOn
from pytest_manifest.schema.run_facts import NodeFact
from pytest_manifest.schema.tracing import RunTrace
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.text import middle, one_line, plural, seconds, short
from pytest_manifest.urls import StackAddress


@dataclass
class RunState:
    """Hold one run's inputs, and what comes up while it is prepared and goes on."""

    manifest: Manifest
    files: RunFiles
    info: RunInfo
    address: StackAddress
    settings: RunSettings
    signals: Signals = field(default_factory=Signals)
    wait_budget: WaitBudget = field(default_factory=WaitBudget)
    pending: PendingAttempts = field(default_factory=PendingAttempts)
    to_send: Sequence[Attempt] = ()
    decisions: Sequence[Decision] = ()
    """What is done with each entry of a run that is resumed."""
    costs: dict[str, Decimal] = field(default_factory=dict)
    """What attempts of an earlier part of the run have cost, by task id."""
    workers: int | None = None
    """Jobs that the workers which answered run at once; None where that is not known."""
    leaves_jobs: bool = False
    """Whether a stack of ours may still hold jobs for a resume to take up: from the start until
    an end in good order shows that it does not, however much goes wrong between."""
    notices: list[str] = field(default_factory=list)
    """Messages to be shown before the first test."""
    live_warnings: list[str] = field(default_factory=list)
    """Messages to be shown at once, while the run is going on."""
    warnings: list[str] = field(default_factory=list)
    """Messages for the summary."""

    def __post_init__(self) -> None:
        self.lock = RunLock(self.files.lock)


NodeFinding: TypeAlias = Literal["reports", "stock", "unserved", "nobody", "silent"]
CRASH_LOOP = 6
"""Deaths in a row of one worker, none of them after it had started a job, that end the run."""


@dataclass(eq=False)
class Part:
    """Base of the parts of an engine. Use each from the engine's thread."""

    _context: EngineContext

    def __post_init__(self) -> None:
        context = self._context
        self._signals = context.signals
        self._ledger, self._facts, self._pending = context.ledger, context.facts, context.pending
        self._collector, self._schedule = context.collector, context.schedule
        self._publisher, self._locator = context.publisher, context.locator
        self._log = logger.bind(run=context.run)


class WorkerDeaths(Part):
    """Follow the worker deaths that the stack's supervisor reports."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen = 0
        self._fresh: Sequence[WorkerLoss] = ()
        self._idle_deaths: Counter[str] = Counter()
        self._due: deque[float] = deque()

    def has_started(self, worker: str | None) -> None:
        """Note that a worker started a job: whatever ended it before, it works."""
        self._idle_deaths.pop(node_of(worker) or "", None)

    def check(self, now: float) -> bool:
        """Note the deaths since the last call; return whether there are any.

        Raises StackError where a worker dies again and again before it starts any job.
        """
        # One call after the news of a death, so that the starts that came before it are known.
        for loss in self._fresh:
            for job in self._pending.worker_lost(loss):
                self._facts.gone(job)
            self._count(loss)
        losses = self._signals.lost_workers()
        self._fresh, self._seen = losses[self._seen :], len(losses)
        if self._fresh and self._context.added_queues:
            self._due = deque(now + after for after in AFTER_LOSS[1:])
        while self._due and self._due[0] <= now:
            self._due.popleft()
            self._add_consumers()
        return bool(self._fresh)

    def _count(self, loss: WorkerLoss) -> None:
        self._idle_deaths[loss.worker] += 1
        deaths = self._idle_deaths[loss.worker]
        if deaths >= CRASH_LOOP:
            tail = "".join(f"\n    {line}" for line in loss.tail)
            raise StackError(
                f"worker {loss.worker} ended {deaths} times in a row before it began any job "
                f"(exit code {loss.returncode}); mend what ends it, then go on with "
                "--manifest-resume"
                f"{':' if tail else ''}{tail}"
            )

    def _add_consumers(self) -> None:
        """Add the run's queues to restarted workers, which consume only those of their app."""
        if self._publisher is None:
            return
        try:
            add_consumers(self._publisher, self._context.added_queues)
        except Exception as error:  # the broker may be away: there is a next time
            logger.warning("a new worker was not informed of its queues: {}", error)


def record_known_workers(ledger: Ledger, publisher: Publisher, telling: Collection[str]) -> None:
    """Record, before anything is sent, the nodes that report starts or have ended already.

    Raises StackError where the broker is away.
    """

    def silent() -> frozenset[str]:
        listed = unresponsive_nodes(publisher, telling)
        # A node that is busy now is of unknown kind.
        return frozenset() if may_be_alive(publisher, listed, telling) else listed

    with stack_errors(publisher):
        ended = publisher.call(silent)
    before = _named(ledger.jobs.run_facts().nodes, "reports")
    add_nodes(ledger, (frozenset(telling) | ended) - before, "reports")


def record_unknown_workers(ledger: Ledger, publisher: Publisher) -> None:
    """Record which workers may have started a job unreported: those present and those before.

    A worker without receipts may join later, take a job, and die in it before any query. Its name,
    which a Redis broker keeps, is all that is left; from then on a job without a start may have
    been started. Raises StackError where the broker is away.
    """
    now = find_workers(publisher)
    nodes = ledger.jobs.run_facts().nodes
    before = _named(nodes, "reports")
    known = before.union(now.instrumented, ledger.events.workers_with_starts())
    with ledger.writing():
        add_nodes(ledger, now.stock - _named(nodes, "stock"), "stock")
        add_nodes(ledger, known - before, "reports")
        # One that was only slow to answer is none any more once it has.
        add_nodes(ledger, now.unresponsive - known - _named(nodes, "silent"), "silent")


def add_nodes(ledger: Ledger, nodes: Collection[str], what: NodeFinding) -> None:
    """Record what was found of these nodes.

    "reports": they cannot have started a job of the run unreported, as they report each start, or
    had ended before the first was sent.
    """
    ledger.facts.append((None, NodeFact(**stamp(), name=one, what=what)) for one in sorted(nodes))


def _named(nodes: Iterable[NodeFact], what: NodeFinding) -> frozenset[str]:
    """Return the names of those of which this was found."""
    return frozenset(one.name for one in nodes if one.what == what)


class RunConnections:
    """Hold a run's publisher and locator, and what the preflight found of the stack."""

    def __init__(self, state: RunState, *, keeps_stream: bool = False) -> None:
        self._state = state
        self._keeps_stream = keeps_stream
        """Whether receipts are left in their stream: another ledger is to have them, too."""
        self.publisher: Publisher | None = None
        self.locator: Locator | None = None
        self.slots = 0
        """Jobs that the workers run at once; 0: not known."""
        self.nodes: set[str] = set()
        self.departures = Departures(self._describe_workers)
        self.queues: Sequence[str] = []
        self.added_queues: Sequence[str] = []
        self.held_for: Visibility | None = None
        self._session = secrets.token_hex(8)
        """A name of this session, by which other sessions on the same stream are told from it."""

    def open_publisher(self) -> Publisher:
        """Open the publisher; :meth:`close` closes it."""
        state = self._state
        self.publisher = Publisher(
            state.address,
            stream=stream_key(state.info.run),
            ttl=state.info.stream_ttl,
            budget=state.wait_budget,
            own_apply_async=state.settings.own_apply_async,
            trace=self._trace() if state.settings.traces else None,
        )
        return self.publisher

    def _trace(self) -> RunTrace:
        with Ledger.open(self._state.files.ledger) as ledger:
            return ledger.info.trace()

    def close(self) -> None:
        """Close the publisher; harmless when none is open."""
        publisher, self.publisher = self.publisher, None
        if publisher is not None:
            publisher.close()

    def add_queues(self, entries: Iterable[Entry]) -> None:
        """Count the queues of these entries among the run's, too."""
        assert self.publisher is not None
        self.queues = sorted({*self.queues, *queues_of(self.publisher, entries)})

    def _describe_workers(self) -> Mapping[str, WorkerFacts]:
        """Ask the workers what they are. Raises StackError where the broker is away."""
        return {} if self.publisher is None else facts_of(describe_workers(self.publisher))

    def open_locator(self, publisher: Publisher, entries: Iterable[Entry]) -> Locator:
        """Open the job locator; ``entries`` are those whose queues no preflight has reported.

        Do not call it in the run's thread: it imports, and two threads of CPython 3.11 that parse
        at once disturb one another ("AST constructor recursion depth mismatch").
        """
        self.queues = sorted({*self.queues, *queues_of(publisher, entries)})
        self.locator = open_locator(publisher, self.queues, self.nodes)
        return self.locator

    def serve_queues(self) -> None:
        """Have the workers of our own stack consume all queues of the run.

        A preflight has seen to those of what is sent, but not to those of what waits already.
        """
        if self.publisher is not None and self._state.address.is_private:
            others = [name for name in self.queues if name not in self.added_queues]
            self.added_queues = [*self.added_queues, *serve(self.publisher, others)]

    def open_collector(self, position: str) -> ReceiptCollector:
        """Open the collector of receipts, which reads the run's stream from this position on."""
        address, warnings = self._state.address, self._state.warnings
        stream, flaws = None, ReadErrors(warnings)
        if has_stream(address.backend_url):
            stream = StreamReader(
                address.backend_url,
                stream_key(self._state.info.run),
                position=position,
                keeps_records=self._keeps_stream,
                flaws=flaws,
                opener=partial(open_client_at, address),
                session=self._session,
            )
        caller = BoundedCaller(address.backend_url, self._state.wait_budget)
        return ReceiptCollector(stream, ResultReader(address, flaws), caller, flaws)

    @property
    def result_lifetime(self) -> float:
        """Return the seconds for which the outcome of a job can be read."""
        expires = None if self.publisher is None else self.publisher.result_expires
        stream = float(self._state.info.stream_ttl)
        return stream if expires is None else min(stream, expires)

    def record_unknown_workers(self, ledger: Ledger) -> None:
        """Record workers that this run has not seen; our own stack has none."""
        if self.publisher is not None and not self._state.address.is_private:
            record_unknown_workers(ledger, self.publisher)


MOST: Final = 10
"""Receivers of which a run speaks."""
LONGEST: Final = 120
"""Characters of a receiver's name, and of its error."""


class FailedReceivers:
    """Keep one warning for each receiver and kind of error, with how often it was seen."""

    def __init__(self, warnings: list[str], live: list[str]) -> None:
        self._warnings, self._live = warnings, live
        self._found: dict[tuple[str, str, bool], tuple[ReceiverFailedRecord, int]] = {}

    def note(self, failures: Iterable[ReceiverFailedRecord]) -> None:
        """Take note of failures, and warn of each kind at once."""
        for failure in failures:
            key = failure.receiver, failure.error.partition(":")[0], failure.at_start
            first, count = self._found.get(key, (failure, 0))
            if not count and len(self._found) >= MOST:
                continue
            self._found[key] = first, count + 1
            before, sentence = _sentence(first, count), _sentence(first, count + 1)
            if not count:
                self._warnings.append(sentence)
                self._live.append(sentence)
            elif before in self._warnings:
                self._warnings[self._warnings.index(before)] = sentence


def _sentence(failure: ReceiverFailedRecord, number: int) -> str:
    what = f"{_line(failure.receiver)} raised {_line(failure.error)}"
    if failure.at_start:
        return (
            f"when a worker started, {what}. What this receiver of Celery's signals sets up is "
            "missing there: start from the worker's log. Where a command of the project's own "
            "prepares the app, name a module that does so, too, as the app (--manifest-app)"
        )
    where = f"{plural(number, 'time')}, first at {_line(repr(failure.entry))}"
    return (
        f"{what} ({where}). Celery leaves a job's state as it is when a receiver of its signals "
        "fails: see whether what this one does is done"
    )


def _line(text: str) -> str:
    return middle(one_line(text), LONGEST)


MOST_DELAYS: Final = 20
"""Tasks of which a message says that a delay is too long for the broker."""


@dataclass(eq=False)
class EngineContext:
    """Hold everything that an engine works with, open and ready.

    ``sends``: whether messages may be published; ``to_repeat``: entries that are sent again when
    their attempt's tree has ended, unless it has passed.
    """

    state: RunState
    connections: RunConnections
    ledger: Ledger
    collector: ReceiptCollector
    facts: fact_log.FactLog
    schedule: Schedule
    sends: bool = True
    to_repeat: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        state, connections = self.state, self.connections
        self.run, self.manifest, self.pending = state.info.run, state.manifest, state.pending
        self.settings, self.signals = state.settings, state.signals
        self.is_private, self.wait_budget = state.address.is_private, state.wait_budget
        self.warnings, self.live_warnings = state.warnings, state.live_warnings
        self.window = state.settings.window_for(connections.slots)
        self.publisher = connections.publisher if self.sends else None
        self.locator, self.departures = connections.locator, connections.departures
        self.queues, self.added_queues = connections.queues, connections.added_queues
        self.held_for = connections.held_for
        self.record_unknown_workers: Callable[[], None] = partial(
            connections.record_unknown_workers, self.ledger
        )
        self.look_for_workers: Callable[[], Presence] | None = None
        """Look for workers of the run's queues, ``look_for_unreadable`` for such that cannot decode
        its messages. Both raise StackError where the broker is away."""
        if connections.publisher is not None:
            publisher = connections.publisher
            self.look_for_workers = lambda: look_for_workers(publisher, self.queues)
            self.look_for_unreadable = partial(look_for_unreadable, publisher)
        limits, settings = self.schedule.key_limits, state.settings
        self.pressure = Pressure(
            self.facts,
            *(settings.rates if self.sends else {}, settings.queue_depth, self._longest_queue),
            health=Health(state.signals.health, self.warnings, self.live_warnings),
            keys=None if limits is None else limits.rates,
        )
        self.receivers = FailedReceivers(self.warnings, self.live_warnings)
        self.clock = fact_log.ClockWatch(self.ledger)
        self._noted_delays: set[str] = set()
        for name in self.pending.queues:
            self.search_queue(name)

    def _longest_queue(self) -> tuple[str, int]:
        """Return the longest of the run's queues and its messages. Raises StackError."""
        assert self.publisher is not None
        counts = self.publisher.queue_lengths(self.queues)
        return max(counts.items(), key=itemgetter(1), default=("", 0))

    def meet(self, one: Descendant, is_awaited: bool) -> None:
        """Take note of a descendant that was reported: its queue, and its countdown or ETA."""
        if is_awaited and one.queue is not None:
            self.search_queue(one.queue)
        if one.due is not None:
            self._check_delay(f"task {short(one.task)}, which a job started", one.delay)

    def meet_next_try(self, end: HandedOn) -> None:
        """Take note of a job that waits for its next try: its queue, and its countdown or ETA."""
        job = self.pending.by_task_id.get(end.job)
        if job is None:
            return
        if end.queue is not None:
            self.search_queue(end.queue)
        if end.next_at is not None and end.ended_at is not None:
            delay = (end.next_at - end.ended_at).total_seconds()
            self._check_delay(f"the next try of task {job.entry.task!r}", delay)

    def _check_delay(self, what: str, delay: float) -> None:
        """Warn where a worker will hold a message for longer than the broker lets it.

        Of entries this is checked before they are sent.
        """
        held_for = self.held_for
        if held_for is None and self.publisher is not None:
            asks_app = self.publisher.transport.visibility_timeout is not None
            held_for = visibility_of(self.publisher, (), ()) if asks_app else None
        if held_for is None or delay < held_for.timeout:
            return
        if what in self._noted_delays or len(self._noted_delays) >= MOST_DELAYS:
            return
        self._noted_delays.add(what)
        sentence = (
            f"{what}, has a countdown or an ETA of {seconds(delay)}, but this broker hands a "
            f"message that a worker holds to another one after {seconds(held_for.timeout)}, so it "
            f"will run more than once; raise {held_for.where} above that, or shorten the delay"
        )
        self.warnings.append(sentence)
        self.live_warnings.append(sentence)

    def search_queue(self, name: str) -> None:
        """Count a queue among those that the run's jobs wait in; on our own stack, serve it."""
        if name in self.queues:
            return
        self.queues = [*self.queues, name]
        if self.locator is not None:
            self.locator.add_queues([name])
        publisher = self.publisher
        if publisher is None or not self.is_private:
            return
        self.added_queues = [*self.added_queues, name]
        try:
            add_consumers(publisher, [name])
        except Exception as error:  # of a transport; a worker that starts later is told again
            logger.bind(run=self.run).warning("no worker was asked to serve {!r}: {}", name, error)

    @property
    def moves_orphans(self) -> bool:
        """Return whether messages that a dead worker holds may be moved on this broker."""
        return self.is_private or self.settings.repair

    def can_ask_workers(self) -> bool:
        """Return whether this broker carries questions to workers; True where it is not known."""
        publisher = self.publisher
        if publisher is None:
            return True
        try:
            return publisher.call(lambda: publisher.control.is_supported())
        except Exception as error:  # of a transport, which may raise anything
            logger.bind(run=self.run).debug("the broker does not say what it carries: {}", error)
            return True

    def look_for_losses(self) -> None:
        """Record whether the store has all that was reported, whatever the last look has shown."""
        self.facts.look_anew()
        try:
            self.look_at_store()
        except StackError as error:
            self.facts.store("unreachable")
            logger.bind(run=self.run).warning(
                "the receipts stream could not be looked at: {}", error
            )

    def look_at_store(self) -> bool | None:
        """Return whether the result store still has all that was reported; None: it has no stream.

        Records and reports it where the store was emptied. Raises StackError where the store cannot
        be reached: that says nothing of what it has.
        """
        intact = self.collector.is_intact()
        is_news = intact is False and not fact_log.was_emptied(self.ledger.jobs.run_facts())
        if intact is not None:
            found: fact_log.StoreFinding = "intact" if intact else "emptied"
            self.facts.store(found, is_recorded=is_news)
        if is_news:
            fact_log.note_emptied(self.ledger)
            self.warnings.append(
                "the result store was emptied, or lost what it held, while the run was going on"
            )
        return intact


OUTAGE_LIMIT = 60.0
"""Seconds that broker and result store may be out of reach before a run gives up."""
OUTAGE_TOLD: Final = 10.0
"""Seconds after which the same failure is told again."""


class FailureWindow:
    """Measure how long a server has been out of reach without a break."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = -math.inf, ""

    def is_news(self, failure: str) -> bool:
        """Return whether a failure is to be told: the first, another one, or after OUTAGE_TOLD."""
        now = time.monotonic()
        told, before = self._told
        if failure == before and now - told < OUTAGE_TOLD:
            return False
        self._told = now, failure
        return True

    def expired(self) -> bool:
        """Note a failure; return whether failures have lasted longer than OUTAGE_LIMIT."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since > OUTAGE_LIMIT

    def close(self) -> bool:
        """Note a success; return whether there was a failure before."""
        was_out = self._since is not None
        self._since, self._told = None, (-math.inf, "")
        return was_out
