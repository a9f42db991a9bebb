"""Turn a run's statistics into a page's JSON, with every text made visible.

Collect what jobs told of over time in their evidence, for a page's plots.

Collect the details of an entry for a page that opens it, with long texts cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, Field, JsonValue, ValidationError

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, origin_text
from pytest_manifest.reporting.run_page.columns import COST_DIGITS, rounded
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.schema.summary import RunSummary, SummaryComparison
from pytest_manifest.text import middle, pictured

KEY: Final = "over_time"
"""The evidence's field: by name ``{"kind": "level" or "count", "points": [[seconds since 1970,
number], ...]}``. What is of another form is passed over: it may be evidence of a user's own."""
MOST_NAME: Final = 80
MOST_SERIES: Final = 8
MOST_BINS: Final = 400
LEAST_STEP: Final = 0.25
"""Seconds of the shortest stretch that has a value of its own."""
SPARE: Final = timedelta(minutes=5)
"""How far the clocks of workers may be off."""

Kind: TypeAlias = Literal["level", "count"]
"""A level has a mean in a stretch of time, counts have a sum."""


_Plotted = Annotated[float, Field(strict=True, gt=-1e15, lt=1e15)]


class _ToldSeries(BaseModel):
    """A series as a job has it in its evidence: points of a moment and a number."""

    kind: Kind
    points: list[tuple[_Plotted, _Plotted]]


class _Series:
    """Add points up in stretches of time, which become longer where there would be too many."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._step = LEAST_STEP
        self._bins: dict[int, tuple[float, int]] = {}

    def add(self, moment: float, value: float) -> None:
        self._put(int(moment // self._step), value, 1)
        while len(self._bins) > MOST_BINS:
            self._step *= 2
            before, self._bins = self._bins, {}
            for place, (total, count) in before.items():
                self._put(place // 2, total, count)

    def _put(self, place: int, total: float, count: int) -> None:
        known, number = self._bins.get(place, (0.0, 0))
        self._bins[place] = known + total, number + count

    def document(self, name: str) -> dict[str, object]:
        bins = sorted(self._bins.items())
        values = [total if self.kind == "count" else total / count for _, (total, count) in bins]
        return {
            "name": pictured(name),
            "kind": self.kind,
            "step": self._step,
            "at": [round(place * self._step, 2) for place, _ in bins],
            "values": [round(value, 3) for value in values],
        }


class OverTime:
    """Collect the points of all receipts; moments are seconds from ``began``, the page's origin.

    What is told of another time than the run's, until ``ended``, is no part of it.
    """

    def __init__(self, began: datetime, ended: datetime) -> None:
        self._origin = began.timestamp()
        self._last = (ended - began + SPARE).total_seconds()
        self._series: dict[tuple[str, Kind], _Series] = {}

    def add(self, receipt: Receipt | None) -> None:
        """Add what a receipt's evidence tells."""
        told = None if receipt is None else receipt.evidence.get(KEY)
        for name, one in told.items() if isinstance(told, dict) else ():
            with suppress(ValidationError):
                series = _ToldSeries.model_validate(one)
                which = middle(name, MOST_NAME), series.kind
                for at, value in series.points:
                    moment = at - self._origin
                    if -SPARE.total_seconds() <= moment <= self._last and (
                        which in self._series or len(self._series) < MOST_SERIES
                    ):
                        self._series.setdefault(which, _Series(which[1])).add(moment, value)

    def document(self) -> list[dict[str, object]]:
        """Return the series as JSON values, levels first."""
        found = sorted(self._series.items(), key=lambda pair: (pair[0][1] != "level", pair[0][0]))
        return [series.document(name) for (name, _), series in found]


MOST_CAUSES: Final = 50
MOST_CHANGES: Final = 200


def shown(value: object) -> object:
    """Return a JSON value as a page has it: texts visible, numbers rounded."""
    if isinstance(value, dict):
        return {name: shown(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    if isinstance(value, str):
        return pictured(value)
    return rounded(value) if isinstance(value, float) else value


def statistics_document(summary: RunSummary) -> dict[str, object]:
    """Return the run's figures, without what the page has elsewhere."""
    found = summary.statistics
    figures = found.model_dump(exclude={"began", "ended", "descendants"})
    figures["causes"] = figures["causes"][:MOST_CAUSES]
    return {name: shown(value) for name, value in figures.items()} | {
        "more_causes": max(0, len(found.causes) - MOST_CAUSES),
        "cost": rounded(summary.cost.total, COST_DIGITS),
    }


def changes_document(found: SummaryComparison) -> dict[str, object]:
    """Return the changes since the other run; long lists are cut, with their full number."""
    return {
        name: {"count": len(value), "items": shown(value[:MOST_CHANGES])}
        if isinstance(value, list)
        else shown(value)
        for name, value in found.model_dump().items()
    }


Since = Callable[[datetime | None], float | None]
"""Seconds since the page's origin."""

_FAILURES_FIRST: Final = 4
"""Factor by which the texts of an entry that has not passed may be longer."""
_MISMATCHES: Final = 100
_SENTENCE: Final = 400


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
    times = {"max_runtime": rounded(receipt.runtime), "max_wait": rounded(receipt.wait)}
    numbers = times | {"executions": receipt.executions}
    answers |= {name.removeprefix("max_"): numbers[name] for name in numbers if name in written}
    return text.json("actual", answers)


def _attempt(attempt: AttemptRecord, since: Since) -> dict[str, object]:
    plain = ("number", "task_id", "kind", "reason", "wait", "runtime", "place", "host")
    moments = ("sent", "received", "started", "finished")
    found = {
        **{name: shown(getattr(attempt, name)) for name in plain},
        "outcome": outcome_of(attempt.kind),
        "sentence": attempt.sentence and pictured(attempt.sentence)[:_SENTENCE],
        **{name: since(getattr(attempt, f"{name}_at")) for name in moments},
        "executions": attempt.executions if attempt.executions > 1 else None,
        "redelivered": attempt.redelivered or None,
        "retries": attempt.retries or None,
        "cost": rounded(attempt.cost, COST_DIGITS),
    }
    return {name: value for name, value in found.items() if value is not None}


def _metadata(record: EntryRecord) -> list[tuple[str, str]]:
    """Return labels and texts of short facts."""
    entry, receipt = record.entry, record.receipt
    rows = [
        ("line", str(record.line)),
        ("timeout", f"{entry.timeout:g} s"),
        ("after", ", ".join(entry.after)),
        *((f"key {name}", value) for name, value in entry.key.items()),
        ("retries allowed", str(entry.retries or "")),
        ("estimated cost", "" if entry.cost is None else f"{entry.cost:g}"),
        ("idempotent", "yes" if entry.idempotent else "no"),
        ("queue", (receipt and receipt.queue) or entry.queue or ""),
        ("reused from", "" if record.reused_from is None else origin_text(record.reused_from)),
    ]
    if receipt is not None:
        memory = receipt.max_rss
        rows += [
            ("state", receipt.state.replace("_", " ")),
            ("reported by", receipt.source),
            ("CPU", "" if receipt.cpu is None else f"{receipt.cpu:.3g} s"),
            ("memory, at most", "" if memory is None else f"{memory / 2**20:,.0f} MiB"),
            ("replaced", "by another task" if receipt.replaced else ""),
            ("code", receipt.code or ""),
        ]
    return [row for row in rows if row[1]]
