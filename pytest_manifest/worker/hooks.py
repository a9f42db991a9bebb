"""What happens around a task in the process that runs it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from celery import states
from loguru import logger

from pytest_manifest.schema import wire
from pytest_manifest.schema.code_digest import code_digest
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.capture import catch_stdlib
from pytest_manifest.worker.delivery import delivery_of, is_ours
from pytest_manifest.worker.execution import Execution, current_execution
from pytest_manifest.worker.handover import EXECUTION, execution_of
from pytest_manifest.worker.marking import Receipts
from pytest_manifest.worker.outcome import turned_away
from pytest_manifest.worker.receipt import started_record
from pytest_manifest.worker.retrying import retried_so_far


def on_prerun(task: Any, args: object, kwargs: object, **_: object) -> None:
    """Say that the task starts, and keep from here on what it logs."""
    request = task.request
    if not is_ours(request):
        return
    facts = delivery_of(request)
    assert facts is not None
    backend = ensure_receipts(task.backend)
    catch_stdlib()
    execution = Execution(facts, args, kwargs, code_digest(task))
    setattr(request, EXECUTION, execution)
    execution.begin()
    if isinstance(backend, Receipts):
        _announce(backend, execution)
    execution.start_clocks()


def _announce(backend: Receipts, execution: Execution) -> None:
    facts = execution.delivery
    try:
        backend.announce(facts.stream, facts.ttl, started_record(execution))
    except Exception as error:  # the store may be back by the time the task is done
        logger.warning("the start of {} was not recorded: {}", facts.task_id, error)


def on_postrun(task: Any, state: str | None = None, retval: object = None, **_: object) -> None:
    """Hand in what no result is stored for, and let go of the task."""
    request = task.request
    if not is_ours(request):
        return
    execution = execution_of(request)
    if execution is None:
        return
    backend = task.backend
    left_to_main = state == states.REJECTED and getattr(backend, "rejections_from_main", False)
    # No state: something that is no Exception is on its way up, and will end the process.
    execution.end(killed=state is None or left_to_main)
    if not isinstance(backend, Receipts) or not isinstance(retval, BaseException):
        return
    if state == states.IGNORED and not execution.replaced:
        backend.report(request, turned_away("ignored", retval))
    elif state == states.REJECTED and not left_to_main and not getattr(retval, "requeue", False):
        backend.report(request, turned_away("rejected", retval))


def on_publish(headers: MutableMapping[str, object] | None = None, **_: object) -> None:
    """A message that carries our task on (a retry, a replacement) is ours as well."""
    if not isinstance(headers, MutableMapping):
        return
    headers.pop(wire.HEADER_EXECUTION, None)
    headers.pop(wire.HEADER_RECEIVED_AT, None)
    execution = current_execution()
    if execution is None or headers.get("id") != execution.delivery.task_id:
        return
    execution.replaced = True
    if headers.get("retries") == execution.delivery.retries + 1:
        headers[wire.HEADER_RETRIED] = retried_so_far(execution)
    if wire.HEADER_RUN not in headers:
        headers.update(_headers(execution))


def _headers(execution: Execution) -> dict[str, object]:
    facts = execution.delivery
    headers: dict[str, object] = {
        wire.HEADER_RUN: facts.run,
        wire.HEADER_ENTRY: facts.entry,
        wire.HEADER_ATTEMPT: facts.attempt,
        wire.HEADER_SENT_AT: facts.sent_at,
        wire.HEADER_STREAM: facts.stream,
        wire.HEADER_TTL: facts.ttl,
    }
    return {name: value for name, value in headers.items() if value is not None}
