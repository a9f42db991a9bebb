"""What is told of the tries of a task that asks Celery to retry it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Final

from pydantic import JsonValue

from pytest_manifest.schema.wire import timestamp
from pytest_manifest.worker.execution import Execution
from pytest_manifest.worker.outcome import describe

MAX_TRIES: Final = 10
"""The latest that are told of: all of this travels with the next message."""
MAX_MESSAGE: Final = 500


def moment_of(eta: object) -> str | None:
    """When a next try is due, as its message says it; None: as soon as a worker has it."""
    try:
        due = datetime.fromisoformat(eta) if isinstance(eta, str) else None
    except ValueError:  # its worker will turn it away
        return None
    if due is None:
        return None
    return timestamp(due if due.tzinfo else due.replace(tzinfo=UTC))


def retried_so_far(execution: Execution) -> list[dict[str, JsonValue]]:
    """The tries before this one, and this one, in which the task has just asked for the next."""
    error = sys.exc_info()[1]  # Celery raises its Retry later; this is what the task is handling
    facts = execution.delivery
    told: dict[str, JsonValue] = {
        "retries": facts.retries,
        "started_at": timestamp(execution.started),
        "ended_at": timestamp(datetime.now(UTC)),
        "error": None if error is None else dict(describe(error, limit=MAX_MESSAGE)),
    }
    return [*map(dict, facts.retried), told][-MAX_TRIES:]
