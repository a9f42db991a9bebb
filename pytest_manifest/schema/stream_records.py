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
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, TypeVar

from pydantic import JsonValue

from pytest_manifest.schema.receipts import Receipt
from pytest_manifest.schema.wire import (
    MOST,
    amount,
    canonical_text,
    parse_timestamp,
    sha256,
    timestamp,
)
from pytest_manifest.signing import pae
from pytest_manifest.text import whole_text

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


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a descendant: the task ids of its entry's job and of what started it."""

    root: str
    parent: str


@dataclass(frozen=True, slots=True)
class Child:
    """A task that another one starts; ``how`` is one of :data:`HOW`.

    ``queue``: where its message goes, as far as the publishing process can tell. ``fulfils``: the
    key of the announcement that it comes by (see :class:`Announcement`). ``chords``: the keys of
    the chords that cannot be completed without it, None where an older worker does not tell.
    ``due``: when it may start, for one with a countdown or an ETA.
    """

    task_id: str
    task: str
    how: str
    queue: str | None = None
    fulfils: str | None = None
    chords: tuple[str, ...] | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class SpawnedRecord:
    """The tasks that an execution is about to start, told before their messages are sent.

    ``run``, ``entry``, ``attempt`` and ``root`` are of the job that they descend from, ``parent``
    is the task id of what starts them. ``closes``: the key of an announcement of
    :data:`HOW_AFTER`, after which nothing more comes of this execution.
    """

    run: str
    entry: str
    attempt: int
    root: str
    parent: str
    execution: str
    spawned_at: datetime | None
    children: tuple[Child, ...]
    closes: str | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """Messages that Celery sends after a task's end is stored: a chord's body, errbacks.

    ``count`` of them, with these ``task_ids`` where they are known; the first is of ``task``. Each
    member of a chord's header announces the same body, by the same ``key``; ``is_off``: this end is
    one after which it will not be sent at all.
    """

    key: str
    how: str
    task: str
    count: int
    task_ids: tuple[str, ...] = ()
    is_off: bool = False


@dataclass(frozen=True, slots=True)
class StartedRecord:
    """The start of an execution; times are UTC, ``execution`` is unique among all executions."""

    run: str
    entry: str
    attempt: int
    task_id: str
    task: str
    execution: str
    worker: str | None
    host: str | None
    pid: int | None
    queue: str | None
    started_at: datetime | None
    redelivered: bool
    retries: int
    boot: str | None = None
    pid_namespace: str | None = None
    hop: int = 0
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class HandedOnRecord:
    """The end of an execution whose job goes on, in a next try or in the task that replaces it.

    ``how``: "retry"; "lost", a retry that its worker sends as its process has died; "task", one
    that has the job's own task id; "canvas", several, of which only the last one has. ``next_at``
    is when the next try is due; ``cost`` is what this execution has reported of its own.
    ``unsent`` and ``elsewhere`` as in FinishedRecord.
    """

    task_id: str
    execution: str
    how: str
    ended_at: datetime | None
    next_at: datetime | None
    unsent: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class FinishedRecord:
    """The end of an execution; ``receipt`` has the fields of ``schema.Receipt``, not validated yet.

    ``start`` is the record of its start, and ``spawned`` are records of the tasks that it started,
    where those could not be told when it was. ``unsent``: task ids among those of which no broker
    confirmed the message. ``announced``: what is yet to be sent on account of this end.
    ``elsewhere``: the brokers of tasks that were sent to another one than the worker's, by task id.
    """

    execution: str
    receipt: dict[str, JsonValue]
    start: StartedRecord | None = None
    origin: Origin | None = None
    spawned: tuple[SpawnedRecord, ...] = ()
    unsent: tuple[str, ...] = ()
    announced: tuple[Announcement, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceiverFailedRecord:
    """A receiver of one of Celery's signals that has raised while a job ran; Celery goes on then.

    ``at_start``: it was called when the worker started, before its first job, which is this one.
    """

    entry: str
    execution: str
    receiver: str
    error: str
    at_start: bool = False


_Kind = TypeVar("_Kind")
_Reader = Callable[[Mapping[str, object], str], object]
Record = StartedRecord | HandedOnRecord | FinishedRecord | SpawnedRecord | ReceiverFailedRecord


def parse_record(record: Mapping[str, object]) -> Record | None:
    """Parse a stream record; return None for kinds that only a newer worker sends.

    Raises ValueError where one lacks what its kind must have: the names of its attempt.
    """
    parse = _PARSERS.get(str(record.get("kind")))
    return None if parse is None else parse(record)


def _spawned(record: Mapping[str, object]) -> SpawnedRecord:
    children = tuple(_read(Child, one) for one in _documents(record, "children"))
    return _read(SpawnedRecord, record, children=children)


def _finished(record: Mapping[str, object]) -> FinishedRecord:
    receipt, start = record.get("receipt"), record.get("start")
    if not isinstance(receipt, dict):
        raise ValueError("a finished record without a receipt")  # noqa: TRY004 - bad data, not a bug
    return _read(
        FinishedRecord,
        record,
        receipt=receipt,
        start=_read(StartedRecord, start) if isinstance(start, Mapping) else None,
        spawned=tuple(map(_spawned, _documents(record, "spawned"))),
        announced=tuple(map(_announcement, _documents(record, "announced"))),
    )


def _announcement(record: Mapping[str, object]) -> Announcement:
    # Of what is off there need be no task.
    return _read(Announcement, record, task=_optional_text(record, "task") or "")


_PARSERS: Final[Mapping[str, Callable[[Mapping[str, object]], Record]]] = {
    KIND_STARTED: lambda record: _read(StartedRecord, record),
    KIND_FINISHED: _finished,
    KIND_HANDED_ON: lambda record: _read(HandedOnRecord, record),
    KIND_SPAWNED: _spawned,
    KIND_RECEIVER_FAILED: lambda record: _read(ReceiverFailedRecord, record),
}


def _read(kind: type[_Kind], record: Mapping[str, object], **given: object) -> _Kind:
    """Make a record of a document by the types of its fields; ``given``: what was read already."""
    found = {name: read(record, name) for name, read in _FIELDS[kind] if name not in given}
    return kind(**found, **given)


def _origin(record: Mapping[str, object], _name: str) -> Origin | None:
    root, parent = _optional_text(record, "root"), _optional_text(record, "parent")
    return None if root is None or parent is None else Origin(root, parent)


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"a record of a worker without a text for {name!r}")  # noqa: TRY004
    return whole_text(value)


def _optional_text(record: Mapping[str, object], name: str) -> str | None:
    value = record.get(name)
    return whole_text(value) if isinstance(value, str) else None


def _texts(record: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = record.get(name)
    found = value if isinstance(value, list) else ()
    return tuple(whole_text(one) for one in found if isinstance(one, str))


def _texts_by_name(record: Mapping[str, object], name: str) -> dict[str, str]:
    value = record.get(name)
    found = value.items() if isinstance(value, Mapping) else ()
    return {whole_text(str(key)): whole_text(one) for key, one in found if isinstance(one, str)}


def _documents(record: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    value = record.get(name)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _integer(record: Mapping[str, object], name: str) -> int | None:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -MOST <= value <= MOST else None  # no pid or count is larger


_READERS: Final[Mapping[str, _Reader]] = {
    "str | None": _optional_text,
    "int": lambda record, name: _integer(record, name) or 0,
    "int | None": _integer,
    "bool": lambda record, name: record.get(name) is True,
    "datetime | None": lambda record, name: parse_timestamp(record.get(name)),
    "float | None": lambda record, name: amount(record.get(name)),
    "tuple[str, ...]": _texts,
    "tuple[str, ...] | None": lambda record, name: _texts(record, name) if name in record else None,
    "Mapping[str, str]": _texts_by_name,
    "Origin | None": _origin,
}
"""How a field of a record is read, by its type; any other must be a text."""
_FIELDS: Final[Mapping[type, Sequence[tuple[str, _Reader]]]] = {
    kind: tuple((one.name, _READERS.get(str(one.type), _text)) for one in fields(kind))
    for kind in (
        Announcement, Child, FinishedRecord, HandedOnRecord, ReceiverFailedRecord, SpawnedRecord,
        StartedRecord,
    )
}  # fmt: skip


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


def receipt_bytes(fields: Mapping[str, object], rest: str | None) -> bytes:
    """Return what is signed of a receipt, of its JSON object or the model's fields.

    ``rest``: the digest of what its record says beside. Fields with their default value are left
    out: a reader that is newer than the worker has more of them. Raises ValueError or TypeError
    where they are no JSON.
    """
    signed: dict[str, object] = {"rest": rest}
    for name, given in fields.items():
        if name in _UNSIGNED:
            continue
        how = _NORMAL.get(name)
        value = given if how is None or given is None else how(given)
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
