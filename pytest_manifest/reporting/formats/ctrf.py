"""Write a run as a report of CTRF, the Common Test Report Format (https://ctrf.io), 0.0.0.

Its readers comment on pull requests, and post to Slack and Teams. They hold a report in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.reporting.summary import records_of
from pytest_manifest.schema.statuses import BAD, Outcome, outcome_of
from pytest_manifest.schema.summary import RunSummary

VERSION: Final = "0.0.0"
MOST: Final = 10_000
"""Entries of a run beyond which only the failed ones are listed, beside the totals."""
_STATUSES: Final[Mapping[Outcome, str]] = {
    "passed": "passed",
    "failed": "failed",
    "error": "failed",
    "skipped": "skipped",
    "pending": "pending",
}


def write(run: ReportedRun, summary: RunSummary, path: Path, mode: int) -> None:
    """Write the report."""
    is_whole = summary.statistics.entries <= MOST
    head, rest = to_json(_document(summary, is_whole=is_whole)).rsplit(b'"tests":[]', 1)
    with records_of(run) as records, atomic_file(path, mode) as file:
        file.write(head + b'"tests":[')
        listed = (one for one in records if is_whole or one.outcome in BAD)
        for number, record in enumerate(listed):
            file.write(b",\n" if number else b"\n")
            file.write(to_json(dict(_test(record, summary.run.manifest))))
        file.write(b"]" + rest + b"\n")


def _document(summary: RunSummary, *, is_whole: bool) -> dict[str, JsonValue]:
    run, found = summary.run, summary.statistics
    began = found.began or run.created_at
    counts: dict[str, JsonValue] = dict.fromkeys((*_STATUSES.values(), "other"), 0)
    for outcome, number in found.outcomes.items():
        before = counts[_STATUSES[outcome]]
        counts[_STATUSES[outcome]] = number + (before if isinstance(before, int) else 0)
    figures: dict[str, JsonValue] = {
        "tests": found.entries,
        **counts,
        "start": _ms(began),
        "stop": _ms(max(found.ended or began, began)),
        "duration": round((found.duration or 0.0) * 1000),
        "suites": 1,
    }
    about: dict[str, JsonValue] = {
        "verdicts": {str(name): number for name, number in found.verdicts.items()},
        "causes": [{"title": one.title, "count": one.count} for one in found.causes],
        "cost": summary.cost.total,
    }
    if not is_whole:
        about["left_out"] = found.entries - sum(found.outcomes.get(one, 0) for one in BAD)
    return {
        "reportFormat": "CTRF",
        "specVersion": VERSION,
        "runId": run.run,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "generatedBy": "pytest-celery-manifest",
        "results": {
            "tool": {
                "name": "pytest-celery-manifest",
                "version": version("pytest-celery-manifest"),
            },
            "summary": {**figures, "extra": about},
            "environment": {
                "reportName": run.manifest,
                **({} if run.shard is None else {"shardId": run.shard}),
                "extra": {"status": run.status, "manifest_sha256": run.manifest_sha256},
            },
            "tests": [],
        },
    }


def _test(record: EntryRecord, manifest: str) -> Iterator[tuple[str, JsonValue]]:
    last, receipt = record.last, record.receipt
    yield "name", record.id
    yield "testId", record.id
    yield "status", _STATUSES[record.outcome]
    yield "rawStatus", record.kind or "pending"
    yield "suite", [manifest, record.task]
    yield "filePath", manifest
    yield "line", record.line
    if record.entry.tags:
        yield "tags", list(record.entry.tags)
    if last is None:
        yield "duration", 0
    else:
        yield "executionId", last.task_id
        yield from _times(last)
        if last.place:
            yield "threadId", last.place
    if record.outcome != "passed" and record.sentence:
        yield "message", record.sentence
    if record.outcome in BAD and receipt is not None:
        if receipt.error is not None and receipt.error.traceback:
            yield "trace", receipt.error.traceback
        if receipt.log:
            yield "stdout", list(receipt.log)
    earlier = record.attempts[:-1]
    yield "retries", len(earlier)
    if earlier:
        yield "flaky", record.outcome == "passed"
        yield "retryAttempts", [dict(_attempt(one)) for one in earlier]


def _attempt(one: AttemptRecord) -> Iterator[tuple[str, JsonValue]]:
    yield "attempt", max(one.number, 1)
    yield "attemptId", one.task_id
    yield "status", _STATUSES[outcome_of(one.kind)]
    yield from _times(one)
    if one.sentence:
        yield "message", one.sentence


def _times(one: AttemptRecord) -> Iterator[tuple[str, JsonValue]]:
    yield "duration", round((one.runtime or 0.0) * 1000)
    if one.started_at is not None:
        yield "start", _ms(one.started_at)
    if one.ended_at is not None:
        yield "stop", _ms(one.ended_at)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
