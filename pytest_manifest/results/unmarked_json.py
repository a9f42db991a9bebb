"""Decode results to the JSON that the worker made of them, whatever store has them.

Kombu writes dates, decimals, UUIDs and bytes as objects with a mark, and makes Python values of
them when it reads. A manifest holds JSON, so the JSON is what is compared. It also is all that this
side can have of a type that only the worker's code has registered with kombu.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kombu.serialization import loads, register
from kombu.utils import json as kombu_json
from pydantic import JsonValue

from pytest_manifest.schema.fields import json_value

if TYPE_CHECKING:
    from celery.backends.base import Backend
    from kombu.message import Message

JSON: Final = "application/json"
UNMARKED: Final = "application/x-manifest-unmarked-json"
"""Names the same bytes, for readers that are to leave kombu's marks as they are."""

register("manifest-unmarked-json", json.dumps, json.loads, UNMARKED, "utf-8")


def leave_marks(backend: Backend) -> None:
    """Have this result backend, which must be our own, give JSON as it was stored."""
    accept: frozenset[str] | None = getattr(backend, "accept", None)
    if getattr(backend, "content_type", None) == JSON and (accept is None or JSON in accept):
        backend.content_type = UNMARKED
        backend.accept = None if accept is None else {*accept, UNMARKED}


def payload_of(message: Message) -> object:
    """Decode a message's content, with kombu's marks where it is JSON.

    Raises whatever a decoder raises.
    """
    if message.content_type == JSON and (message.accept is None or JSON in message.accept):
        return loads(message.body, UNMARKED, message.content_encoding, accept={UNMARKED})
    return message.payload


def as_json(value: object) -> tuple[JsonValue, str | None]:
    """Convert a value to JSON; give the reason too where that cannot be done.

    What was not stored as JSON (pickled, say) becomes what kombu's JSON would have been.
    """
    try:
        return json_value(value), None
    except ValueError:
        pass  # no JSON proper: kombu's may know it
    try:
        text: Any = kombu_json.dumps(value, allow_nan=False)
        return json_value(json.loads(text)), None
    except Exception as error:  # types may bring a method of their own for it
        return None, f"{type(value).__name__}: {error}"
