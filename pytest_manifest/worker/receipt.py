"""Build what a worker sends: started records, finished records, a receipt for each execution."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from celery.exceptions import (
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.utils import json as kombu_json

from pytest_manifest.compat.older import worker_lost
from pytest_manifest.log import log_failure
from pytest_manifest.process_state import ProcessState
from pytest_manifest.processes import boot_id, pid_namespace
from pytest_manifest.redaction.documents import secrets_in
from pytest_manifest.redaction.texts import redact, spelled, without
from pytest_manifest.schema import stream_records, wire
from pytest_manifest.schema.json_values import MAX_DEPTH, json_value
from pytest_manifest.schema.statuses import State
from pytest_manifest.schema.wire import arguments_sha256, timestamp
from pytest_manifest.worker import job
from pytest_manifest.worker.children import Children, Document
from pytest_manifest.worker.signing import sign_receipt, with_signature
from pytest_manifest.worker.spool import TaskOutput, take_output

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_MESSAGE = 16 * 1024
MAX_TRACEBACK = 32 * 1024
CUT = "\n[...]\n"
# A frame of the worker's own machinery, with the source and caret lines below it.
_CELERY_FRAME = re.compile(
    r'^  File "[^"\n]*[/\\](?:celery[/\\]app[/\\](?:trace|autoretry)|billiard[/\\]pool)\.py", '
    r"line .*\n(?:    .*\n)*",
    re.MULTILINE,
)
_LIMITS: Final = (TimeLimitExceeded, SoftTimeLimitExceeded)
_OF_MESSAGE: Final = (
    *("task", "worker", "queue", "sent_at", "received_at", "redelivered", "retries"),
)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A receipt's state, with the value returned or the error raised."""

    state: State
    value: object = None
    error: dict[str, str | None] | None = None


def succeeded(value: object) -> TaskResult:
    """Describe a task that returned this value."""
    return TaskResult("succeeded", value)


def failed(error: BaseException, traceback: str | None = None) -> TaskResult:
    """Describe a task that raised this; ``traceback`` is the worker's text of it."""
    # Only the soft limit is raised inside the task; another limit's error is another task's.
    state: State = "timed_out" if isinstance(error, SoftTimeLimitExceeded) else "failed"
    return TaskResult(state, error=describe(_original(error), traceback))


def failed_in_main_process(error: BaseException, traceback: str | None = None) -> TaskResult:
    """Describe a failure that the worker's main process reports, which did not run the task."""
    state: State = "failed"
    error = worker_lost(error)
    if isinstance(error, WorkerLostError):
        state = "crashed"
    elif isinstance(error, _LIMITS):
        state = "timed_out"
    elif isinstance(error, Reject):
        state = "rejected"
    return TaskResult(state, error=describe(error, traceback))


def revoked(reason: str) -> TaskResult:
    """Describe a task that was revoked or had expired; ``reason`` is Celery's word for it."""
    state: State = "expired" if reason == "expired" else "revoked"
    return TaskResult(
        state, error={"type": "TaskRevokedError", "message": reason, "traceback": None}
    )


def refused(state: State, error: BaseException | None) -> TaskResult:
    """Describe a message that the worker refused, or that the task rejected or ignored."""
    return TaskResult(state, error=None if error is None else describe(error, None))


def without_arguments(
    end: TaskResult, log: list[str], request: object
) -> tuple[TaskResult, list[str]]:
    """Take a task's arguments under names of secrets out of what is told of its error and log."""
    fields = request.__dict__
    args, kwargs = fields.get("args"), fields.get("kwargs")
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return end, log
    secrets = spelled({*secrets_in([*args]), *secrets_in(kwargs)})
    if not secrets:
        return end, log
    if end.error is not None:
        texts = end.error.items()
        told = {name: None if one is None else without(one, secrets) for name, one in texts}
        end = replace(end, error=told)
    return end, [without(line, secrets) for line in log]


def _original(error: BaseException) -> BaseException:
    """Return the original of an exception that Celery wrapped because it cannot be pickled."""
    if not isinstance(error, UnpickleableExceptionWrapper):
        return error
    raised = sys.exc_info()[1]
    return error if raised is None or type(raised).__name__ != error.exc_cls_name else raised


def describe(
    error: BaseException, traceback: str | None = None, limit: int = MAX_MESSAGE
) -> dict[str, str | None]:
    """Return an error as a receipt has it, its message cut to ``limit`` characters."""
    name = type(error).__name__
    if isinstance(error, UnpickleableExceptionWrapper):
        name = str(error.exc_cls_name)
    text = None if traceback is None else _trim(redact(str(traceback)))
    return {"type": name, "message": _shorten(redact(_text(error)), limit), "traceback": text}


def _text(error: BaseException) -> str:
    try:
        if isinstance(error, Reject):
            return "" if error.reason is None else str(error.reason)
        if isinstance(error, TimeLimitExceeded) and error.args:
            return f"the hard time limit of {error.args[0]:g} s was exceeded"
        if isinstance(error, SoftTimeLimitExceeded):
            return "the soft time limit was exceeded"
        if isinstance(error, NotRegistered):
            return f"no task of the name {error.args[0]!r} is registered with this worker"
        return str(error)
    except Exception as broken:  # a task's own __str__ may raise anything
        return f"({type(error).__name__} whose text cannot be had: {type(broken).__name__})"


def _trim(traceback: str) -> str:
    """Remove the frames of Celery's worker, and cut a long traceback in the middle."""
    ours = _CELERY_FRAME.sub("", traceback)
    return _shorten(ours, MAX_TRACEBACK)


def _shorten(text: str, limit: int) -> str:
    """Keep the beginning and the end of a long text."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return text[:half] + CUT + text[-half:]


_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
# A key that may have been a number, true, false or null: sorted in another order than its text is.
_OTHER_KEY = re.compile(rb'"(?:[-0-9][-+.0-9e]*|true|false|null)":')
_LONG_NUMBER = re.compile(rb"\d{4000}")


def started_record(execution: job.Execution) -> bytes:
    """Return the record of an execution that begins, as JSON."""
    delivery = execution.delivery
    return encode_signed(
        {
            "kind": stream_records.KIND_STARTED,
            **job.fields_of(delivery, *job.OF_JOB, *_OF_MESSAGE, "hop"),
            "host": host(),
            "pid": os.getpid(),
            "boot": boot_id(),
            "pid_namespace": pid_namespace(),
            "started_at": wire.timestamp(execution.started),
            **origin(delivery),
        }
    )


def origin(delivery: job.Delivery) -> Document:
    """Return what a descendant's records say of where it comes from; nothing of other tasks."""
    if delivery.root is None or delivery.parent is None:
        return {}
    return {"root": delivery.root, "parent": delivery.parent}


def handed_on_record(delivery: job.Delivery, how: str, more: Document | None = None) -> bytes:
    """Return the record of an execution whose job goes on; see ``HandedOnRecord``.

    ``more``: what it says of its next message, of the tasks that it has started, and of its cost.
    """
    return encode_signed(
        {
            "kind": stream_records.KIND_HANDED_ON,
            **job.fields_of(delivery, *job.OF_JOB),
            "how": how,
            "ended_at": wire.timestamp(datetime.now(timezone.utc)),
            "next_at": None,
            **(more or {}),
        }
    )


def finished_record(
    execution: str, receipt: Document, start: bytes | None = None, rest: Document | None = None
) -> bytes:
    """Return the record of an execution that ended; ``start``: its started record, if unsent.

    ``rest``: what else it says, of where the task comes from and what it has started.
    """
    beside = dict(rest or {})
    if start is not None:
        beside["start"] = json.loads(start)
    return encode(
        {
            "kind": stream_records.KIND_FINISHED,
            "execution": execution,
            "receipt": sign_receipt(receipt, execution, beside),
            **beside,
        }
    )


def receipt_document(
    delivery: job.Delivery,
    outcome: TaskResult,
    ran: job.RunMeasures,
    output: TaskOutput,
    args_sha256: str | None,
    code: str | None = None,
) -> Document:
    """Return the receipt of one execution; it validates as ``schema.Receipt``.

    ``code`` is the digest of the code that ran, where this process ran it.
    """
    evidence = dict(output.evidence)
    log, result, digest = output.lines, None, None
    if outcome.state == "succeeded":
        result, digest, remark = _result(outcome.value)
        if remark:
            evidence.update(remark)
            log = [*log, _remark_line(remark)]
    return {
        "receipt": 1,
        **job.fields_of(delivery, *job.OF_ENTRY, "task_id", *_OF_MESSAGE, "replaced"),
        **job.fields_of(ran, "pid", "started_at", "wait", "runtime", "cpu", "max_rss"),
        "state": outcome.state,
        "source": "worker",
        "result": result,
        "error": None if outcome.error is None else dict(outcome.error),
        "host": host(),
        "finished_at": ran.finished_at or wire.timestamp(datetime.now(timezone.utc)),
        "executions": 1,
        "retried": [dict(one) for one in delivery.retried],
        "children": None,
        "code": code,
        "args_sha256": args_sha256,
        "result_sha256": digest,
        "log": list(log),
        "log_dropped": output.dropped,
        "evidence": evidence,
    }


def encode(document: Document) -> bytes:
    """Encode as compact UTF-8 JSON; lone surrogates, which UTF-8 lacks, become escapes."""
    try:
        return _COMPACT.encode(document).encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()


def encode_signed(record: Document) -> bytes:
    """Encode a record that has no receipt, with its signature where this worker has a key."""
    return encode(with_signature(record))


@lru_cache(maxsize=1)
def host() -> str:
    return socket.gethostname()


def _result(value: object) -> tuple[JsonValue, str | None, Document | None]:
    """Return the result as JSON, its digest, and a remark where the receipt omits it."""
    data = wire.canonical(value)
    if data is None:
        try:
            value = as_kombu_has_it(value)
        except ValueError as error:
            return None, None, {"result_not_json": str(error)}
        data = wire.canonical(value) or b""
        digest: str | None = wire.sha256(data)
    else:
        digest = wire.sha256(data) if _OTHER_KEY.search(data) is None else _digest_as_read(data)
    if len(data) > job.result_limit():
        return None, digest, {"result_omitted": len(data)}
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or _LONG_NUMBER.search(data):
        try:
            return json_value(value), digest, None
        except ValueError as error:
            return None, None, {"result_not_json": str(error)}
    checked: JsonValue = value  # type: ignore[assignment]  # canonical() has just encoded it
    return checked, digest, None


def _digest_as_read(data: bytes) -> str | None:
    """Return the digest that the reader of this JSON computes."""
    try:
        return wire.json_sha256(json.loads(data))
    except (ValueError, RecursionError):  # deeper, or with longer numbers, than anyone can read
        return wire.sha256(data)


def as_kombu_has_it(value: object) -> JsonValue:
    """Return what JSON cannot hold the way kombu encodes it, as the result store has it.

    Raises ValueError, with the value's type, where kombu cannot either.
    """
    try:
        text: str = kombu_json.dumps(value, allow_nan=False)
        return json_value(json.loads(text))
    except Exception as error:  # types may bring a method of their own for it
        raise ValueError(f"{type(value).__name__}: {error}") from error


def _remark_line(remark: Document) -> str:
    size = remark.get("result_omitted")
    if size is None:
        return f"this receipt has no result: the task's is not JSON ({remark['result_not_json']})"
    return (
        f"this receipt has no result: the task's has {size} bytes of JSON, more than "
        f"{job.RESULT_LIMIT_VARIABLE} allows ({job.result_limit()}); the result store has it"
    )


# Attributes of the task's request, so that they live as long as it does.
EXECUTION: Final = "manifest_running_execution"
FINISHED: Final = "manifest_finished"

_taken_requests: Final = ProcessState(WeakValueDictionary[str, Any], is_of_worker=True)
"""Requests that this worker has received and not released yet, by execution."""


@dataclass(slots=True, eq=False)
class PendingReceipt:
    """The receipt of the task that ``request`` belongs to, sent or not sent yet."""

    delivery: job.Delivery
    outcome: TaskResult
    receipt: Document
    request: object
    children: Children | None = None
    """The tasks that it starts, where the run wants to know of them and can be told."""
    sent: bool = False
    _record: bytes | None = None

    def record(self) -> bytes:
        """Return the record for the stream; it is built once."""
        if self._record is None:
            execution = execution_of(self.request)
            start = None if execution is None else execution.unsent_start
            rest = origin(self.delivery)
            if self.children is not None:
                rest |= self.children.at_end()
            self._record = finished_record(self.delivery.execution, self.receipt, start, rest)
        return self._record

    def forget_record(self) -> None:
        """Have the record built anew, as the receipt has changed."""
        self._record = None

    def belongs_to(self, key: bytes) -> bool:
        """Return whether this key of a result store is this task's."""
        return key.endswith(self.delivery.task_id.encode())

    def mark_sent(self) -> None:
        """Mark the execution as having its receipt; it gets no second one."""
        if not self.sent:
            self.sent = True
            setattr(self.request, FINISHED, self)
            self.request = None  # else both would keep each other alive


def prepare_receipt(
    request: object,
    outcome: Callable[[], TaskResult],
    outside: Callable[[], TaskResult] | None = None,
) -> PendingReceipt | None:
    """Prepare the receipt of the task that ``request`` belongs to.

    ``outside``: the outcome as a process that does not run the task sees it, where it differs.
    None where the message has none of our headers, or the execution has its receipt already.
    """
    if not job.is_of_manifest(request) or FINISHED in request.__dict__:
        return None
    try:
        return _prepare(request, outcome, outside)
    except Exception as error:
        # The task's outcome must not change for it; the stock result still holds that.
        log_failure(f"the receipt of {request.__dict__.get('id')} could not be made", error)
        return None


def _prepare(
    request: object, outcome: Callable[[], TaskResult], outside: Callable[[], TaskResult] | None
) -> PendingReceipt:
    execution = execution_of(request)
    delivery = job.delivery_of(request) if execution is None else execution.delivery
    assert delivery is not None
    end = outcome() if execution is not None or outside is None else outside()
    if execution is not None:
        digests = execution.args_sha256, execution.code
        told, output = end, execution.output()
        if end.error is not None or output.lines:
            told, lines = without_arguments(end, output.lines, request)
            output = replace(output, lines=lines)
        receipt = receipt_document(delivery, told, execution.ran(), output, *digests)
    else:
        receipt = _receipt_from_outside(delivery, end, request)
    children = None if execution is None else execution.children
    if children is not None:
        receipt["children"] = children.count
    return PendingReceipt(delivery, end, receipt, request, children)


def execution_of(request: object) -> job.Execution | None:
    """Return the execution in this process that a request belongs to."""
    execution = getattr(request, "__dict__", {}).get(EXECUTION)
    return execution if isinstance(execution, job.Execution) else None


def sent_receipt(request: object, task_id: str) -> PendingReceipt | None:
    """Return the receipt already sent for the task that ``request`` belongs to."""
    earlier = getattr(request, "__dict__", {}).get(FINISHED)
    return (
        earlier
        if isinstance(earlier, PendingReceipt) and earlier.delivery.task_id == task_id
        else None
    )


def remember_request(execution: str, request: object) -> None:
    """Remember a request that this worker received, for as long as Celery keeps it."""
    _taken_requests.now[execution] = request


def taken_requests() -> list[tuple[str, Any]]:
    """Return (execution, request) of what this worker has received and not released yet."""
    return list(_taken_requests.now.items())


def _receipt_from_outside(delivery: job.Delivery, outcome: TaskResult, request: object) -> Document:
    """Return the receipt of a task that another process ran, or that none ran."""
    ran = _measures_from_outside(delivery)
    if outcome.state == "crashed":  # its process died at an unknown time before this
        ran = replace(ran, runtime=None)
    output = take_output(delivery.task_id, delivery.execution)
    outcome, lines = without_arguments(outcome, output.lines, request)
    output = replace(output, lines=lines)
    fields = request.__dict__
    digest = None
    if "args" in fields:  # not where the message was turned away unread
        digest = arguments_sha256(fields["args"], fields.get("kwargs"))
    return receipt_document(delivery, outcome, ran, output, digest)


def _measures_from_outside(delivery: job.Delivery) -> job.RunMeasures:
    request = _taken_requests.now.get(delivery.execution)
    if request is None or not request.time_start:
        return job.RunMeasures()
    now = datetime.now(timezone.utc)
    started = datetime.fromtimestamp(request.time_start, timezone.utc)
    return job.RunMeasures(
        pid=request.worker_pid,
        started_at=timestamp(started),
        finished_at=timestamp(now),
        wait=job.seconds_since(delivery.sent_at, started),
        runtime=max(0.0, round((now - started).total_seconds(), 6)),
    )
