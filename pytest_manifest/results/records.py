"""Read the records of a run's stream, and sort them into what they report: starts, ends, trees.

Whoever can write to a store, and every fault of a disk or a clock, can put there what no worker of
ours writes. It says nothing, and above all nothing about another entry: it is logged and counted.

Where a record has something of another kind than it must have, a field is what it is without it;
but the names of its attempt it must have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

from celery import states
from loguru import logger
from pydantic import (
    BeforeValidator,
    Field,
    GetPydanticSchema,
    InstanceOf,
    JsonValue,
    OnErrorOmit,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import core_schema

from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Descendant, utc_now
from pytest_manifest.schema import Receipt, fields, stream_records
from pytest_manifest.schema.facts import Announced, FactSource, HandedOn, Started
from pytest_manifest.schema.wire import parse_timestamp
from pytest_manifest.text import whole_text
from pytest_manifest.verdict.signatures import ReportSignatures

T = TypeVar("T")


def _else(value: object = None) -> GetPydanticSchema:
    """Mark a field that is this where a record has none, or something of another kind."""
    return GetPydanticSchema(
        lambda source, handler: core_schema.with_default_schema(
            handler(source), default=value, on_error="default"
        )
    )


def _objects(value: object) -> object:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _object(value: object) -> object:
    return value if isinstance(value, Mapping) else None


_Number = Annotated[fields.Whole, Field(strict=True)]
_Each = OnErrorOmit[fields.Text]
MaybeText = Annotated[fields.Text | None, _else()]
Number = Annotated[_Number, _else(0)]
MaybeNumber = Annotated[_Number | None, _else()]
Flag = Annotated[bool, Field(strict=True), _else(False)]
MaybeTime = Annotated[
    datetime | None,
    BeforeValidator(parse_timestamp),
    fields.usually(fields.TIME_AS_WRITTEN),
    _else(),
]
MaybeAmount = Annotated[Annotated[fields.Amount, Field(strict=True)] | None, _else()]
Texts = Annotated[tuple[_Each, ...], _else(())]
TextsByName = Annotated[dict[fields.Text, _Each], _else(MappingProxyType({}))]


@dataclass(frozen=True, slots=True)
class Child:
    """A task that another one starts; ``how`` is one of :data:`stream_records.HOW`.

    ``queue``: where its message goes, as far as the publishing process can tell. ``fulfils``: the
    key of the announcement that it comes by (see :class:`Announcement`). ``chords``: the keys of
    the chords that cannot be completed without it, None where an older worker does not tell.
    ``due``: when it may start, for one with a countdown or an ETA.
    """

    task_id: fields.Text
    task: fields.Text
    how: fields.Text
    queue: MaybeText = None
    fulfils: MaybeText = None
    chords: Annotated[Texts | None, _else(())] = None
    due: MaybeTime = None


@dataclass(frozen=True, slots=True)
class SpawnedRecord:
    """The tasks that an execution is about to start, told before their messages are sent.

    ``run``, ``entry``, ``attempt`` and ``root`` are of the job that they descend from, ``parent``
    is the task id of what starts them. ``closes``: the key of an announcement of
    :data:`stream_records.HOW_AFTER`, after which nothing more comes of this execution.
    """

    run: fields.Text
    entry: fields.Text
    attempt: Number
    root: fields.Text
    parent: fields.Text
    execution: fields.Text
    spawned_at: MaybeTime
    children: Annotated[tuple[Child, ...], BeforeValidator(_objects)] = ()
    closes: MaybeText = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """Messages that Celery sends after a task's end is stored: a chord's body, errbacks.

    ``count`` of them, with these ``task_ids`` where they are known; the first is of ``task``. Each
    member of a chord's header announces the same body, by the same ``key``; ``is_off``: this end is
    one after which it will not be sent at all.
    """

    key: fields.Text
    how: fields.Text
    task: Annotated[fields.Text, _else("")]
    count: Number
    task_ids: Texts = ()
    is_off: Flag = False


@dataclass(frozen=True, slots=True)
class StartedRecord:
    """The start of an execution; times are UTC, ``execution`` is unique among all executions.

    ``root`` and ``parent``, of a descendant: the task ids of its entry's job and of what started
    it.
    """

    run: fields.Text
    entry: fields.Text
    attempt: Number
    task_id: fields.Text
    task: fields.Text
    execution: fields.Text
    worker: MaybeText
    host: MaybeText
    pid: MaybeNumber
    queue: MaybeText
    started_at: MaybeTime
    redelivered: Flag
    retries: Number
    boot: MaybeText = None
    pid_namespace: MaybeText = None
    hop: Number = 0
    root: MaybeText = None
    parent: MaybeText = None


@dataclass(frozen=True, slots=True)
class HandedOnRecord:
    """The end of an execution whose job goes on, in a next try or in the task that replaces it.

    ``how``: "retry"; "lost", a retry that its worker sends as its process has died; "task", one
    that has the job's own task id; "canvas", several, of which only the last one has. ``next_at``
    is when the next try is due, ``queue`` where its message is sent to; ``cost`` is what this
    execution has reported of its own. ``unsent`` and ``elsewhere`` as in FinishedRecord.
    """

    task_id: fields.Text
    execution: fields.Text
    how: fields.Text
    ended_at: MaybeTime
    next_at: MaybeTime
    unsent: Texts = ()
    elsewhere: TextsByName = field(default_factory=dict)
    cost: MaybeAmount = None
    queue: MaybeText = None


@dataclass(frozen=True, slots=True)
class FinishedRecord:
    """The end of an execution; ``receipt`` has the fields of ``schema.Receipt``, not validated yet.

    ``start`` is the record of its start, and ``spawned`` are records of the tasks that it started,
    where those could not be told when it was. ``unsent``: task ids among those of which no broker
    confirmed the message. ``announced``: what is yet to be sent on account of this end.
    ``elsewhere``: the brokers of tasks that were sent to another one than the worker's, by task id.
    """

    execution: fields.Text
    receipt: Annotated[dict[str, JsonValue], InstanceOf()]
    start: Annotated[StartedRecord | None, BeforeValidator(_object)] = None
    root: MaybeText = None
    parent: MaybeText = None
    spawned: Annotated[tuple[SpawnedRecord, ...], BeforeValidator(_objects)] = ()
    unsent: Texts = ()
    announced: Annotated[tuple[Announcement, ...], BeforeValidator(_objects)] = ()
    elsewhere: TextsByName = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceiverFailedRecord:
    """A receiver of one of Celery's signals that has raised while a job ran; Celery goes on then.

    ``at_start``: it was called when the worker started, before its first job, which is this one.
    """

    entry: fields.Text
    execution: fields.Text
    receiver: fields.Text
    error: fields.Text
    at_start: Flag = False


Record = StartedRecord | HandedOnRecord | FinishedRecord | SpawnedRecord | ReceiverFailedRecord


def parse_record(record: Mapping[str, object]) -> Record | None:
    """Parse a stream record; return None for kinds that only a newer worker sends.

    Raises ValueError where one lacks what its kind must have: the names of its attempt.
    """
    adapter = _adapters().get(str(record.get("kind")))
    if adapter is None:
        return None
    try:
        return adapter.validate_python(record)
    except ValidationError as error:
        name = next(one for one in reversed(error.errors()[0]["loc"]) if isinstance(one, str))
        what = "a text" if name != "receipt" else "an object"
        raise ValueError(f"a record of a worker without {what} for {name!r}") from error


@cache
def _adapters() -> Mapping[str, TypeAdapter[Record]]:
    kinds: Mapping[str, type[Record]] = {
        stream_records.KIND_STARTED: StartedRecord,
        stream_records.KIND_FINISHED: FinishedRecord,
        stream_records.KIND_HANDED_ON: HandedOnRecord,
        stream_records.KIND_SPAWNED: SpawnedRecord,
        stream_records.KIND_RECEIVER_FAILED: ReceiverFailedRecord,
    }
    return {name: TypeAdapter(kind) for name, kind in kinds.items()}


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
    starts: list[Started] = field(default_factory=list)
    handed_on: list[HandedOn] = field(default_factory=list)
    finals: list[tuple[str, str | None, Receipt]] = field(default_factory=list)
    receiver_failures: list[ReceiverFailedRecord] = field(default_factory=list)
    unsigned: list[tuple[str, str, Receipt]] = field(default_factory=list)
    """Ends that do not count, as they are not signed: task id, why, receipt."""
    position: str | None = None
    moved: bool = False
    """Whether anything was read of the stream, be it of no use: it need not be read again."""
    cut: StackError | None = None
    """Why the stream was not read to its end."""

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
        root = (record.parent and record.root) or receipt.task_id
        batch.announced += [
            _fact(Announced, root, one, announcer=receipt.task_id, number=one.count)
            for one in record.announced
        ]
        batch.finals.append((receipt.task_id, record.execution, receipt))
    elif isinstance(record, HandedOnRecord):
        batch.handed_on.append(_fact(HandedOn, record.task_id, record))
    elif isinstance(record, ReceiverFailedRecord):
        batch.receiver_failures.append(record)
    if isinstance(record, FinishedRecord | HandedOnRecord):
        batch.unsent += record.unsent
        batch.elsewhere |= record.elsewhere


def _add_start(record: StartedRecord, batch: ReceiptBatch) -> None:
    root, parent = record.root, record.parent
    if root is not None and parent is not None:  # known, unless the record of its starting is gone
        found = Descendant(record.task_id, root, parent, record.task, "call", record.queue)
        batch.descendants.append(found)
    start = _fact(Started, record.task_id, record, namespace=record.pid_namespace)
    batch.starts.append(start)


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


def _fact(kind: type[T], job: str, record: object, **more: object) -> T:
    """Make a fact of a worker's record, before it has its number: by the fields of both."""
    same = {name: getattr(record, name) for name in _SAME[kind]}
    given = {"seq": 0, "at": utc_now(), "source": FactSource.WORKER, "job": job, **more}
    return kind(**same, **given)


def _names(kind: Any) -> set[str]:
    return {one.name for one in fields_of(kind)}


_SAME: Final[Mapping[type, set[str]]] = {
    Announced: _names(Announced) & _names(Announcement),
    HandedOn: _names(HandedOn) & _names(HandedOnRecord),
    Started: _names(Started) & _names(StartedRecord),
}
"""The fields that a fact has as the record of it."""


LOGGED: Final = 20
"""Bad records that get a line in the log; the others are counted."""
_MAX_CHARS: Final = 300
_MAX_FAULTS: Final = 20


class ReadErrors:
    """The records and results that could not be read; ``warnings``, if given, gets a sentence."""

    def __init__(self, warnings: list[str] | None = None) -> None:
        self._warnings = [] if warnings is None else warnings
        self._recorded: set[str] = set()
        self._message = ""
        self.count = 0
        self.results: dict[str, str] = {}
        """Task id -> why what the result store has of it cannot be read, not even its state."""

    def add_result(self, task_id: str, why: object) -> None:
        """Note that the store's result of this job cannot be read."""
        self.results[task_id] = " ".join(_error_text(why).split())[:_MAX_CHARS]
        self.add(f"the stored result of task {task_id}", why)

    def add(self, what: str, why: object) -> None:
        """Note what may be read again; of the same name it is counted once."""
        if what not in self._recorded:
            self._recorded.add(what)
            self.add_record(what, why)

    def add_record(self, what: str, why: object) -> None:
        """Note a record of the stream, which is read once: nothing of it is kept."""
        self.count += 1
        if self.count <= LOGGED:
            said = " ".join(f"{what}: {_error_text(why)}".split())[:_MAX_CHARS]
            logger.warning("passed over: {}", whole_text(said))
        if self._message in self._warnings:
            self._warnings.remove(self._message)
        some = "1 record or result" if self.count == 1 else f"{self.count} records or results"
        self._message = f"{some} could not be read and counted for nothing; see the log"
        self._warnings.append(self._message)


def _error_text(why: object) -> str:
    """Return what an error says; of very many faults, which would be told one by one, how many."""
    if isinstance(why, ValidationError) and why.error_count() > _MAX_FAULTS:
        return f"it has {why.error_count():,} faults"
    return f"{why}"


FINAL_STATES: Final = (*states.READY_STATES, states.IGNORED, states.REJECTED)
"""Celery itself stores nothing of what was ignored or rejected; our workers do."""
