"""Define what a strategy decides about a run: what is prepared, what is sent, how it ends."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar

from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger, utc_now
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.budget import Budget
from pytest_manifest.run.connections import RunConnections
from pytest_manifest.run.context import EngineContext
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.fact_log import FactLog, end_segment, stamp
from pytest_manifest.run.key_limits import KeyLimits
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.signatures import signatures_of
from pytest_manifest.run.state import RunState
from pytest_manifest.schema.run_facts import Segment


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
        return Engine(
            EngineContext(
                run=state.info.run,
                settings=state.settings,
                window=state.settings.window_for(connections.slots),
                signals=state.signals,
                ledger=ledger,
                collector=collector,
                manifest=state.manifest,
                facts=self.facts_of(ledger),
                to_repeat=self.to_repeat,
                schedule=Schedule(
                    state.to_send,
                    verdicts=ledger.verdicts.statuses(),
                    canary=state.settings.canary,
                    max_failed=state.settings.max_failed,
                    budget=self._budget(),
                    key_limits=self._key_limits(),
                ),
                pending=state.pending,
                publisher=connections.publisher if self.sends else None,
                locator=connections.locator,
                is_private=state.address.is_private,
                added_queues=connections.added_queues,
                queues=connections.queues,
                held_for=connections.held_for,
                departures=connections.departures,
                live_warnings=state.live_warnings,
                warnings=state.warnings,
                wait_budget=state.wait_budget,
                record_unknown_workers=partial(connections.record_unknown_workers, ledger),
                look_for_workers=connections.look_for_workers,
                look_for_unreadable=connections.look_for_unreadable,
            )
        )

    def facts_of(self, ledger: Ledger) -> FactLog:
        """Return where the facts of this session are collected for an open ledger."""
        if self._facts is None or self._facts.ledger is not ledger:
            self._facts = FactLog(ledger)
        return self._facts

    def segment(self) -> Segment:
        """Return the fact that a stretch of the run begins, with the settings that hold in it."""
        settings = self.state.settings
        return Segment(
            **stamp(),
            kills=settings.kills,
            lifetime=self.connections.result_lifetime,
            deadline=settings.deadline,
            canary=settings.canary,
            max_failed=None if settings.max_failed is None else str(settings.max_failed),
            budget=settings.budget,
            limits=dict(settings.key_limits),
        )

    def _budget(self) -> Budget | None:
        limit = self.state.settings.budget if self.sends else None
        return None if limit is None else Budget(limit, self.state.costs)

    def _key_limits(self) -> KeyLimits | None:
        limits = self.state.settings.key_limits if self.sends else None
        return KeyLimits(limits) if limits else None

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

        On a stack of others they go on; on our own they end with the stack.
        """
        is_private = self.state.address.is_private
        end_segment(ledger, "stopped" if is_private else "detached")
        if is_private:
            ledger.info.stop_segment(utc_now())

    def _close_dispatch(self, engine: Engine, ledger: Ledger) -> None:
        state = self.state
        is_private = state.address.is_private
        has_open = ledger.attempts.has_open()
        was_stopped = state.signals.stop.is_set() and has_open
        if not was_stopped and not engine.pending:
            # What is open then is of entries that were not selected.
            if not is_private and (engine.given_up or has_open):
                end_segment(ledger, "detached")
            else:
                end_segment(ledger, "stopped" if has_open else "finished")
            state.leaves_jobs = is_private and has_open
        elif self.revokes_on_stop and not state.settings.send_only:
            ledger.info.set_status("stopped")  # before what may take long
            engine.wind_down()
            end_segment(ledger, "stopped", stopped=utc_now())
            state.leaves_jobs = is_private and bool(engine.pending.unstarted())
        else:
            self.end_unrevoked(ledger)
