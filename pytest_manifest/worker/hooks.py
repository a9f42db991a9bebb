"""What happens around a task in the process that runs it."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import Any

from celery import states

from pytest_manifest.schema import wire
from pytest_manifest.schema.code_digest import told_digest
from pytest_manifest.worker import own_waits
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.capture import catch_stdlib
from pytest_manifest.worker.delivery import delivery_of, is_ours
from pytest_manifest.worker.execution import Execution, current_execution
from pytest_manifest.worker.handing_on import START, announce, hand_on, own_headers
from pytest_manifest.worker.handover import EXECUTION, execution_of
from pytest_manifest.worker.marking import Receipts
from pytest_manifest.worker.outcome import turned_away
from pytest_manifest.worker.receipt import started_record
from pytest_manifest.worker.retrying import moment_of, retried_so_far


def on_prerun(task: Any, args: object, kwargs: object, **_: object) -> None:
    """Say that the task starts, and keep from here on what it logs."""
    request = task.request
    if not is_ours(request):
        return
    facts = delivery_of(request)
    assert facts is not None
    backend = ensure_receipts(task.backend)
    catch_stdlib()
    own_waits.begin(facts.execution)
    execution = Execution(facts, args, kwargs, told_digest(task))
    setattr(request, EXECUTION, execution)
    execution.begin()
    if isinstance(backend, Receipts):
        execution.announce = partial(backend.announce, facts.stream, facts.ttl)
        announce(execution, started_record(execution), START)
    execution.start_clocks()


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
    facts = execution.delivery
    if headers.get("retries") == facts.retries + 1:
        headers[wire.HEADER_RETRIED] = retried_so_far(execution)
        headers.update(own_headers(facts, facts.hop))
        hand_on(execution, "retry", moment_of(headers.get("eta")))
    else:
        headers.update(own_headers(facts, facts.hop + 1))
        hand_on(execution, "task")
