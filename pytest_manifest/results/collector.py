"""Collect what workers reported since the last poll: the receipts stream, stored results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from loguru import logger

from pytest_manifest.broker.bounded import BoundedCaller, PeerTimeoutError
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.results.records import ReadErrors, ReceiptBatch, add_record, worker_receipt
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.verdict.signatures import IN_STORE_ALONE, ReportSignatures

SWEEP_STOCK = 0.05
"""Seconds between reads of stored results while no instrumented worker has been heard of."""
SWEEP_INSTRUMENTED = 2.0
SWEEP_SIZE = 500

T = TypeVar("T")


class AwaitedAttempt(Protocol):
    """An attempt that has no final receipt yet, as the collector needs to know it."""

    run: str
    entry: Entry
    number: int


@dataclass(eq=False)
class ReceiptCollector:
    """The one reader of a run. Use it from one thread.

    With a ``caller`` it waits for the store as long as that says; after a wait in vain it goes on
    with connections of its own, from the last record that it has handed on.
    """

    _stream: StreamReader | None
    _results: ResultReader
    _caller: BoundedCaller | None = None
    flaws: ReadErrors = field(default_factory=ReadErrors)
    signatures: ReportSignatures | None = None
    """What checks reports, where only those count that a trusted worker has signed."""

    def __post_init__(self) -> None:
        self._position = None if self._stream is None else self._stream.position
        self._saw_worker_record = False
        self._next_sweep = 0.0
        self._sweep: Iterator[str] = iter(())

    def begin(self, ttl: int) -> None:
        """Mark the stream as begun, before the first message is sent; it lives ``ttl`` s.

        Raises StackError where the store cannot be reached.
        """
        self._ask(lambda stream: stream.begin(ttl))

    @property
    def reports_starts(self) -> bool:
        """Tell whether instrumented workers can report starts here, and not only ends."""
        return self._stream is not None

    def announce(self) -> None:
        """Tell other sessions that this one goes on with the run, where the stream can tell it."""
        self._try(lambda stream: stream.announce())

    @property
    def is_overtaken(self) -> bool:
        """Tell whether another session has begun to go on with the run since this one did."""
        return self._stream is not None and self._stream.is_overtaken

    def was_read_on(self) -> bool:
        """Tell whether another reader has read the stream from this one's first position on.

        Raises StackError where the store cannot be reached.
        """
        return bool(self._ask(lambda stream: stream.was_read_on()))

    def is_intact(self) -> bool | None:
        """Tell whether the store still has what it was given; None where there is no stream.

        Raises StackError where the store cannot be reached.
        """
        is_intact = self._ask(lambda stream: stream.is_intact())
        if is_intact is False and self._stream is not None:
            self._position = self._stream.position  # the beginning, where it is read anew
        return is_intact

    def trim(self) -> None:
        """Take out of the stream what has been read, once that is committed.

        What cannot be taken out now is the next time, or goes when the stream's time is over.
        """
        self._try(lambda stream: stream.trim())

    def _ask(self, ask: Callable[[StreamReader], T]) -> T | None:
        stream = self._stream
        return None if stream is None else self._call(lambda: ask(stream))

    def _try(self, ask: Callable[[StreamReader], None]) -> None:
        try:
            self._ask(ask)
        except StackError as error:  # an old server, say
            logger.debug("{}", error)

    def poll(self, awaited: Mapping[str, AwaitedAttempt], block_ms: int) -> ReceiptBatch:
        """Read the stream and, when they are due, some of the stock workers' results.

        Waits up to ``block_ms`` for a first record. Raises StackError where the store cannot be
        reached.
        """
        # Named here: an abandoned thread must not read on in what has taken their place.
        stream, results = self._stream, self._results
        return self._deliver(self._call(lambda: self._poll(stream, results, awaited, block_ms)))

    def poll_all(self, awaited: Mapping[str, AwaitedAttempt]) -> ReceiptBatch:
        """Read everything: the stream to its end and every awaited result."""
        found: dict[str, BackendResult] = {}
        ids = list(awaited)
        for start in range(0, len(ids), SWEEP_SIZE):  # each with a limit of its own
            found |= self._call(partial(self._results.read, ids[start : start + SWEEP_SIZE]))
        stream = self._stream
        return self._deliver(self._call(lambda: self._read_all(stream, found, awaited)))

    def retried(self, tasks: Mapping[str, str]) -> frozenset[str]:
        """Return which of these, task id -> task, have asked for a retry last, by the result store.

        Raises StackError where the store cannot be reached.
        """
        results = self._results
        return self._call(lambda: results.retried(tasks)) if tasks else frozenset()

    def _poll(
        self,
        stream: StreamReader | None,
        results: ResultReader,
        awaited: Mapping[str, AwaitedAttempt],
        block_ms: int,
    ) -> ReceiptBatch:
        found: dict[str, BackendResult] = {}
        if time.monotonic() >= self._next_sweep and awaited:
            found = results.read(self._next_ids(awaited))
            pause = SWEEP_INSTRUMENTED if self._saw_worker_record else SWEEP_STOCK
            self._next_sweep = time.monotonic() + pause
        if found:
            return self._read_all(stream, found, awaited)
        batch = ReceiptBatch()
        if stream is not None:
            self._read_stream(stream, batch, block_ms)
        else:
            time.sleep(block_ms / 1000)
        return batch

    def _read_all(
        self,
        stream: StreamReader | None,
        found: Mapping[str, BackendResult],
        awaited: Mapping[str, AwaitedAttempt],
    ) -> ReceiptBatch:
        """Read the stream to its end, then add the plain results that it says nothing of.

        In this order, for a worker of ours writes both at once: what the plain results showed is in
        the stream by now, and in better words.
        """
        batch = ReceiptBatch()
        try:
            while stream is not None and self._read_stream(stream, batch, 0):
                pass
        except StackError as error:
            if batch.position is None:
                raise
            batch.cut = error
            return batch  # what has been read is not read again; the rest is there the next time
        known = {task_id for task_id, _, _ in batch.finals}
        for task_id, result in found.items():
            if task_id not in known and task_id in awaited:
                self._add_result(batch, task_id, awaited[task_id], result)
        return batch

    def _add_result(
        self, batch: ReceiptBatch, task_id: str, attempt: AwaitedAttempt, result: BackendResult
    ) -> None:
        """Add the receipt of a stored result: the worker's, or one that is made of what it says."""
        receipt, fault = None, ""
        if result.receipt is not None:
            try:
                receipt = worker_receipt(result.receipt)
            except ValueError as error:  # pydantic's is one
                self.flaws.add(f"the receipt inside the result of {task_id}", error)
        try:
            receipt = receipt or backend_receipt(task_id, attempt, result)
        except ValueError as error:
            self.flaws.add_result(task_id, error)
            return
        if self.signatures is not None:
            from_store = receipt.source != "worker"
            fault = IN_STORE_ALONE if from_store else self.signatures.fault_as_reported(receipt)
        if fault:
            batch.unsigned.append((task_id, fault, receipt))
        else:
            batch.finals.append((task_id, None, receipt))

    def _call(self, call: Callable[[], T]) -> T:
        """Run a call that uses the store; raise StackError where the store does not answer."""
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

    def _deliver(self, batch: ReceiptBatch) -> ReceiptBatch:
        """Advance past the batch; what an abandoned thread has read since is read again."""
        self._position = batch.position or self._position
        for task_id, fault, receipt in batch.unsigned:
            if receipt.source == "worker":  # a stock result is no lie
                self.flaws.add(f"an end of {task_id}", fault)
        self._results.discard(task_id for task_id, _, _ in batch.finals)
        return batch

    def close(self) -> None:
        def close() -> None:
            if self._stream is not None:
                self._stream.close()
            self._results.close()

        if self._caller is None:
            close()
        else:
            self._caller.close(close)

    def _next_ids(self, awaited: Mapping[str, AwaitedAttempt]) -> list[str]:
        chunk = [task_id for task_id in islice(self._sweep, SWEEP_SIZE) if task_id in awaited]
        if not chunk:
            self._sweep = iter(list(awaited))
            chunk = list(islice(self._sweep, SWEEP_SIZE))
        return chunk

    def _read_stream(self, stream: StreamReader, batch: ReceiptBatch, block_ms: int) -> int:
        before = stream.position
        records = stream.read(block_ms)
        batch.moved = batch.moved or bool(records) or stream.position != before
        for raw in records:
            try:
                add_record(raw, batch, self.signatures)
            except ValueError as error:  # pydantic's is one
                # The job's plain result, which the sweep looks at, still gives it a verdict.
                name = f"one of the records up to {stream.position}"
                self.flaws.add_record(name, error)
        self._saw_worker_record = self._saw_worker_record or bool(records)
        batch.position = stream.position
        return len(records)


def backend_receipt(task_id: str, attempt: AwaitedAttempt, result: BackendResult) -> Receipt:
    """Make the receipt of a stock worker's job from its Celery result."""
    same = ("state", "result", "error", "worker", "queue", "finished_at")
    return Receipt(
        run=attempt.run,
        entry=attempt.entry.id,
        attempt=attempt.number,
        task_id=task_id,
        task=attempt.entry.task,
        source="backend",
        **{name: getattr(result, name) for name in same},
        retries=result.retries or 0,
        executions=1,
        evidence={} if result.no_json is None else {"result_not_json": result.no_json},
    )
