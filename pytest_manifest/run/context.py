"""Hold what the parts of an engine share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from loguru import logger

from pytest_manifest.broker.bounded import WaitBudget
from pytest_manifest.broker.locating import Locator
from pytest_manifest.broker.preflight import Presence, Unreadable, add_consumers
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.redelivery import Visibility, visibility_of
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Descendant, Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run import fact_log
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.search import Departures
from pytest_manifest.run.settings import WINDOW, RunSettings, Signals
from pytest_manifest.schema.facts import HandedOn
from pytest_manifest.schema.stream_records import ReceiverFailedRecord
from pytest_manifest.text import middle, one_line, plural, seconds, short

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
            if key not in self._found:
                if len(self._found) >= MOST:
                    continue
                self._found[key] = failure, 1
                sentence = _sentence(failure, 1)
                self._warnings.append(sentence)
                self._live.append(sentence)
                continue
            first, count = self._found[key]
            self._found[key] = first, count + 1
            before = _sentence(first, count)
            if not first.at_start and before in self._warnings:
                self._warnings[self._warnings.index(before)] = _sentence(first, count + 1)


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
"""Tasks of which it is told that a delay is too long for the broker."""


@dataclass
class EngineContext:
    """Hold everything that an engine works with, open and ready."""

    run: str
    settings: RunSettings
    signals: Signals
    ledger: Ledger
    collector: ReceiptCollector
    manifest: Manifest
    facts: fact_log.FactLog
    schedule: Schedule
    pending: PendingAttempts
    window: int = WINDOW
    publisher: Publisher | None = None
    locator: Locator | None = None
    is_private: bool = False
    added_queues: Sequence[str] = ()
    queues: Sequence[str] = ()
    held_for: Visibility | None = None
    """How long the broker lets a worker hold a message, where the preflight found that."""
    departures: Departures = field(default_factory=Departures)
    """What is known of the workers, and which of them are gone."""
    live_warnings: list[str] = field(default_factory=list)
    """Messages to be shown as soon as they come up, while the run is going on."""
    warnings: list[str] = field(default_factory=list)
    """Messages for the summary that are no entry's verdict."""
    to_repeat: set[str] = field(default_factory=set)
    """Entries that are sent again when their attempt's tree has ended, unless it has passed."""
    receivers: FailedReceivers = field(init=False)
    clock: fact_log.ClockWatch = field(init=False)
    wait_budget: WaitBudget = field(default_factory=WaitBudget)
    record_unknown_workers: Callable[[], None] = lambda: None
    """Records workers that may have started a job unreported; raises StackError."""
    look_for_workers: Callable[[], Presence] | None = None
    """Looks for workers of the run's queues; raises StackError. None: nobody need be there."""
    look_for_unreadable: Callable[[], Unreadable | None] = lambda: None
    """Looks for workers that cannot decode the run's messages; raises StackError."""
    _told_delays: set[str] = field(default_factory=set)
    """The tasks of which a delay was told."""

    def __post_init__(self) -> None:
        self.receivers = FailedReceivers(self.warnings, self.live_warnings)
        self.clock = fact_log.ClockWatch(self.ledger)

    def meet(self, one: Descendant, is_awaited: bool) -> None:
        """Take note of a descendant that was told of: its queue, and its countdown or ETA."""
        if is_awaited and one.queue is not None:
            self.search_queue(one.queue)
        if one.due is not None:
            self._check_delay(f"task {short(one.task)}, which a job started", one.delay)

    def check_retry(self, end: HandedOn) -> None:
        """Take note of a job that waits for its next try."""
        if end.next_at is None or end.ended_at is None:
            return
        job = self.pending.by_task_id.get(end.job)
        if job is not None:
            delay = (end.next_at - end.ended_at).total_seconds()
            self._check_delay(f"the next try of task {job.entry.task!r}", delay)

    def _check_delay(self, what: str, delay: float) -> None:
        """Warn where a worker will hold a message for longer than the broker lets it.

        Of entries this is checked before they are sent.
        """
        held_for = self.held_for
        if held_for is None and self.publisher is not None:
            asks_app = self.publisher.transport.hands_out_again
            held_for = visibility_of(self.publisher, (), ()) if asks_app else None
        if held_for is None or delay < held_for.timeout:
            return
        if what in self._told_delays or len(self._told_delays) >= MOST_DELAYS:
            return
        self._told_delays.add(what)
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

    def is_store_intact(self) -> bool | None:
        """Return whether the result store still has all that was reported; None: not known."""
        try:
            return self.look_at_store()
        except StackError as error:
            self.facts.store("unreachable")
            logger.bind(run=self.run).warning(
                "the receipts stream could not be looked at: {}", error
            )
            return None

    def look_for_losses(self) -> None:
        """Record whether the store has all that was reported, whatever the last look has shown."""
        self.facts.look_anew()
        self.is_store_intact()

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


class FailureWindow:
    """Measure how long a server has been out of reach without a break."""

    def __init__(self) -> None:
        self._since: float | None = None

    def expired(self) -> bool:
        """Note a failure; return whether failures have lasted longer than OUTAGE_LIMIT."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since > OUTAGE_LIMIT

    def close(self) -> bool:
        """Note a success; return whether there was a failure before."""
        was_out, self._since = self._since is not None, None
        return was_out
