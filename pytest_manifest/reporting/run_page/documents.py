"""Turn a run's statistics into a page's JSON, with every text made visible.

Collect what jobs told of over time in their evidence, for a page's plots.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from pydantic import JsonValue

from pytest_manifest.analysis.comparison import Change, Comparison, ResultChange, TimeChange
from pytest_manifest.analysis.statistics import Cause, Distribution, Statistics, TaskRow, WorkerRow
from pytest_manifest.ledger import RunInfo
from pytest_manifest.reporting.next_step import RunAgain
from pytest_manifest.reporting.run_page.columns import cost_figure, rounded
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.text import beginning, middle, pictured

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
            kind = _kind_of(one)
            if kind is None or not isinstance(one, dict):
                continue
            for moment, value in _points(one.get("points")):
                if -SPARE.total_seconds() <= moment - self._origin <= self._last:
                    self._add((middle(name, MOST_NAME), kind), moment - self._origin, value)

    def _add(self, which: tuple[str, Kind], moment: float, value: float) -> None:
        if which in self._series or len(self._series) < MOST_SERIES:
            self._series.setdefault(which, _Series(which[1])).add(moment, value)

    def document(self) -> list[dict[str, object]]:
        """Return the series as JSON values, levels first."""
        found = sorted(self._series.items(), key=lambda pair: (pair[0][1] != "level", pair[0][0]))
        return [series.document(name) for (name, _), series in found]


def _kind_of(value: JsonValue) -> Kind | None:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "level":
        return "level"
    return "count" if kind == "count" else None


def _points(value: JsonValue) -> Iterator[tuple[float, float]]:
    for point in value if isinstance(value, list) else ():
        if isinstance(point, list) and len(point) == 2:
            moment, number = map(_number, point)
            if moment is not None and number is not None:
                yield moment, number


def _number(value: JsonValue) -> float | None:
    """Return a number that a plot can have; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None


SHOWN_CAUSES = 50
SHOWN_CHANGES = 200
_MESSAGE = 400


def run_document(
    info: RunInfo,
    status: str,
    warnings: Sequence[str],
    written: datetime,
    again: RunAgain | None = None,
    logs: Sequence[tuple[str, str]] = (),
) -> dict[str, object]:
    """Return the run's metadata, and when the page was written.

    ``warnings``: warnings that were recorded during the run; ``again``: how an entry is run again;
    ``logs``: worker and address of each log.
    """
    return {
        "id": info.run,
        "manifest": pictured(info.manifest.name),
        "workflow": None if info.workflow is None else pictured(info.workflow),
        "mode": None if info.mode is None else pictured(info.mode),
        "created": info.created_at.isoformat(),
        "broker": pictured(info.broker),
        "backend": pictured(info.backend),
        "stack": "private" if info.is_private else "existing",
        "sha256": info.sha256,
        "status": status,
        "written": written.isoformat(timespec="seconds"),
        "remarks": [pictured(warning) for warning in warnings],
        "again": None if again is None else [again.manifest, again.arguments],
        "logs": [[worker, address] for worker, address in logs],
    }


def statistics_document(found: Statistics) -> dict[str, object]:
    """Return the statistics; of the slowest entries the ids alone, as the table has the rest."""
    return {
        "entries": found.entries,
        "reused": sum(found.reused.values()),
        "outcomes": {name: count for name, count in found.outcomes.items() if count},
        "verdicts": [
            [kind, outcome_of(kind), count]
            for kind, count in sorted(found.verdicts.items(), key=lambda pair: -pair[1])
            if count
        ],
        "tasks": [_task(row) for row in found.tasks],
        "slowest": [pictured(record.id) for record in found.slowest],
        "causes": [_cause(cause) for cause in found.causes[:SHOWN_CAUSES]],
        "more_causes": max(0, len(found.causes) - SHOWN_CAUSES),
        "retries": found.retries,
        "redeliveries": found.redeliveries,
        "attempts": found.attempts,
        "workers": [_worker(row) for row in found.workers],
        "cost": cost_figure(found.cost),
        "duration": rounded(found.duration),
        "parts": found.parts,
        "pauses": rounded(found.pauses),
        "throughput": rounded(found.throughput),
        "wait": _spread(found.wait),
        "runtime": _spread(found.runtime),
        "advice": [pictured(sentence) for sentence in found.advice],
    }


def _task(row: TaskRow) -> dict[str, object]:
    return {
        "task": pictured(row.task),
        "count": row.count,
        "passed": row.passed,
        "failed": row.failed,
        "errors": row.errors,
        "skipped": row.skipped,
        "pending": row.pending,
        "wait": _spread(row.wait),
        "runtime": _spread(row.runtime),
        "throughput": rounded(row.throughput),
    }


def _spread(spread: Distribution | None) -> dict[str, float | None] | None:
    if spread is None:
        return None
    return {
        "p50": rounded(spread.p50),
        "p95": rounded(spread.p95),
        "max": rounded(spread.max),
    }


def _cause(cause: Cause) -> dict[str, object]:
    return {
        "outcome": outcome_of(cause.kind),
        "kind": cause.kind,
        "title": first_line(cause.title.removeprefix(f"{cause.kind}: "), 160),
        "count": cause.count,
        "examples": [pictured(entry) for entry in cause.examples],
        "message": pictured(cause.message)[:_MESSAGE],
        "step": pictured(cause.step)[:_MESSAGE],
    }


def _worker(row: WorkerRow) -> dict[str, object]:
    return {
        "place": pictured(row.place),
        "name": pictured(row.worker),
        "host": None if row.host is None else pictured(row.host),
        "jobs": row.jobs,
        "busy": rounded(row.busy),
        "share": rounded(row.share),
    }


def changes_document(found: Comparison) -> dict[str, object]:
    """Return the changes since the other run; long lists are cut, with their full number."""
    changes = {
        "newly_failing": found.newly_failing,
        "fixed": found.fixed,
        "still_failing": found.still_failing,
    }
    shown: dict[str, object] = {
        name: _some([_change(change) for change in some[:SHOWN_CHANGES]], len(some))
        for name, some in changes.items()
    }
    results = [_result(change) for change in found.changed_results[:SHOWN_CHANGES]]
    return shown | {
        "before": found.before_run,
        "after": found.after_run,
        "entries": [found.entries_before, found.entries_after],
        "passed": [found.passed_before, found.passed_after],
        "added": _some(_ids(found.added), len(found.added)),
        "removed": _some(_ids(found.removed), len(found.removed)),
        "slower": [_time(change) for change in found.slower],
        "faster": [_time(change) for change in found.faster],
        "changed_results": _some(results, len(found.changed_results)),
        "cost": [cost_figure(found.cost_before), cost_figure(found.cost_after)],
        "threshold": found.threshold,
        "samples": found.samples,
    }


def _some(items: Sequence[object], count: int) -> dict[str, object]:
    return {"count": count, "items": items}


def _ids(entries: Sequence[str]) -> list[str]:
    return [pictured(entry) for entry in entries[:SHOWN_CHANGES]]


def _change(change: Change) -> dict[str, object]:
    return {
        "id": pictured(change.id),
        "task": pictured(change.task),
        "before": change.before,
        "after": change.after,
        "sentence": first_line(change.sentence, 240),
    }


def _result(change: ResultChange) -> dict[str, object]:
    return {"id": pictured(change.id), "task": pictured(change.task)}


def _time(change: TimeChange) -> dict[str, object]:
    return {
        "task": pictured(change.task),
        "before": rounded(change.before),
        "after": rounded(change.after),
        "ratio": rounded(change.ratio),
        "samples": [change.samples_before, change.samples_after],
        "same": change.same,
    }


def first_line(text: str, limit: int) -> str:
    """Return the first line of a text, visible, of at most ``limit`` characters."""
    return beginning(pictured(text.strip().partition("\n")[0]), limit, "\u2026")
