"""Make receipts, as a worker would, for tests of verifiers."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

from pydantic import JsonValue

from pytest_manifest.broker.attempt import attempt_of, new_run_id
from pytest_manifest.schema import Entry, ErrorInfo, Receipt, State
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.schema.wire import arguments_sha256, json_sha256

WAIT: Final = 0.05  # s
RUNTIME: Final = 0.1  # s


def make_receipt(
    entry: Entry,
    *,
    state: State | None = None,
    result: JsonValue = None,
    error: BaseException | ErrorInfo | None = None,
    **fields: Any,
) -> Receipt:
    """Return the receipt of a first attempt of ``entry`` that has just ended; digests, times fit.

    ``state`` is ``succeeded``, or ``failed`` where there is an ``error``, unless it is given.
    ``fields`` are further fields of the receipt, and replace what is made here: ``runtime`` (s),
    ``log``, ``evidence``, ``attempt``, ... Raises pydantic's ValidationError for what a receipt
    cannot hold.
    """
    state = state or ("succeeded" if error is None else "failed")
    run = fields.pop("run", None) or new_run_id()
    attempt = attempt_of(run, entry, fields.pop("attempt", 1))
    made: dict[str, Any] = {
        "run": run,
        "entry": entry.id,
        "attempt": attempt.number,
        "task_id": attempt.task_id,
        "task": entry.task,
        "state": state,
        "result": result,
        "error": _error_info(error),
        "worker": "memory@localhost",
        "host": "localhost",
        "queue": entry.queue or "celery",
        "args_sha256": arguments_sha256(entry.args, entry.kwargs),
        "result_sha256": json_sha256(result) if state == "succeeded" else None,
        **_times(state, fields),
    }
    return Receipt(**(made | fields))


def _times(state: State, fields: dict[str, Any]) -> dict[str, Any]:
    """Make the times of a receipt; a job that never began has only those of sending and ending."""
    ended = fields.get("finished_at") or datetime.now(timezone.utc)
    if state in NEVER_STARTED_STATES:
        sent = ended - timedelta(seconds=WAIT)
        return {"sent_at": sent, "received_at": ended, "finished_at": ended, "executions": 1}
    runtime, wait = fields.get("runtime", RUNTIME), fields.get("wait", WAIT)
    begun = ended - timedelta(seconds=runtime or 0.0)
    sent = begun - timedelta(seconds=wait or 0.0)
    return {
        "sent_at": sent,
        "received_at": sent,
        "started_at": begun,
        "finished_at": ended,
        "wait": wait,
        "runtime": runtime,
        "executions": 1,
        "pid": 1,
    }


def _error_info(error: BaseException | ErrorInfo | None) -> ErrorInfo | None:
    if error is None or isinstance(error, ErrorInfo):
        return error
    return ErrorInfo(type=type(error).__name__, message=str(error))
