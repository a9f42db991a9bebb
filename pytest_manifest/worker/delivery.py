"""What a message of ours says about the job that it carries."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from pytest_manifest.schema import wire

DEFAULT_TTL = 7 * 24 * 3600
EXECUTION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one message, named by ``execution``; ``ttl`` in seconds, times as text."""

    run: str
    entry: str
    attempt: int
    task_id: str
    task: str
    execution: str
    stream: str | None
    ttl: int
    worker: str | None
    queue: str | None
    sent_at: str | None
    received_at: str | None
    redelivered: bool
    retries: int
    replaced: bool
    retried: Sequence[Mapping[str, JsonValue]] = ()
    hop: int = 0


def is_ours(request: object) -> bool:
    """Whether a task's request came with the headers of a manifest's run."""
    return wire.HEADER_RUN in getattr(request, "__dict__", ())


def new_execution() -> str:
    """A random name for one execution."""
    return secrets.token_hex(EXECUTION_BYTES)


def delivery_of(request: object) -> Delivery | None:
    """What a task's request (``task.request``) says; None for messages that are not ours."""
    if not is_ours(request):
        return None
    # The instance's own dictionary: Celery's Context has defaults of None for everything else.
    fields: dict[str, object] = request.__dict__
    # Where the worker turned a message away before it announced it, nobody has named it yet.
    fields.setdefault(wire.HEADER_EXECUTION, new_execution())
    return _delivery(fields)


def delivery_of_message(message: object, worker: str | None) -> Delivery | None:
    """What the headers of a message say that never became a task; None if it is not ours."""
    headers = getattr(message, "headers", None)
    if not isinstance(headers, Mapping) or wire.HEADER_RUN not in headers:
        return None
    info = getattr(message, "delivery_info", None)
    return _delivery(
        {
            **headers,
            wire.HEADER_EXECUTION: new_execution(),
            "hostname": worker,
            "delivery_info": info,
        }
    )


def _delivery(fields: Mapping[str, object]) -> Delivery:
    # Of a replacement that a worker has sent which knows nothing of us, Celery's own count tells.
    hop = max(_integer(fields.get(wire.HEADER_HOP)), _integer(fields.get("replaced_task_nesting")))
    info = fields.get("delivery_info")
    info = info if isinstance(info, Mapping) else {}
    return Delivery(
        run=str(fields[wire.HEADER_RUN]),
        entry=str(fields.get(wire.HEADER_ENTRY)),
        attempt=_integer(fields.get(wire.HEADER_ATTEMPT)),
        task_id=str(fields.get("id")),
        task=str(fields.get("task")),
        execution=str(fields[wire.HEADER_EXECUTION]),
        stream=_text(fields.get(wire.HEADER_STREAM)) or None,
        ttl=_integer(fields.get(wire.HEADER_TTL)) or DEFAULT_TTL,
        worker=_text(fields.get("hostname")),
        queue=_text(info.get("routing_key")),
        sent_at=_text(fields.get(wire.HEADER_SENT_AT)),
        received_at=_text(fields.get(wire.HEADER_RECEIVED_AT)),
        redelivered=bool(info.get("redelivered")),
        retries=_integer(fields.get("retries")),
        replaced=hop > 0,
        retried=_documents(fields.get(wire.HEADER_RETRIED)),
        hop=hop,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _documents(value: object) -> Sequence[Mapping[str, JsonValue]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else ()


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
