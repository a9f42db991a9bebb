"""Open and close what a run talks to: the broker, the job locator, the receipts' collector."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from pytest_manifest.broker.bounded import BoundedCaller
from pytest_manifest.broker.locating import Locator, open_locator, queues_of
from pytest_manifest.broker.locating.worker_replies import describe_workers
from pytest_manifest.broker.preflight import (
    Presence,
    Unreadable,
    look_for_unreadable,
    look_for_workers,
)
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.redelivery import Visibility
from pytest_manifest.ledger import Ledger
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.read_errors import ReadErrors
from pytest_manifest.results.stream import StreamReader, has_stream, open_client_at
from pytest_manifest.run.departures import Departures, WorkerFacts, facts_of
from pytest_manifest.run.state import RunState
from pytest_manifest.run.workers import record_unknown_workers
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import stream_key


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
        )
        return self.publisher

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
        queues = sorted({*self.queues, *queues_of(publisher, entries)})
        self.locator = open_locator(publisher, queues, self.nodes)
        return self.locator

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

    def look_for_workers(self) -> Presence:
        """Look for workers of the run's queues. Raises StackError where the broker is away."""
        assert self.publisher is not None
        return look_for_workers(self.publisher, self.queues)

    def look_for_unreadable(self) -> Unreadable | None:
        """Look for workers that cannot decode. Raises StackError where the broker is away."""
        assert self.publisher is not None
        return look_for_unreadable(self.publisher)

    def record_unknown_workers(self, ledger: Ledger) -> None:
        """Record workers that this run has not seen; our own stack has none."""
        if self.publisher is not None and not self._state.address.is_private:
            record_unknown_workers(ledger, self.publisher)
