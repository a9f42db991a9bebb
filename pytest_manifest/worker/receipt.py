"""The documents that a worker sends: started records, receipts, finished records."""

from __future__ import annotations

import json
import os
import re
import socket
from datetime import UTC, datetime
from functools import lru_cache

from pydantic import JsonValue

from pytest_manifest.schema import MAX_DEPTH, wire
from pytest_manifest.schema.fields import json_value
from pytest_manifest.schema.identity import boot_id, pid_namespace
from pytest_manifest.worker.delivery import Delivery
from pytest_manifest.worker.execution import RESULT_LIMIT_VARIABLE, Execution, Ran, result_limit
from pytest_manifest.worker.outcome import Ending
from pytest_manifest.worker.spool import Spooled

Document = dict[str, JsonValue]
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
# A key that may have been a number, true, false or null: sorted in another order than its text is.
_OTHER_KEY = re.compile(rb'"(?:[-0-9][-+.0-9e]*|true|false|null)":')
_LONG_NUMBER = re.compile(rb"\d{4000}")


def started_record(execution: Execution) -> bytes:
    """The record of an execution that begins."""
    facts = execution.delivery
    return encode(
        {
            "kind": wire.KIND_STARTED,
            "run": facts.run,
            "entry": facts.entry,
            "attempt": facts.attempt,
            "task_id": facts.task_id,
            "task": facts.task,
            "worker": facts.worker,
            "host": host(),
            "pid": os.getpid(),
            "boot": boot_id(),
            "pid_namespace": pid_namespace(),
            "queue": facts.queue,
            "sent_at": facts.sent_at,
            "received_at": facts.received_at,
            "started_at": wire.timestamp(execution.started),
            "redelivered": facts.redelivered,
            "retries": facts.retries,
            "hop": facts.hop,
            "execution": facts.execution,
        }
    )


def handed_on_record(facts: Delivery, how: str, next_at: str | None = None) -> bytes:
    """The record of an execution after which its job goes on; ``how`` as ``wire`` has it."""
    return encode(
        {
            "kind": wire.KIND_HANDED_ON,
            "run": facts.run,
            "entry": facts.entry,
            "attempt": facts.attempt,
            "task_id": facts.task_id,
            "execution": facts.execution,
            "how": how,
            "ended_at": wire.timestamp(datetime.now(UTC)),
            "next_at": next_at,
        }
    )


def finished_record(execution: str, receipt: Document, start: bytes | None = None) -> bytes:
    """The record of an execution that ended; ``start``: that of its start, if it was not told."""
    record: Document = {"kind": wire.KIND_FINISHED, "execution": execution, "receipt": receipt}
    if start is not None:
        record["start"] = json.loads(start)
    return encode(record)


def receipt_document(
    facts: Delivery,
    ending: Ending,
    ran: Ran,
    said: Spooled,
    args_sha256: str | None,
    code: str | None = None,
) -> Document:
    """The receipt of one execution; it validates as ``schema.Receipt``.

    ``code`` is the digest of the code that ran, where this process ran it.
    """
    evidence = dict(said.evidence)
    log, result, digest = said.lines, None, None
    if ending.state == "succeeded":
        result, digest, remark = _result(ending.value)
        if remark:
            evidence.update(remark)
            log = [*log, _words(remark)]
    return {
        "receipt": 1,
        "run": facts.run,
        "entry": facts.entry,
        "attempt": facts.attempt,
        "task_id": facts.task_id,
        "task": facts.task,
        "state": ending.state,
        "source": "worker",
        "result": result,
        "error": None if ending.error is None else dict(ending.error),
        "worker": facts.worker,
        "host": host(),
        "pid": ran.pid,
        "queue": facts.queue,
        "sent_at": facts.sent_at,
        "received_at": facts.received_at,
        "started_at": ran.started_at,
        "finished_at": ran.finished_at or wire.timestamp(datetime.now(UTC)),
        "wait": ran.wait,
        "runtime": ran.runtime,
        "executions": 1,
        "redelivered": facts.redelivered,
        "retries": facts.retries,
        "retried": [dict(one) for one in facts.retried],
        "replaced": facts.replaced,
        "code": code,
        "args_sha256": args_sha256,
        "result_sha256": digest,
        "log": list(log),
        "log_dropped": said.dropped,
        "cpu": ran.cpu,
        "max_rss": ran.max_rss,
        "evidence": evidence,
    }


def encode(document: Document) -> bytes:
    """Compact UTF-8 JSON; half surrogates, which UTF-8 does not have, become escapes."""
    try:
        return _COMPACT.encode(document).encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()


@lru_cache(maxsize=1)
def host() -> str:
    return socket.gethostname()


def _result(value: object) -> tuple[JsonValue, str | None, Document | None]:
    """The result as JSON, its digest, and a remark where the receipt does not carry it."""
    data = wire.canonical(value)
    if data is None:
        return _in_other_words(value)
    digest = wire.sha256(data) if _OTHER_KEY.search(data) is None else _digest_as_read(data)
    if len(data) > result_limit():
        return None, digest, {"result_omitted": len(data)}
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or _LONG_NUMBER.search(data):
        try:
            return json_value(value), digest, None
        except ValueError as error:
            return None, digest, {"result_not_json": str(error)}
    plain: JsonValue = value  # type: ignore[assignment]  # canonical() has just encoded it
    return plain, digest, None


def _digest_as_read(data: bytes) -> str | None:
    """The digest that whoever reads this JSON comes to."""
    try:
        return wire.json_sha256(json.loads(data))
    except (ValueError, RecursionError):  # deeper, or with longer numbers, than anyone can read
        return wire.sha256(data)


def _in_other_words(value: object) -> tuple[JsonValue, str | None, Document | None]:
    """What JSON proper cannot hold, as kombu writes it: that is what the result store has, too."""
    from kombu.utils import json as kombu_json

    try:
        text: str = kombu_json.dumps(value, allow_nan=False)
        result = json_value(json.loads(text))
    except Exception as error:  # types may bring a method of their own for it
        return None, None, {"result_not_json": f"{type(value).__name__}: {error}"}
    digest = wire.json_sha256(result)
    if len(text) > result_limit():
        return None, digest, {"result_omitted": len(text)}
    return result, digest, None


def _words(remark: Document) -> str:
    size = remark.get("result_omitted")
    if size is None:
        return f"this receipt has no result: the task's is not JSON ({remark['result_not_json']})"
    return (
        f"this receipt has no result: the task's has {size} bytes of JSON, more than "
        f"{RESULT_LIMIT_VARIABLE} allows ({result_limit()}); the result store has it"
    )
