"""A receipt on its way out, and what of it was there before: each execution hands in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakValueDictionary

from loguru import logger

from pytest_manifest.schema.wire import arguments_sha256, timestamp
from pytest_manifest.worker.delivery import Delivery, delivery_of, is_ours
from pytest_manifest.worker.execution import Execution, Ran, seconds_since
from pytest_manifest.worker.outcome import Ending
from pytest_manifest.worker.receipt import Document, finished_record, receipt_document
from pytest_manifest.worker.spool import take_spooled

# Kept on the task's request, so that they go when it goes.
EXECUTION: Final = "manifest_running_execution"
FINISHED: Final = "manifest_finished"

_taken: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Requests that this worker has taken and not let go of yet, by execution."""


class Handover:
    """One receipt, sent or not yet, of the task that ``request`` belongs to."""

    __slots__ = ("_record", "ending", "facts", "receipt", "request", "sent")

    def __init__(self, facts: Delivery, ending: Ending, receipt: Document, request: object) -> None:
        self.facts = facts
        self.ending = ending
        self.receipt = receipt
        self.sent = False
        self.request: object = request
        self._record: bytes | None = None

    def record(self) -> bytes:
        """The record for the stream, made once."""
        if self._record is None:
            execution = execution_of(self.request)
            start = None if execution is None else execution.untold
            self._record = finished_record(self.facts.execution, self.receipt, start)
        return self._record

    def belongs_to(self, key: bytes) -> bool:
        """Whether this key of a result store is this task's."""
        return key.endswith(self.facts.task_id.encode())

    def mark_sent(self) -> None:
        """From here on the execution has its receipt, and gets no second one."""
        if not self.sent:
            self.sent = True
            setattr(self.request, FINISHED, self)
            self.request = None  # or each would keep the other alive


def hand_over(
    request: object, ending: Callable[[], Ending], outside: Callable[[], Ending] | None = None
) -> Handover | None:
    """Prepare the receipt of the task that ``request`` belongs to.

    ``outside`` is what the ending is to the process that does not run the task, where it differs.
    None where the message is not ours, or the execution has its receipt already.
    """
    if not is_ours(request) or FINISHED in request.__dict__:
        return None
    try:
        return _prepare(request, ending, outside)
    except Exception:
        # The task's outcome must not change for it, and the plain result still tells of that.
        logger.exception("the receipt of {} could not be made", request.__dict__.get("id"))
        return None


def _prepare(
    request: object, ending: Callable[[], Ending], outside: Callable[[], Ending] | None
) -> Handover:
    execution = execution_of(request)
    facts = delivery_of(request) if execution is None else execution.delivery
    assert facts is not None
    end = ending() if execution is not None or outside is None else outside()
    if execution is not None:
        digests = execution.args_sha256, execution.code
        receipt = receipt_document(facts, end, execution.ran(), execution.said(), *digests)
    else:
        receipt = _from_outside(facts, end, request)
    return Handover(facts, end, receipt, request)


def execution_of(request: object) -> Execution | None:
    """The execution in this process that a request belongs to."""
    execution = getattr(request, "__dict__", {}).get(EXECUTION)
    return execution if isinstance(execution, Execution) else None


def handed_over(request: object, task_id: str) -> Handover | None:
    """What was handed in before for the task that ``request`` belongs to."""
    earlier = getattr(request, "__dict__", {}).get(FINISHED)
    return earlier if isinstance(earlier, Handover) and earlier.facts.task_id == task_id else None


def note_taken(execution: str, request: object) -> None:
    """Remember, for as long as Celery keeps it, a request that this worker took."""
    _taken[execution] = request


def taken() -> list[tuple[str, Any]]:
    """The requests that this worker has taken and not let go of yet, each after its execution."""
    return list(_taken.items())


def _from_outside(facts: Delivery, ending: Ending, request: object) -> Document:
    """The receipt of a task that another process ran, or nobody."""
    ran = _seen_from_outside(facts)
    if ending.state == "crashed":  # its process died before this one noticed, nobody knows when
        ran = replace(ran, runtime=None)
    said = take_spooled(facts.task_id, facts.execution)
    fields = request.__dict__
    digest = None
    if "args" in fields:  # not where the message was turned away unread
        digest = arguments_sha256(fields["args"], fields.get("kwargs"))
    return receipt_document(facts, ending, ran, said, digest)


def _seen_from_outside(facts: Delivery) -> Ran:
    request = _taken.get(facts.execution)
    if request is None or not request.time_start:
        return Ran()
    now, started = datetime.now(UTC), datetime.fromtimestamp(request.time_start, UTC)
    return Ran(
        pid=request.worker_pid,
        started_at=timestamp(started),
        finished_at=timestamp(now),
        wait=seconds_since(facts.sent_at, started),
        runtime=max(0.0, round((now - started).total_seconds(), 6)),
    )
