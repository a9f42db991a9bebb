"""Define the records of a run's stream: starts, ends, and tasks that other tasks start.

Workers write them and the dispatching side parses them, so this imports neither Celery nor any
client.

Define which bytes a worker signs of what it reports, so that both sides make the same of it.

They are canonical JSON (``wire.canonical``, with lone surrogates replaced), signed as the payload
of a DSSE envelope is, each kind under a type of its own. A receipt's are made of its fields, and so
the same whichever way it went: through a stream, a result store, a ledger or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Final

from pytest_manifest.schema.wire import canonical_text, parse_timestamp, sha256, timestamp
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


@cache
def _defaults() -> dict[str, object]:
    from pytest_manifest.schema.receipts import Receipt  # as only who signs or checks needs it

    fields = Receipt.model_fields.items()
    return {name: info.get_default(call_default_factory=True) for name, info in fields}


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
    defaults = _defaults()
    for name, one in given.items():
        if name in _UNSIGNED:
            continue
        how = _NORMAL.get(name)
        value = one if how is None or one is None else how(one)
        if value != defaults.get(name, None) or name not in defaults:
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
    return [*map(_one_retried, value)] if isinstance(value, list) else value


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
