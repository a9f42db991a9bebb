"""What only a worker's main process sees: messages coming in, and those it turns away."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from celery.exceptions import NotRegistered
from loguru import logger

from pytest_manifest.compat.celery import after_undecodable
from pytest_manifest.schema import wire
from pytest_manifest.schema.base import State
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.delivery import delivery_of_message, new_execution
from pytest_manifest.worker.handover import note_taken
from pytest_manifest.worker.marking import Receipts
from pytest_manifest.worker.outcome import turned_away


def on_received(request: Any, **_: object) -> None:
    """Name the delivery and note its time; both travel with the request to the pool's process."""
    fields: dict[str, object] = request.request_dict
    if wire.HEADER_RUN not in fields:
        return
    execution = new_execution()
    fields[wire.HEADER_EXECUTION] = execution
    fields[wire.HEADER_RECEIVED_AT] = wire.timestamp(datetime.now(UTC))
    note_taken(execution, request)
    _keep_hard_limit(request)
    if not isinstance(ensure_receipts(request.task.backend), Receipts):
        _warn_without_store()


def _keep_hard_limit(request: Any) -> None:
    """Celery counts the hard limit from the soft one on, so a later soft one would put it off."""
    hard, soft = request.time_limits
    soft = soft or request.task.soft_time_limit
    if hard and soft and soft > hard:
        request.time_limits = (hard, hard)


@cache
def _warn_without_store() -> None:
    logger.warning(
        "jobs of a manifest come in, but this app has no result store for their receipts; "
        "set result_backend (or CELERY_RESULT_BACKEND), best to Redis"
    )


def on_unknown(sender: Any, message: object, name: str = "", **_: object) -> None:
    """No task of that name is registered here."""
    _turn_away(sender, message, "unknown_task", NotRegistered(name))


def on_rejected(
    sender: Any, message: object, exc: BaseException | None = None, **_: object
) -> None:
    """The message made no sense: a time that is none, arguments that are no mapping."""
    _turn_away(sender, message, "rejected", exc)


def on_ready(sender: Any, **_: object) -> None:
    """Notice messages that cannot be decoded, of which Celery only writes a log line."""
    after_undecodable(sender, lambda message, error: _turn_away(sender, message, "rejected", error))


def _turn_away(consumer: Any, message: object, state: State, error: BaseException | None) -> None:
    request = request_of(message, consumer.hostname)
    backend = ensure_receipts(consumer.app.backend)
    if request is not None and isinstance(backend, Receipts):
        backend.report(request, turned_away(state, error))


def request_of(message: Any, worker: str) -> object | None:
    """A task's request made of a message that never got one; None for messages not ours."""
    from celery.app.task import Context

    if delivery_of_message(message, worker) is None:
        return None
    properties = message.properties or {}
    request: object = Context(
        message.headers,
        hostname=worker,
        delivery_info=message.delivery_info or {},
        reply_to=properties.get("reply_to"),
        correlation_id=properties.get("correlation_id"),
    )
    return request
