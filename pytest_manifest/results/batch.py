"""Sort the records of a run's stream into what they tell: starts, ends, descendants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_manifest.ledger import Announced, Descendant, HandedOn, Start
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.stream_records import (
    FinishedRecord,
    HandedOnRecord,
    ReceiverFailedRecord,
    SpawnedRecord,
    StartedRecord,
    parse_record,
)
from pytest_manifest.verdict.signatures import ReportSignatures


@dataclass(slots=True)
class ReceiptBatch:
    """The news of one poll; the stream's next poll begins at ``position``.

    ``unsent``: task ids of descendants whose message no broker took; ``elsewhere``: the brokers of
    those that were sent to another one than their parent's.
    """

    descendants: list[Descendant] = field(default_factory=list)
    announced: list[Announced] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    """Root and key of announcements of which nothing more comes."""
    unsent: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    handed_on: list[HandedOn] = field(default_factory=list)
    finals: list[tuple[str, str | None, Receipt]] = field(default_factory=list)
    receiver_failures: list[ReceiverFailedRecord] = field(default_factory=list)
    unsigned: list[tuple[str, str, Receipt]] = field(default_factory=list)
    """Ends that do not count, as they are not signed: task id, why, receipt."""
    position: str | None = None
    moved: bool = False
    """Whether anything was read of the stream, be it of no use: it need not be read again."""

    def __bool__(self) -> bool:
        told = self.starts or self.handed_on or self.finals or self.unsigned
        return bool(told or self.descendants or self.closed or self.receiver_failures)


def add_record(
    raw: Mapping[str, object], batch: ReceiptBatch, signatures: ReportSignatures | None = None
) -> None:
    """Add a record of the stream to the batch; raises ValueError where it counts for nothing.

    It is malformed, or not signed where ``signatures`` are required. An end that is not signed is
    told in the batch, without all that came with it.
    """
    record = parse_record(raw)
    if (
        signatures is not None
        and not isinstance(record, FinishedRecord | None)
        and (fault := signatures.fault_of_record(raw))
    ):
        raise ValueError(fault)
    if isinstance(record, StartedRecord):
        _add_start(record, batch)
    elif isinstance(record, SpawnedRecord):
        _add_spawned(record, batch)
    elif isinstance(record, FinishedRecord):
        receipt = worker_receipt(record.receipt)
        fault = "" if signatures is None else signatures.fault_in_record(raw, receipt)
        if fault:
            batch.unsigned.append((receipt.task_id, fault, receipt))
            return
        for spawned in record.spawned:  # which could not be told when it was
            _add_spawned(spawned, batch)
        if record.start is not None:
            _add_start(record.start, batch)
        batch.unsent += record.unsent
        batch.elsewhere |= record.elsewhere
        root = receipt.task_id if record.origin is None else record.origin.root
        batch.announced += [
            Announced(root, a.key, receipt.task_id, a.how, a.task, a.count, a.task_ids, a.is_off)
            for a in record.announced
        ]
        batch.finals.append((receipt.task_id, record.execution, receipt))
    elif isinstance(record, HandedOnRecord):
        end = record.task_id, record.execution, record.how, record.ended_at, record.next_at
        batch.unsent += record.unsent
        batch.elsewhere |= record.elsewhere
        batch.handed_on.append(HandedOn(*end, cost=record.cost))
    elif isinstance(record, ReceiverFailedRecord):
        batch.receiver_failures.append(record)


def _add_start(record: StartedRecord, batch: ReceiptBatch) -> None:
    if record.origin is not None:  # known already, unless the record of its starting is gone
        where = record.origin.root, record.origin.parent
        batch.descendants.append(
            Descendant(record.task_id, *where, record.task, "call", record.queue)
        )
    batch.starts.append(_start(record))


def _add_spawned(record: SpawnedRecord, batch: ReceiptBatch) -> None:
    if record.closes is not None:
        batch.closed.append((record.root, record.closes))
    batch.descendants += [
        Descendant(
            *(one.task_id, record.root, record.parent, one.task, one.how, one.queue, one.fulfils),
            record.spawned_at,
            chords=one.chords,
            due=one.due,
        )
        for one in record.children
    ]


def worker_receipt(document: Mapping[str, object]) -> Receipt:
    """Read a receipt from where only workers write, so its source is "worker" whatever it says:
    another would be checked less. Raise ValueError where it is malformed."""
    receipt = Receipt.model_validate(document)
    if receipt.source == "worker" and receipt.reused is None:
        return receipt
    return receipt.model_copy(update=_BY_WORKER)


_BY_WORKER: Final = {"source": "worker", "reused": None, "judged": None}
"""What no worker can say of its receipt."""


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
