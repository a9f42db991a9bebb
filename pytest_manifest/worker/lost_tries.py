"""Record the deaths of processes after which Celery sends their jobs again.

Celery 5.7 does so for tasks with ``retry_on_worker_lost``: the worker's main process sends a retry.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import datetime, timezone
from typing import Any, Final

from loguru import logger
from pydantic import JsonValue

from pytest_manifest.schema import stream_records, wire
from pytest_manifest.schema.wire import timestamp
from pytest_manifest.worker.backend_base import ReceiptBackend
from pytest_manifest.worker.handoff import MAX_RETRIES, due_time, job_headers
from pytest_manifest.worker.job import Delivery, delivery_of_fields
from pytest_manifest.worker.receipt import handed_on_record, taken_requests

LOST: Final = "the process that ran it died"


def record_lost_try(fields: Mapping[str, Any], headers: MutableMapping[str, object]) -> bool:
    """Record that a worker's main process sends a job again whose process has died.

    ``fields``: of the message that is about to be sent. Returns whether it is such a one: Celery
    5.7 has ``retry_on_worker_lost`` for that.
    """
    task_id, retries = fields.get("id"), fields.get("retries")
    for _, request in taken_requests():
        if request.id != task_id or not isinstance(retries, int):
            continue
        delivery = delivery_of_fields(request.request_dict)
        if delivery is None or delivery.retries + 1 != retries:
            continue
        began = request.time_start
        started = datetime.fromtimestamp(began, timezone.utc) if began else None
        latest: dict[str, JsonValue] = {
            "retries": delivery.retries,
            "started_at": timestamp(started) if started else None,
            "ended_at": timestamp(datetime.now(timezone.utc)),
            "error": {"type": "WorkerLostError", "message": LOST, "traceback": None},
        }
        headers[wire.HEADER_RETRIED] = [*map(dict, delivery.retried), latest][-MAX_RETRIES:]
        headers.update(job_headers(delivery, delivery.hop))
        due = due_time(fields.get("eta"))
        record = handed_on_record(delivery, stream_records.HANDED_ON_AFTER_DEATH, due)
        _announce(request.task.backend, delivery, record)
        return True
    return False


def _announce(backend: object, delivery: Delivery, record: bytes) -> None:
    """Put a record into the run's stream; a failure is logged, and the job goes on."""
    if not isinstance(backend, ReceiptBackend):
        return
    try:
        backend.announce(delivery.stream, delivery.ttl, record)
    except Exception as error:
        logger.warning("the death of {}'s process was not recorded: {}", delivery.task_id, error)
