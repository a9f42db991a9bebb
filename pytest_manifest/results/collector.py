"""Gathering: what the workers said since the last look, in the stream or in plain results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, Protocol, TypeVar

from loguru import logger

from pytest_manifest.broker.bounded import BoundedCaller, PeerTimeoutError
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import HandedOn, Start
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.results.read_errors import ReadErrors, receipt_from
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.wire import (
    FinishedRecord,
    HandedOnRecord,
    StartedRecord,
    parse_record,
)

SWEEP_STOCK = 0.05
"""Seconds between looks at plain results while no instrumented worker has been heard of."""
SWEEP_INSTRUMENTED = 2.0
SWEEP_SIZE = 500

T = TypeVar("T")


class AwaitedAttempt(Protocol):
    """What gathering must know of an attempt that has no final receipt yet."""

    run: str
    entry: Entry
    number: int


@dataclass(slots=True)
class ReceiptBatch:
    """What one look brought; ``position`` is where the stream's next look begins."""

    starts: list[Start] = field(default_factory=list)
    handed_on: list[HandedOn] = field(default_factory=list)
    finals: list[tuple[str, str | None, Receipt]] = field(default_factory=list)
    position: str | None = None
    moved: bool = False
    """Whether anything was read of the stream, be it of no use: it need not be read again."""

    def __bool__(self) -> bool:
        return bool(self.starts or self.handed_on or self.finals)


class ReceiptCollector:
    """The one reader of a run. Use it from one thread.

    With a ``caller`` it waits for the store as long as that says; after a wait in vain it goes on
    with connections of its own, from the last record that it has handed on.
    """

    def __init__(
        self,
        stream: StreamReader | None,
        results: ResultReader,
        caller: BoundedCaller | None = None,
        flaws: ReadErrors | None = None,
    ) -> None:
        self._flaws = ReadErrors() if flaws is None else flaws
        self._stream = stream
        self._results = results
        self._caller = caller
        self._position = None if stream is None else stream.position
        self._saw_worker_record = False
        self._malformed = 0
        self._next_sweep = 0.0
        self._sweep: Iterator[str] = iter(())

    def begin(self, ttl: int) -> None:
        """Mark the stream as begun, before the first message is sent; it lives ``ttl`` s.

        Raises StackError where the store cannot be reached.
        """
        stream = self._stream
        if stream is not None:
            self._call(lambda: stream.begin(ttl))

    @property
    def reports_starts(self) -> bool:
        """Whether workers of ours can say when they begin a job, and not only how it ended."""
        return self._stream is not None

    def unreadable_reason(self, task_id: str) -> str:
        """Why nobody can tell what the result store has of this job; "" where nothing is there."""
        return self._flaws.results.get(task_id, "")

    def is_intact(self) -> bool | None:
        """Whether the store still has what it was given; None where there is no stream to tell by.

        Raises StackError where the store cannot be reached.
        """
        stream = self._stream
        return None if stream is None else self._call(stream.is_intact)

    def trim(self) -> None:
        """Take out of the stream what has been read, once that is committed.

        What cannot be taken out now is the next time, or goes when the stream's time is over.
        """
        stream = self._stream
        if stream is not None:
            try:
                self._call(stream.trim)
            except StackError as error:
                logger.debug("{}", error)

    def poll(self, awaited: Mapping[str, AwaitedAttempt], block_ms: int) -> ReceiptBatch:
        """One look: at the stream and, when their time has come, at some of the plain results.

        Waits up to ``block_ms`` for a first record. Raises StackError where the store cannot be
        reached.
        """
        # Named here: a thread that is left behind must not read on in what has taken their place.
        stream, results = self._stream, self._results
        return self._deliver(self._call(lambda: self._poll(stream, results, awaited, block_ms)))

    def poll_all(self, awaited: Mapping[str, AwaitedAttempt]) -> ReceiptBatch:
        """One look at everything: the stream to its end and every awaited plain result."""
        found: dict[str, BackendResult] = {}
        ids = list(awaited)
        for start in range(0, len(ids), SWEEP_SIZE):  # each with a limit of its own
            found |= self._call(partial(self._results.read, ids[start : start + SWEEP_SIZE]))
        stream = self._stream
        return self._deliver(self._call(lambda: self._poll_all(stream, found, awaited)))

    def _poll(
        self,
        stream: StreamReader | None,
        results: ResultReader,
        awaited: Mapping[str, AwaitedAttempt],
        block_ms: int,
    ) -> ReceiptBatch:
        sip = ReceiptBatch()
        found: dict[str, BackendResult] = {}
        if time.monotonic() >= self._next_sweep and awaited:
            found = results.read(self._next_ids(awaited))
            pause = SWEEP_INSTRUMENTED if self._saw_worker_record else SWEEP_STOCK
            self._next_sweep = time.monotonic() + pause
        if found:
            self._add_backend_results(stream, sip, found, awaited)
        elif stream is not None:
            self._read_stream(stream, sip, block_ms)
        else:
            time.sleep(block_ms / 1000)
        return sip

    def _poll_all(
        self,
        stream: StreamReader | None,
        found: Mapping[str, BackendResult],
        awaited: Mapping[str, AwaitedAttempt],
    ) -> ReceiptBatch:
        sip = ReceiptBatch()
        self._add_backend_results(stream, sip, found, awaited)
        return sip

    def _add_backend_results(
        self,
        stream: StreamReader | None,
        sip: ReceiptBatch,
        found: Mapping[str, BackendResult],
        awaited: Mapping[str, AwaitedAttempt],
    ) -> None:
        """Read the stream to its end, then add the plain results that it says nothing of.

        In this order, for a worker of ours writes both at once: what the plain results showed is in
        the stream by now, and in better words.
        """
        try:
            while stream is not None and self._read_stream(stream, sip, 0):
                pass
        except StackError:
            if sip.position is None:
                raise
            return  # what has been read is not read again; the rest is there the next time
        known = {task_id for task_id, _, _ in sip.finals}
        for task_id, result in found.items():
            if task_id not in known and task_id in awaited:
                receipt = self._backend_receipt(task_id, awaited[task_id], result)
                sip.finals += [] if receipt is None else [(task_id, None, receipt)]

    def _backend_receipt(
        self, task_id: str, attempt: AwaitedAttempt, result: BackendResult
    ) -> Receipt | None:
        if result.receipt is not None:
            try:
                return _worker_receipt(result.receipt)
            except ValueError as error:  # pydantic's is one
                self._flaws.add(f"the receipt inside the result of {task_id}", error)
        try:
            return backend_receipt(task_id, attempt, result)
        except ValueError as error:
            self._flaws.add_result(task_id, error)
            return None

    def _call(self, call: Callable[[], T]) -> T:
        """What the call, which uses the store, returns; raises StackError where it is silent."""
        if self._caller is None:
            return call()
        try:
            return self._caller.call(call)
        except PeerTimeoutError:
            self._reconnect()
            raise

    def _reconnect(self) -> None:
        """Leave the connections to the thread that still waits on them."""
        if self._stream is not None and self._position is not None:
            self._stream = self._stream.renewed(self._position)
        self._results = self._results.renewed()

    def _deliver(self, sip: ReceiptBatch) -> ReceiptBatch:
        """What a thread that was left behind has read since is in no sip: it is read again."""
        self._position = sip.position or self._position
        self._results.discard(task_id for task_id, _, _ in sip.finals)
        return sip

    def close(self) -> None:
        if self._caller is None:
            self._close()
        else:
            self._caller.close(self._close)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._results.close()

    def _next_ids(self, awaited: Mapping[str, AwaitedAttempt]) -> list[str]:
        chunk = [task_id for task_id in islice(self._sweep, SWEEP_SIZE) if task_id in awaited]
        if not chunk:
            self._sweep = iter(list(awaited))
            chunk = list(islice(self._sweep, SWEEP_SIZE))
        return chunk

    def _read_stream(self, stream: StreamReader, sip: ReceiptBatch, block_ms: int) -> int:
        before = stream.position
        records = stream.read(block_ms)
        sip.moved = sip.moved or bool(records) or stream.position != before
        for raw in records:
            try:
                _add_record(raw, sip)
            except ValueError as error:  # pydantic's is one
                # The job's plain result, which the sweep looks at, still gives it a verdict.
                self._malformed += 1
                name = f"{self._malformed}. of the records up to {stream.position}"
                self._flaws.add(name, error)
        self._saw_worker_record = self._saw_worker_record or bool(records)
        sip.position = stream.position
        return len(records)


def _add_record(raw: Mapping[str, object], sip: ReceiptBatch) -> None:
    """Add a record of the stream to the sip; raises ValueError where it is malformed."""
    record = parse_record(raw)
    if isinstance(record, StartedRecord):
        sip.starts.append(_start(record))
    elif isinstance(record, FinishedRecord):
        receipt = _worker_receipt(record.receipt)
        if record.start is not None:  # which could not be told when it was
            sip.starts.append(_start(record.start))
        sip.finals.append((receipt.task_id, record.execution, receipt))
    elif isinstance(record, HandedOnRecord):
        end = record.task_id, record.execution, record.how, record.ended_at, record.next_at
        sip.handed_on.append(HandedOn(*end))


def _worker_receipt(document: Mapping[str, object]) -> Receipt:
    """A receipt from where only workers write; another source, by which less would be asked of it,
    it cannot give itself. Raises ValueError where it is malformed."""
    receipt = receipt_from(document)
    return receipt if receipt.source == "worker" else receipt.model_copy(update=_BY_WORKER)


_BY_WORKER: Final = {"source": "worker"}


def backend_receipt(task_id: str, attempt: AwaitedAttempt, result: BackendResult) -> Receipt:
    """The receipt of a job whose worker knows nothing of us, from its plain Celery result."""
    return Receipt(
        run=attempt.run,
        entry=attempt.entry.id,
        attempt=attempt.number,
        task_id=task_id,
        task=attempt.entry.task,
        state=result.state,
        source="backend",
        result=result.result,
        error=result.error,
        worker=result.worker,
        queue=result.queue,
        retries=result.retries or 0,
        finished_at=result.finished_at,
        executions=1,
        evidence={} if result.no_json is None else {"result_not_json": result.no_json},
    )


def _start(record: StartedRecord) -> Start:
    return Start(
        task_id=record.task_id,
        execution=record.execution,
        started_at=record.started_at,
        retries=record.retries,
        worker=record.worker,
        host=record.host,
        pid=record.pid,
        redelivered=record.redelivered,
        boot=record.boot,
        pid_namespace=record.pid_namespace,
        hop=record.hop,
    )
