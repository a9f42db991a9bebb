"""A task that hands its job on: by a next try, or to what it is replaced by (``Task.replace``).

Its execution ends, and the job does not. What carries the job to its end, and that alone, comes
with the run's headers: so whoever runs it last hands in the receipt, under the job's own task id.
Celery gives that id to the replacement itself, or to the last task of a chain, or to the body of a
chord, which may be sent much later, by any worker: the headers wait with the signature.
"""

from __future__ import annotations

from typing import Any, Final

from celery import Signature
from loguru import logger

from pytest_manifest.compat.celery import before_replacing
from pytest_manifest.schema import wire
from pytest_manifest.worker import own_waits
from pytest_manifest.worker.delivery import Delivery
from pytest_manifest.worker.execution import Execution, current_execution
from pytest_manifest.worker.receipt import handed_on_record

START: Final = "start"


def announce(execution: Execution, record: bytes, what: str) -> None:
    """Put a record into the run's stream; the task goes on also where that cannot be done."""
    if execution.announce is None:
        return
    try:
        with own_waits.waiting():
            execution.announce(record)
    except Exception as error:  # the store may be back by the time the task is done
        if what == START:
            execution.untold = record
        task_id = execution.delivery.task_id
        logger.warning("the {} of {} was not recorded: {}", what, task_id, error)


def hand_on(execution: Execution, how: str, next_at: str | None = None) -> None:
    """Say that this execution will not be its job's last, before what goes on is on its way."""
    execution.replaced = True
    announce(execution, handed_on_record(execution.delivery, how, next_at), "handing on")


def own_headers(facts: Delivery, hop: int) -> dict[str, object]:
    """The headers by which a message carries the job of ``facts``, handed on so often."""
    headers: dict[str, object] = {
        wire.HEADER_RUN: facts.run,
        wire.HEADER_ENTRY: facts.entry,
        wire.HEADER_ATTEMPT: facts.attempt,
        wire.HEADER_SENT_AT: facts.sent_at,
        wire.HEADER_STREAM: facts.stream,
        wire.HEADER_TTL: facts.ttl,
        wire.HEADER_HOP: hop,
    }
    return {name: value for name, value in headers.items() if value is not None}


def follow_replacements() -> None:
    """See to what tasks of this process are replaced by; doing it again changes nothing."""
    before_replacing(_carry)


def _carry(task: Any, sig: Any) -> None:
    execution = current_execution()
    if execution is not None and task.request.id == execution.delivery.task_id:
        _prepare(task.request, execution, sig)


def _prepare(request: Any, execution: Execution, sig: Any) -> None:
    facts, last = execution.delivery, _last_of(sig)
    # Where results are replies, the worker's own queue would get this one.
    to = {"reply_to": request.reply_to} if request.reply_to else {}
    last.set(headers={**(last.options.get("headers") or {}), **own_headers(facts, facts.hop + 1)})
    last.set(**to)
    if last is not sig:  # else it is told when the message goes, as of a retry
        hand_on(execution, "canvas")


def _last_of(sig: Any) -> Signature:
    """What has the task id of a frozen signature: its result is the whole one's."""
    while True:
        if sig.subtask_type == "chord":
            sig = sig.body
        elif sig.subtask_type in ("chain", "group") and sig.tasks:
            sig = sig.tasks[-1]
        else:
            return sig
