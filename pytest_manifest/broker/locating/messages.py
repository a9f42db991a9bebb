"""The envelopes that kombu's own ("virtual") transports put around a message."""

from __future__ import annotations

import json


def parse_json(raw: object) -> object:
    """What the bytes say as JSON; None where they are none, or somebody else's."""
    if not isinstance(raw, bytes):
        return None
    try:
        found: object = json.loads(raw)
    except ValueError:
        return None
    return found


def unacked_message(raw: object) -> object:
    """The message in a value of the ``unacked`` hash: message, exchange, routing key."""
    parts = parse_json(raw)
    return parts[0] if isinstance(parts, list) and parts else None


def task_id_of(message: object) -> str | None:
    """The task id of a message, under either version of Celery's message protocol."""
    if not isinstance(message, dict):
        return None
    for part, name in (("headers", "id"), ("properties", "correlation_id")):
        fields = message.get(part)
        if isinstance(fields, dict) and isinstance(fields.get(name), str):
            return str(fields[name])
    return None
