"""Report receivers of Celery's signals that raise, which Celery logs and then goes on.

An app may store a task's work in a receiver of ``task_success``: the state of the task does not say
that this failed.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from celery import current_task
from loguru import logger

from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction import redact
from pytest_manifest.schema import stream_records, wire
from pytest_manifest.worker.backend_base import ReceiptBackend
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.job import Delivery, delivery_of, is_of_manifest
from pytest_manifest.worker.receipt import encode_signed

LONGEST: Final = 300
"""Characters of an error's text that are reported."""
MOST: Final = 5
"""Failures at a worker's start that are kept for its jobs."""


class _Waiting:
    """Failures at the start of this worker, for its first job."""

    def __init__(self) -> None:
        self.failures: list[dict[str, str]] = []


_at_start: Final = ProcessState(_Waiting, is_of_worker=True)


def note_failure(receiver: object, error: BaseException) -> None:
    """Report the failure with the running job; one at the worker's start goes with its next job."""
    request = getattr(current_task, "request", None)
    failure = {"receiver": _name(receiver), "error": _text(error)}
    if not is_of_manifest(request):
        waiting = _at_start.now.failures
        if getattr(request, "id", None) is None and len(waiting) < MOST:
            waiting.append(failure)
        return
    try:
        _send(current_task, request, failure, at_start=False)
    except Exception as failed:  # a task's outcome must not change for it
        logger.warning("the failure of {} was not recorded: {}", failure["receiver"], failed)


def report_failures_at_start(task: object, request: object) -> None:
    """Report, with the first job of this process, what failed before it."""
    waiting, _at_start.now = _at_start.now, _Waiting()
    for failure in waiting.failures:
        try:
            _send(task, request, failure, at_start=True)
        except Exception as failed:  # as above
            logger.warning("the failure of {} was not recorded: {}", failure["receiver"], failed)


def _send(task: object, request: object, failure: dict[str, str], *, at_start: bool) -> None:
    delivery = delivery_of(request)
    backend = ensure_receipts(getattr(task, "backend", None))
    if delivery is not None and isinstance(backend, ReceiptBackend):
        record = _record(delivery, failure, at_start=at_start)
        backend.announce(delivery.stream, delivery.ttl, record)


def _record(delivery: Delivery, failure: dict[str, str], *, at_start: bool) -> bytes:
    return encode_signed(
        {
            "kind": stream_records.KIND_RECEIVER_FAILED,
            "run": delivery.run,
            "entry": delivery.entry,
            "attempt": delivery.attempt,
            "task_id": delivery.task_id,
            "execution": delivery.execution,
            "failed_at": wire.timestamp(datetime.now(timezone.utc)),
            "at_start": at_start,
            **failure,
        }
    )


def _name(receiver: object) -> str:
    module = getattr(receiver, "__module__", None) or type(receiver).__module__
    name = getattr(receiver, "__qualname__", None) or type(receiver).__qualname__
    return f"{module}.{name}"


def _text(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return redact(text)[:LONGEST]
