"""Define what a strategy decides about a run: what is prepared, what is sent, how it ends.

A run that is taken up again tracks what its ledger says is under way; what is prepared counts once
the whole session may go on.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final
from urllib.parse import urlsplit

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.client import load_app
from pytest_manifest.broker.stores import Servers, is_same, with_host
from pytest_manifest.ledger import (
    BUDGET,
    OVER_BUDGET,
    AttemptRow,
    EntryVerdict,
    Ledger,
    RunInfo,
    utc_now,
)
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.casebook import Casebook, require_signatures, verdict_on
from pytest_manifest.run.connections import EngineContext, RunConnections, RunState
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import FactLog, OwnLimits, end_segment, stamp
from pytest_manifest.run.inflight import PendingAttempts, pending_descendant
from pytest_manifest.run.kept_commands import answer_stale
from pytest_manifest.run.pressure import KeyRates
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.send_queue import Budget, KeyLimits
from pytest_manifest.run.trees import Trees
from pytest_manifest.schema import Entry, Verdict
from pytest_manifest.schema.facts import HandedOn
from pytest_manifest.schema.run_facts import PlaceFact, Segment
from pytest_manifest.schema.statuses import FIXED, INFERRED, NEVER_STARTED_STATES, NOT_SENT, OPEN
from pytest_manifest.text import one_line
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict.belief import is_revocation_notice
from pytest_manifest.verdict.judging import signatures_of
from pytest_manifest.verdict.tree import PATH, is_ignored


class Strategy(ABC):
    """Decide what a run does; its handle (``run``) has the thread, the signals and the end."""

    sends: ClassVar[bool] = True
    """Whether messages are published."""

    def __init__(self, state: RunState, connections: RunConnections | None = None) -> None:
        self.state = state
        self.connections = connections or RunConnections(state)
        self._facts: FactLog | None = None
        self.to_repeat: set[str] = set()
        """Entries that are sent again when their attempt's tree has ended, unless it has passed."""
        self.consistent_at: int | None = None
        """The last number of the ledger when it was found to keep all promises; None: not yet."""

    @property
    def queries_stack(self) -> bool:
        """Return whether broker and workers are queried."""
        return True

    @abstractmethod
    def prepare(self, expected_workers: int | None) -> None:
        """Query the stack for what it can do; send nothing, and decide nothing.

        Raises DispatchError or StackError where nothing should be sent.
        """

    def reuse(self, codes: Mapping[str, str]) -> None:  # noqa: B027 - most reuse nothing
        """Take out of what is to be sent what has passed in an earlier run, where that is wanted.

        ``codes``: the digest of each task's code that would run, as far as that is known.
        """

    @abstractmethod
    def take_effect(self) -> None:
        """Let what was prepared count. Raises LedgerError where it cannot be written."""

    @abstractmethod
    def abandon(self) -> None:
        """Undo what was prepared: the run will not be started."""

    @contextlib.contextmanager
    def writing(self) -> Iterator[Ledger]:
        """Open the ledger for writing before the run has its thread."""
        with Ledger.open(self.state.files.ledger, write=True) as ledger:
            yield ledger

    def work(self, engine: Engine, ledger: Ledger) -> None:
        """Do the run's work, in its thread, and record how it ended."""
        engine.work()
        self._close_dispatch(engine, ledger)

    def finish_offline(self) -> None:
        """Judge what is there without a stack, where :attr:`queries_stack` is False."""
        raise NotImplementedError

    # The engine

    def make_engine(self, ledger: Ledger, collector: ReceiptCollector) -> Engine:
        """Put an engine together for what is to be sent, and what is pending, at this moment."""
        state, connections = self.state, self.connections
        collector.signatures = signatures_of(ledger)
        connections.departures.recall(ledger.info)
        budget, limits, rates = None, None, None
        if self.sends:
            budget, limits = state.settings.budget, state.settings.key_limits
            rates = KeyRates(state.settings.rates)
        schedule = Schedule(
            state.to_send,
            verdicts=ledger.verdicts.statuses(),
            canary=state.settings.canary,
            max_failed=state.settings.max_failed,
            budget=None if budget is None else Budget(budget, state.costs),
            key_limits=KeyLimits(limits or {}, rates)
            if limits or (rates and rates.names)
            else None,
        )
        context = EngineContext(
            *(state, connections, ledger, collector, self.facts_of(ledger), schedule),
            sends=self.sends,
            to_repeat=self.to_repeat,
        )
        return Engine(context)

    def facts_of(self, ledger: Ledger) -> FactLog:
        """Return where the facts of this session are collected for an open ledger."""
        if self._facts is None or self._facts.ledger is not ledger:
            self._facts = FactLog(ledger)
        return self._facts

    def segment(self) -> Segment:
        """Return the fact that a stretch of the run begins, with the settings that hold in it."""
        settings, slots = self.state.settings, self.connections.slots
        return Segment(
            **stamp(),
            kills=settings.kills,
            lifetime=self.connections.result_lifetime,
            deadline=settings.deadline,
            canary=settings.canary,
            max_failed=None if settings.max_failed is None else str(settings.max_failed),
            budget=settings.budget,
            limits=dict(settings.key_limits),
            rates={one_line(redact(key)): str(rate) for key, rate in settings.rates.items()},
            queue_depth=settings.queue_depth,
            window=None if settings.send_only else settings.window_for(slots),
            arguments=tuple(map(redact, settings.arguments)),
        )

    def record_gates(self, ledger: Ledger) -> None:
        """Record the budget and the limits of keys that hold for what is sent from here on."""
        ledger.info.set_key_limits(self.state.settings.key_limits)
        budget = self.state.settings.budget
        ledger.info.set_meta(BUDGET, "" if budget is None else str(budget))
        ledger.info.set_meta(OVER_BUDGET, "")

    # The end

    @property
    def revokes_on_stop(self) -> bool:
        """Return whether the run, when it is stopped, takes back what it has sent."""
        chosen = self.state.settings.on_stop
        return self.state.address.is_private if chosen is None else chosen == "revoke"

    def end_unrevoked(self, ledger: Ledger) -> None:
        """Record that the run ended without revoking its jobs.

        On a stack of others they go on, where there are any; on our own they end with the stack.
        """
        is_private = self.state.address.is_private
        goes_on = not is_private and ledger.attempts.has_unended()
        stopped = utc_now() if is_private else None
        end_segment(ledger, "detached" if goes_on else "stopped", stopped=stopped)

    def _close_dispatch(self, engine: Engine, ledger: Ledger) -> None:
        state = self.state
        is_private = state.address.is_private
        has_open = ledger.attempts.has_open()
        was_stopped = state.signals.stop.is_set() and has_open
        if not was_stopped and not engine.pending:
            # What is open then is of entries that were not selected.
            goes_on = engine.given_up or (has_open and ledger.attempts.has_unended())
            if not is_private and goes_on:
                end_segment(ledger, "detached")
            else:
                end_segment(ledger, "stopped" if has_open else "finished")
            state.leaves_jobs = is_private and has_open
        elif self.revokes_on_stop and not state.settings.send_only:
            # Before what may take long: until they hear of it, workers of others go on.
            ledger.info.set_status("stopped" if is_private else "detached")
            if engine.wind_down() or is_private:
                end_segment(ledger, "stopped", stopped=utc_now())
            else:
                self.end_unrevoked(ledger)
            state.leaves_jobs = is_private and bool(engine.pending.unstarted())
        else:
            self.end_unrevoked(ledger)


NOT_OURS: Final = frozenset({"planned", "withheld", "reused"})
"""States of attempts that the run has not sent, so that none of its jobs can be looked for."""


class EarlierRunStrategy(Strategy):
    """Work on a run whose ledger exists.

    All that :meth:`prepare` writes is one transaction, which :meth:`take_effect` commits: a session
    that is refused, by this run, by another one, by the budget or by Ctrl-C, leaves the ledger as
    it was, with every verdict that was in it.
    """

    _open_ledger: Ledger | None = None
    has_other_keys: bool = False
    """Whether reports are trusted now that were not before, or the reverse."""

    def _take_up(self) -> Ledger:
        """Lock the ledger for this process, and open it for a transaction that may be dropped."""
        state = self.state
        state.lock.acquire(state.info.run)
        self._open_ledger = Ledger.open(state.files.ledger, write=True)
        self._open_ledger.check_types()
        self._open_ledger.defer_commits()
        answer_stale(self._open_ledger)
        self.has_other_keys = require_signatures(self._open_ledger, state.settings.receipt_keys)
        if is_other_broker(state.info, state.address):
            place = PlaceFact(**stamp(), what="other_broker", url=state.info.broker)
            self._open_ledger.facts.append([(None, place)])
        return self._open_ledger

    def take_effect(self) -> None:
        ledger = self._open_ledger
        if ledger is not None:
            self.facts_of(ledger).write()
            ledger.commit_deferred()
            self._close_ledger()

    def abandon(self) -> None:
        """Leave the ledger as it was."""
        self.connections.close()
        self._close_ledger()
        self.state.lock.release()

    def _close_ledger(self) -> None:
        """Close the ledger; drop what is not committed."""
        ledger, self._open_ledger = self._open_ledger, None
        if ledger is not None:
            ledger.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Ledger]:
        if self._open_ledger is not None:
            yield self._open_ledger
        else:
            with super().writing() as ledger:
                yield ledger


def evaluate_kept_receipts(
    ledger: Ledger,
    pending: PendingAttempts,
    manifest: Manifest,
    facts: FactLog,
    *,
    without: Container[str] = frozenset(),
) -> None:
    """Judge pending attempts whose receipts the ledger has, rather than read them again.

    Not those ``without``, by their task ids. A job that had sent its own message again has not
    ended by what that execution returned.

    A session that follows some entries reads the whole run's stream and keeps the receipts of the
    others; so does one that is killed between keeping a receipt and judging by it.
    """
    cases = Casebook(ledger)
    trees = Trees(ledger, manifest, cases, facts, pending)
    own = [job for job in pending.by_task_id.values() if job.child is None]
    with ledger.transaction():
        facts.write()
        for job, found in cases.judge([job for job in own if job.task_id not in without]):
            if found.own.status == "pending" or found.receipt is None:
                continue
            pending.complete(job.task_id)
            if not trees.holds(job):
                ledger.verdicts.record([verdict_on(job, found)])


def is_other_broker(info: RunInfo, address: StackAddress) -> bool:
    """Return whether the jobs were sent to another broker; two names of one server are the same.

    A job that is in no queue of this broker may wait in one of the other.
    """
    if not info.broker or not address.broker_url:
        return False
    if (
        info.is_private or address.is_private
    ):  # whose brokers keep their data, under another port each time
        return info.is_private != address.is_private
    if info.broker == redact_url(address.broker_url):
        return False
    try:
        then, now = urlsplit(info.broker), urlsplit(address.broker_url)
        host, port = then.hostname, then.port
        same = (host, port) == (now.hostname, now.port)
    except ValueError:  # several of them, or a port that is none
        return True
    if host is None or (then.path.strip("/") or "0") != (now.path.strip("/") or "0"):
        return True
    if same:
        return False
    servers, there = Servers(load_app(address), address), with_host(address.broker_url, host, port)
    return not is_same(servers.id_of_broker(address.broker_url), servers.id_of_broker(there))


@dataclass(eq=False)
class Tracking:
    """Track attempts of earlier sessions, as old as they are; ``only`` of these entries."""

    _pending: PendingAttempts
    _ledger: Ledger
    _manifest: Manifest
    _info: RunInfo
    _only: Container[str] | None = None

    def __post_init__(self) -> None:
        self._pending.with_own_limit = OwnLimits(self._ledger).of

    def under_way(self, *, trees: bool = False) -> None:
        """Track attempts that were sent and may go on: those without a final verdict, or with one
        for want of a receipt, or of a descendant's.

        With ``trees`` also what has not passed while some of its descendants may go on: a new
        attempt would run beside those.
        """
        for row, settled in self._newest():
            if row.state in NOT_OURS:
                continue
            entry = self._manifest[row.entry]
            has_tree = trees and not is_ignored(entry)
            if _may_go_on(settled) or (has_tree and has_open_tree(self._ledger, row, settled)):
                self._track(row)

    def unsent(self) -> frozenset[str]:
        """Track attempts that were never sent by the ledger, to search for traces of them.

        Returns their task ids. Where there are traces, a newer copy of this ledger has sent them.
        """
        chosen = [row for row, _ in self._newest() if row.state in ("planned", "withheld")]
        for row in chosen:
            # As old as the run, so that none is taken for a message that is still on its way.
            self._pending.track(self._attempt(row), _monotonic(self._info.created_at))
            self._track_events(row.task_id)
        return frozenset(row.task_id for row in chosen)

    def turned_away(self) -> set[str]:
        """Track attempts that a worker turned away, to search for a second message of them.

        Returns their task ids. The broker may have delivered a message twice; before the entry is
        sent again, none of it may be left.
        """
        found = set()
        for row, settled in self._newest():
            receipt = None if settled is None else settled.receipt
            if settled is None or receipt is None or settled.verdict.verdict == "passed":
                continue
            is_refused = receipt.state in NEVER_STARTED_STATES and not is_revocation_notice(receipt)
            if is_refused and row.task_id not in self._pending.by_task_id:
                self._track(row)
                found.add(row.task_id)
        return found

    def _newest(self) -> Iterator[tuple[AttemptRow, EntryVerdict | None]]:
        only = self._manifest if self._only is None else self._only
        return newest(self._ledger, self._manifest, only)

    def _attempt(self, row: AttemptRow) -> Attempt:
        return Attempt(self._info.run, self._manifest[row.entry], row.attempt, row.task_id)

    def _track(self, row: AttemptRow) -> None:
        attempt = self._attempt(row)
        self._pending.track(attempt, _monotonic(row.sent_at), row.sent_at)
        self._track_events(row.task_id)
        job, entries = self._pending.by_task_id[row.task_id], dict[str, Entry]()
        if is_ignored(attempt.entry):
            return
        for one in self._ledger.descendants.without_end(row.task_id):
            if one.status != NOT_SENT:
                self._pending.track_descendant(pending_descendant(one, job, entries))
                self._track_events(one.task_id)

    def _track_events(self, task_id: str) -> None:
        for start in self._ledger.events.starts(task_id):
            self._pending.started(start, _monotonic(start.at))  # a worker's clock may be another
        for end in self._ledger.events.of(HandedOn, task_id):
            self._pending.handed_on(end)


def newest(
    ledger: Ledger, manifest: Manifest, only: Container[str]
) -> Iterator[tuple[AttemptRow, EntryVerdict | None]]:
    """Yield the newest attempts of these entries of the manifest, with the verdicts of these."""
    rows = {row.entry: row for row in ledger.attempts.newest() if row.entry in only}
    for entry, settled in ledger.queries.verdicts(one for one in rows if one in manifest):
        yield rows[entry], settled


def _may_go_on(settled: EntryVerdict | None) -> bool:
    """Return whether an entry has no final verdict, or one that was inferred."""
    if settled is None or settled.verdict.verdict in OPEN:
        return True
    receipt = settled.receipt
    has_receipt = receipt is not None and not is_revocation_notice(receipt)
    is_inferred = settled.verdict.verdict in INFERRED
    return is_inferred and (not has_receipt or _is_by_tree(settled.verdict))


def has_open_tree(ledger: Ledger, row: AttemptRow, settled: EntryVerdict | None) -> bool:
    """Return whether an attempt has not passed while descendants of it may go on.

    Those are without a receipt, whatever was made of that. No further receipt changes some
    verdicts.
    """
    if settled is None or settled.verdict.verdict == "passed":
        return False
    if settled.verdict.verdict in FIXED and not _is_by_tree(settled.verdict):
        return False
    return any(one.status != NOT_SENT for one in ledger.descendants.without_end(row.task_id))


def _is_by_tree(verdict: Verdict) -> bool:
    """Return whether a verdict is about a descendant."""
    return [one.path for one in verdict.mismatches[:1]] == [PATH]


def _monotonic(moment: datetime | None) -> float:
    """Convert a moment of the past to this process's monotonic clock (s)."""
    now = time.monotonic()
    return now if moment is None else now - max((utc_now() - moment).total_seconds(), 0.0)
