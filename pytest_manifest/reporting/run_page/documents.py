"""Turn a run's statistics into a page's JSON, with every text made visible."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pytest_manifest.analysis.comparison import Change, Comparison, ResultChange, TimeChange
from pytest_manifest.analysis.statistics import Cause, Distribution, Statistics, TaskRow, WorkerRow
from pytest_manifest.ledger import RunInfo
from pytest_manifest.reporting.run_again import RunAgain
from pytest_manifest.reporting.run_page.columns import cost_figure, rounded
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.text import beginning, pictured

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
