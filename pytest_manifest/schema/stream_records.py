"""Define the records of a run's stream: starts, ends, and tasks that other tasks start.

Workers write them and the dispatching side parses them, so this imports neither Celery nor any
client.

Define which bytes a worker signs of what it reports, so that both sides make the same of it.

They are canonical JSON (``wire.canonical``, with lone surrogates replaced), signed as the payload
of a DSSE envelope is, each kind under a type of its own. A receipt's are made of its fields, and so
the same whichever way it went: through a stream, a result store, a ledger or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    InstanceOf,
    JsonValue,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import core_schema

from pytest_manifest.schema import fields
from pytest_manifest.schema.receipts import Receipt
from pytest_manifest.schema.wire import (
    canonical_text,
    parse_timestamp,
    sha256,
    timestamp,
)
from pytest_manifest.signing import pae

STREAM_FIELD: Final = "r"
"""The one field of a stream record; it holds a JSON document."""
KIND_STARTED: Final = "started"
KIND_FINISHED: Final = "finished"
KIND_HANDED_ON: Final = "handed_on"
KIND_SPAWNED: Final = "spawned"
KIND_RECEIVER_FAILED: Final = "receiver_failed"

HANDED_ON_AFTER_DEATH: Final = "lost"
"""How a job is handed on whose process has died, and which its worker sends again."""
HOW_AFTER: Final = "after"
"""How an announcement is about whatever a task's own handlers start once its end is stored."""
HOW: Final = ("call", "group", "chain", "chord", "chord_body", "link", "errback", "replace")
"""How a task can be started by another: called, as a member of a group, as the next of a chain, in
a chord's header, as its body, by ``link``, by ``link_error``, as a part of a replacement."""


@dataclass(frozen=True)
class _Else:
    """The mark of a field that is this where a record has none, or something of another kind."""

    value: object = None

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_default_schema(
            handler(source), default=self.value, on_error="default"
        )


class _OrNothing:
    """The mark of an item that is left out where it is of another kind."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_default_schema(handler(source), on_error="omit")


def _objects(value: object) -> object:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _placed(record: object) -> object:
    """Return a record with its root and parent as its origin, too; None for what is none."""
    if not isinstance(record, Mapping):
        return None
    return {**record, "origin": record} if "root" in record else record


_Number = Annotated[fields.Whole, Field(strict=True)]
_Each = Annotated[fields.Text, _OrNothing()]
MaybeText = Annotated[fields.Text | None, _Else()]
Number = Annotated[_Number, _Else(0)]
MaybeNumber = Annotated[_Number | None, _Else()]
Flag = Annotated[bool, Field(strict=True), _Else(False)]
MaybeTime = Annotated[
    datetime | None, BeforeValidator(parse_timestamp), fields.Usually(fields.TIME_AS_WRITTEN)
]
MaybeAmount = Annotated[Annotated[fields.Amount, Field(strict=True)] | None, _Else()]
Texts = Annotated[tuple[_Each, ...], _Else(())]
TextsByName = Annotated[dict[fields.Text, _Each], _Else(MappingProxyType({}))]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a descendant: the task ids of its entry's job and of what started it."""

    root: fields.Text
    parent: fields.Text


@dataclass(frozen=True, slots=True)
class Child:
    """A task that another one starts; ``how`` is one of :data:`HOW`.

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
    chords: Annotated[Texts | None, _Else(())] = None
    due: MaybeTime = None


@dataclass(frozen=True, slots=True)
class SpawnedRecord:
    """The tasks that an execution is about to start, told before their messages are sent.

    ``run``, ``entry``, ``attempt`` and ``root`` are of the job that they descend from, ``parent``
    is the task id of what starts them. ``closes``: the key of an announcement of
    :data:`HOW_AFTER`, after which nothing more comes of this execution.
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
    task: fields.Text
    count: Number
    task_ids: Texts = ()
    is_off: Flag = False


@dataclass(frozen=True, slots=True)
class StartedRecord:
    """The start of an execution; times are UTC, ``execution`` is unique among all executions."""

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
    origin: Annotated[Origin | None, _Else()] = None


@dataclass(frozen=True, slots=True)
class HandedOnRecord:
    """The end of an execution whose job goes on, in a next try or in the task that replaces it.

    ``how``: "retry"; "lost", a retry that its worker sends as its process has died; "task", one
    that has the job's own task id; "canvas", several, of which only the last one has. ``next_at``
    is when the next try is due; ``cost`` is what this execution has reported of its own.
    ``unsent`` and ``elsewhere`` as in FinishedRecord.
    """

    task_id: fields.Text
    execution: fields.Text
    how: fields.Text
    ended_at: MaybeTime
    next_at: MaybeTime
    unsent: Texts = ()
    elsewhere: TextsByName = field(default_factory=dict)
    cost: MaybeAmount = None


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
    start: Annotated[StartedRecord | None, BeforeValidator(_placed)] = None
    origin: Annotated[Origin | None, _Else()] = None
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
        return adapter.validate_python(_placed(record))
    except ValidationError as error:
        name = next(one for one in reversed(error.errors()[0]["loc"]) if isinstance(one, str))
        what = "a text" if name != "receipt" else "an object"
        raise ValueError(f"a record of a worker without {what} for {name!r}") from error


@cache
def _adapters() -> Mapping[str, TypeAdapter[Record]]:
    kinds: Mapping[str, type[Record]] = {
        KIND_STARTED: StartedRecord,
        KIND_FINISHED: FinishedRecord,
        KIND_HANDED_ON: HandedOnRecord,
        KIND_SPAWNED: SpawnedRecord,
        KIND_RECEIVER_FAILED: ReceiverFailedRecord,
    }
    return {name: TypeAdapter(kind) for name, kind in kinds.items()}


RECEIPT_TYPE: Final = "application/vnd.pytest-celery-manifest.receipt+json"
RECORD_TYPE: Final = "application/vnd.pytest-celery-manifest.record+json"
SIGNATURE: Final = "signature"
"""The field of a record, or of a receipt, that has its signature."""

_TIMES: Final = ("sent_at", "received_at", "started_at", "finished_at")
_NUMBERS: Final = ("wait", "runtime", "cpu")
_LENGTH: Final = len("2026-11-24T15:00:00.000000+00:00")
_UNSIGNED: Final = ("result", "source", "executions", "reused", "judged", SIGNATURE)
"""A receipt's result is signed by its digest; what is signed is the worker's; how often it was
executed, and who has reused it, is for the reader to say."""
_DEFAULTS: Final = {
    name: info.get_default(call_default_factory=True) for name, info in Receipt.model_fields.items()
}
_IN_RECORD: Final = ("kind", "execution", "receipt")
FILLABLE: Final = ("started_at", "wait", "worker", "host", "pid", "redelivered")
"""What pytest adds to a receipt from records of starts, where the worker could not tell it."""


def record_bytes(record: Mapping[str, object]) -> bytes:
    """Return what is signed of a record that has no receipt; its signature is left out.

    Raises ValueError or TypeError where it is no JSON.
    """
    document = {name: value for name, value in record.items() if name != SIGNATURE}
    return pae(RECORD_TYPE, _canonical(document))


def rest_sha256(record: Mapping[str, object]) -> str | None:
    """Return the digest of what a record says beside its receipt; None where that is nothing.

    Raises ValueError or TypeError where it is no JSON.
    """
    rest = {name: value for name, value in record.items() if name not in _IN_RECORD}
    return sha256(_canonical(rest)) if rest else None


def receipt_bytes(given: Mapping[str, object], rest: str | None) -> bytes:
    """Return what is signed of a receipt, of its JSON object or the model's fields.

    ``rest``: the digest of what its record says beside. Fields with their default value are left
    out: a reader that is newer than the worker has more of them. Raises ValueError or TypeError
    where they are no JSON.
    """
    signed: dict[str, object] = {"rest": rest}
    for name, one in given.items():
        if name in _UNSIGNED:
            continue
        how = _NORMAL.get(name)
        value = one if how is None or one is None else how(one)
        if value != _DEFAULTS.get(name, None) or name not in _DEFAULTS:
            signed[name] = value
    return pae(RECEIPT_TYPE, _canonical(signed))


def _canonical(value: object) -> bytes:
    return canonical_text(value).encode("utf-8", "replace")


def _time(value: object) -> str | None:
    if isinstance(value, str) and len(value) == _LENGTH and value.endswith("+00:00"):
        return value  # as ``timestamp`` writes it: whatever else has this form, no reader accepts
    moment = value if isinstance(value, datetime) else parse_timestamp(value)
    return None if moment is None else timestamp(moment)


def _number(value: object) -> object:
    return float(value) if isinstance(value, int) else value


def _told(value: object) -> object:
    """Return an object without its null fields."""
    if not isinstance(value, Mapping):
        return value
    return {name: one for name, one in value.items() if one is not None}


def _retried(value: object) -> object:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return [_one_retried(one) if isinstance(one, Mapping) else one for one in value]


def _one_retried(one: Mapping[str, object]) -> object:
    made = dict(one)
    for name in ("started_at", "ended_at"):
        made[name] = _time(made.get(name))
    made["error"] = _told(made.get("error"))
    return _told(made)


_NORMAL: Final[Mapping[str, Callable[[object], object]]] = {
    **dict.fromkeys(_TIMES, _time),
    **dict.fromkeys(_NUMBERS, _number),
    "error": _told,
    "retried": _retried,
}
"""How fields get the one form that they have in all places."""
