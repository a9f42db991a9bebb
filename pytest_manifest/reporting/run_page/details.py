"""Collect the details of an entry for a page that opens it, with long texts cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, origin_text
from pytest_manifest.reporting.run_page.columns import cost_figure, rounded
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.text import pictured

Since = Callable[[datetime | None], float | None]
"""Seconds since the page's origin."""

_FAILURES_FIRST: Final = 4
"""Factor by which the texts of an entry that has not passed may be longer."""
_MISMATCHES: Final = 100


class Shortening:
    """Cut texts to ``limit`` characters, all visible; ``left_out`` counts those cut, by name."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left_out: dict[str, int] = {}

    def head(self, name: str, text: str) -> str:
        """Return the beginning of a text."""
        return self._cut(name, text, pictured(text[: self.limit]))

    def tail(self, name: str, text: str) -> str:
        """Return the end of a text, which matters most in tracebacks and logs."""
        return self._cut(name, text, pictured(text[-self.limit :]))

    def json(self, name: str, value: JsonValue) -> str:
        """Return the beginning of a value as JSON."""
        return self.head(name, json.dumps(value, ensure_ascii=False, indent=2))

    def _cut(self, name: str, text: str, shown: str) -> str:
        if len(text) > self.limit:
            self.left_out[name] = self.left_out.get(name, 0) + len(text) - self.limit
        return shown


def details(record: EntryRecord, since: Since, limit: int) -> dict[str, object]:
    """Return everything about an entry as JSON values, each text of at most ``limit`` characters.

    An entry that has not passed may have four times as many.
    """
    text = Shortening(limit if record.outcome == "passed" else limit * _FAILURES_FIRST)
    entry, receipt, verdict = record.entry, record.receipt, record.verdict
    shown: dict[str, object] = {
        "sentence": "" if verdict is None else text.head("verdict", verdict.sentence),
        "args": text.json("args", list(entry.args)) if entry.args else None,
        "kwargs": text.json("kwargs", dict(entry.kwargs)) if entry.kwargs else None,
        "meta": text.json("meta", dict(entry.meta)) if entry.meta else None,
        "expected": _expected(record, text),
        "actual": _actual(record, text),
        "attempts": [_attempt(attempt, since) for attempt in record.attempts],
        "facts": [[name, text.head(name, value)] for name, value in _metadata(record)],
    }
    if verdict is not None and verdict.mismatches:
        some = verdict.mismatches[:_MISMATCHES]
        shown["mismatches"] = [
            [text.head("mismatches", part) for part in (m.path, m.expected, m.actual)] for m in some
        ]
        if len(verdict.mismatches) > len(some):
            shown["more_mismatches"] = len(verdict.mismatches) - len(some)
    if receipt is not None:
        shown |= _receipt(receipt, record, text)
    if text.left_out:
        shown["left_out"] = text.left_out
    return {name: value for name, value in shown.items() if value is not None}


def _receipt(receipt: Receipt, record: EntryRecord, text: Shortening) -> dict[str, object]:
    shown: dict[str, object] = {}
    if receipt.log:
        shown["log"] = text.tail("log", "\n".join(receipt.log))
        shown["dropped"] = receipt.log_dropped or None
    if receipt.evidence:
        shown["evidence"] = text.json("evidence", dict(receipt.evidence))
    error = receipt.error
    if error is not None:
        shown["error"] = {
            "type": text.head("error", error.type),
            "message": text.head("error", error.message),
            "place": None if record.error_place is None else pictured(record.error_place),
            "traceback": text.tail("traceback", error.traceback) if error.traceback else None,
        }
    if receipt.state == "succeeded":
        shown["result"] = text.json("result", receipt.result)
    return shown


def _expected(record: EntryRecord, text: Shortening) -> str | None:
    """Return the expectations that the manifest's line sets, as JSON."""
    expect = record.entry.expect
    written = expect.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return text.json("expected", written) if written else None


def _actual(record: EntryRecord, text: Shortening) -> str | None:
    """Return the receipt's values for these expectations, in the same order, as JSON."""
    receipt, written = record.receipt, record.entry.expect.model_fields_set
    if receipt is None or not written:
        return None
    error = receipt.error
    answers: dict[str, JsonValue] = {"state": receipt.state}
    if {"result", "result_schema"} & written:
        answers["result"] = receipt.result
    if "error" in written or error is not None:
        answers["error"] = None if error is None else {"type": error.type, "message": error.message}
    if "max_runtime" in written:
        answers["runtime"] = rounded(receipt.runtime)
    if "max_wait" in written:
        answers["wait"] = rounded(receipt.wait)
    if "executions" in written:
        answers["executions"] = receipt.executions
    return text.json("actual", answers)


def _attempt(attempt: AttemptRecord, since: Since) -> dict[str, object]:
    shown: dict[str, object] = {
        "number": attempt.number,
        "task_id": attempt.task_id,
        "kind": attempt.kind,
        "outcome": outcome_of(attempt.kind),
        "sentence": None if attempt.sentence is None else pictured(attempt.sentence)[:400],
        "reason": None if attempt.reason is None else pictured(attempt.reason),
        "sent": since(attempt.sent_at),
        "received": since(attempt.received_at),
        "started": since(attempt.started_at),
        "finished": since(attempt.finished_at),
        "wait": rounded(attempt.wait),
        "runtime": rounded(attempt.runtime),
        "place": None if attempt.place is None else pictured(attempt.place),
        "host": None if attempt.host is None else pictured(attempt.host),
        "executions": attempt.executions if attempt.executions > 1 else None,
        "redelivered": attempt.redelivered or None,
        "retries": attempt.retries or None,
        "cost": cost_figure(attempt.cost),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _metadata(record: EntryRecord) -> list[tuple[str, str]]:
    """Return labels and texts of short facts."""
    entry, receipt = record.entry, record.receipt
    rows = [("line", str(record.line)), ("timeout", f"{entry.timeout:g} s")]
    if entry.after:
        rows.append(("after", ", ".join(entry.after)))
    rows += [(f"key {name}", value) for name, value in entry.key.items()]
    if entry.retries:
        rows.append(("retries allowed", str(entry.retries)))
    if entry.cost is not None:
        rows.append(("estimated cost", f"{entry.cost:g}"))
    rows.append(("idempotent", "yes" if entry.idempotent else "no"))
    queue = entry.queue if receipt is None else receipt.queue or entry.queue
    if queue:
        rows.append(("queue", queue))
    if record.reused_from is not None:
        rows.append(("reused from", origin_text(record.reused_from)))
    if receipt is not None:
        rows += _receipt_metadata(receipt)
    return rows


def _receipt_metadata(receipt: Receipt) -> list[tuple[str, str]]:
    rows = [("state", receipt.state.replace("_", " ")), ("reported by", receipt.source)]
    if receipt.cpu is not None:
        rows.append(("CPU", f"{receipt.cpu:.3g} s"))
    if receipt.max_rss is not None:
        rows.append(("memory, at most", f"{receipt.max_rss / 2**20:,.0f} MiB"))
    if receipt.replaced:
        rows.append(("replaced", "by another task"))
    if receipt.code:
        rows.append(("code", receipt.code))
    return rows
