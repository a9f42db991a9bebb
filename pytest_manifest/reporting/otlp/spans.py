"""Make spans and metrics of a run, as OTLP's JSON has them (opentelemetry-proto 1.x).

A span a run, one an entry; what was sent, begun and ended are events of it. The spans of a worker
are the worker's own: they are children of the entry's, by the message's ``traceparent``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis.metrics import METRICS, manifest_label
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.reporting.otlp import conventions as names
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.statuses import BAD, outcome_of
from pytest_manifest.schema.tracing import RunTrace, SpanContext

_SERVER: Final = 2
_PRODUCER: Final = 4
_OK: Final = 1
_ERROR: Final = 2
_SERVICE: Final = "pytest-celery-manifest"
Span = dict[str, JsonValue]
Value = str | int | float | bool | None
Stretch = tuple[float, float | None]
"""When pytest took a run up, and when it let go of it (s since the epoch); None: it has not."""


def entry_span(record: EntryRecord, trace: RunTrace, manifest: str, began: datetime) -> Span:
    """Return the span of an entry; ``began``: when the run was made, for one that was not sent."""
    at, last = trace.of(record.id), record.last
    moments = [began] if record.reused_from else [*_moments(record.attempts)] or [began]
    span: Span = {
        **_place(at, None if trace.is_parted else trace.root),
        "name": f"send {record.task}",
        "kind": _PRODUCER,
        **_times(min(moments), max(moments)),
        "attributes": _attributes(
            {
                names.CASE_NAME: record.id,
                names.CASE_RESULT_STATUS: names.CASE_RESULTS.get(record.outcome),
                names.SUITE_NAME: manifest,
                names.PIPELINE_RUN_ID: trace.run,
                names.MESSAGING_SYSTEM: "celery",
                names.OPERATION_NAME: "send",
                names.OPERATION_TYPE: "send",
                names.MESSAGE_ID: None if last is None else last.task_id,
                names.DESTINATION_NAME: None if last is None else last.queue,
                names.FUNCTION_NAME: record.task,
                names.VERDICT: record.kind or "pending",
                names.ATTEMPTS: sum(one.sent_at is not None for one in record.attempts),
                names.WORKER: None if last is None else last.place,
                names.COST: None if last is None else last.cost,
                names.REUSED_FROM: None if record.reused_from is None else record.reused_from.run,
                names.ERROR_TYPE: _error_type(record),
            }
        ),
        "events": [] if record.reused_from else [*_events(record)],
        "status": {},
    }
    if record.outcome == "passed" or record.outcome in BAD:
        span["status"] = _status(is_good=record.outcome == "passed", why=record.sentence)
    if trace.is_parted:
        span["links"] = [{"traceId": trace.root.trace_id, "spanId": trace.root.span_id}]
    return span


def run_spans(status: RunStatus, trace: RunTrace, stretches: Sequence[Stretch]) -> Iterator[Span]:
    """Yield the span of the whole run, and one for each time that it was taken up again."""
    yield run_span(status, trace)
    for number in range(2, len(stretches) + 1):
        yield run_span(status, trace, stretches, number)


def run_span(
    status: RunStatus, trace: RunTrace, stretches: Sequence[Stretch] = (), number: int = 1
) -> Span:
    """Return the span of the run, or of the ``number``-th time that it was worked on.

    A run that was taken up again has a span for that, too, which is a child of the first's.
    """
    is_last = number >= len(stretches)
    counts = status.counts if is_last else {}
    is_bad = any(outcome_of(one) in BAD for one in counts)
    is_over = is_last and status.state == "finished"
    how = "stopped" if not is_over else "failed" if is_bad else "passed"
    result, suite = names.RESULTS[how]
    manifest = Path(status.manifest).name
    at, parent, began, ended = trace.root, trace.parent, status.began, status.heard
    if number > 1:
        at, parent = trace.stretch(number), at
        start, end = stretches[number - 1]
        began = datetime.fromtimestamp(start, timezone.utc)
        ended = ended if is_last or end is None else datetime.fromtimestamp(end, timezone.utc)
    return {
        **_place(at, parent),
        "name": f"{names.RUN} {manifest}",
        "kind": _SERVER,
        **_times(began, max(ended or began, began)),
        "attributes": _attributes(
            {
                names.PIPELINE_NAME: manifest,
                names.PIPELINE_RUN_ID: status.run,
                names.PIPELINE_ACTION_NAME: names.RUN,
                names.PIPELINE_RESULT: result,
                names.SUITE_NAME: manifest,
                names.SUITE_RUN_STATUS: suite,
                names.ENTRIES: status.total,
                names.COST: status.cost.total if is_last else None,
                **{f"{names.VERDICT}.{one}": count for one, count in counts.items()},
            }
        ),
        "status": _status(
            is_good=how == "passed", why=status.verdict if is_last else "interrupted"
        ),
    }


def _status(*, is_good: bool, why: str | None) -> JsonValue:
    return {"code": _OK} if is_good else {"code": _ERROR, "message": why or ""}


def is_kept(trace: RunTrace, entry: str, is_bad: bool) -> bool:
    """Return whether an entry's span is exported: each of one trace, else sampled and failed."""
    return not trace.is_parted or is_bad or trace.of(entry).is_sampled


def spans_document(spans: Iterable[Span]) -> dict[str, JsonValue]:
    """Return the request that has these spans."""
    scope: dict[str, JsonValue] = {"name": _SERVICE, "version": version(_SERVICE)}
    some: list[JsonValue] = [*spans]
    return {
        "resourceSpans": [
            {
                "resource": _resource(),
                "schemaUrl": names.SCHEMA_URL,
                "scopeSpans": [{"scope": scope, "spans": some, "schemaUrl": names.SCHEMA_URL}],
            }
        ]
    }


def metrics_document(status: RunStatus) -> dict[str, JsonValue]:
    """Return the request that has the metrics of a run as it is now."""
    scope: dict[str, JsonValue] = {"name": _SERVICE, "version": version(_SERVICE)}
    return {
        "resourceMetrics": [
            {
                "resource": _resource(),
                "schemaUrl": names.SCHEMA_URL,
                "scopeMetrics": [
                    {"scope": scope, "metrics": [*_metrics(status)], "schemaUrl": names.SCHEMA_URL}
                ],
            }
        ]
    }


def _metrics(status: RunStatus) -> Iterator[JsonValue]:
    label, at = manifest_label(status), _nanoseconds(status.at)
    for metric in METRICS:
        points: list[JsonValue] = [
            {
                "attributes": _attributes({names.MANIFEST: label, **labels}),
                "timeUnixNano": at,
                "asDouble": float(value),
            }
            for labels, value in metric.points(status)
            if value is not None
        ]
        if points:
            yield {
                "name": metric.name,
                "unit": metric.unit,
                "description": metric.about,
                "gauge": {"dataPoints": points},
            }


def _resource() -> JsonValue:
    about = {names.SERVICE_NAME: _SERVICE, names.SERVICE_VERSION: version(_SERVICE)}
    return {"attributes": _attributes(about)}


def _place(at: SpanContext, parent: SpanContext | None) -> Span:
    found: Span = {"traceId": at.trace_id, "spanId": at.span_id, "flags": 1}
    return found if parent is None else {**found, "parentSpanId": parent.span_id}


def _times(began: datetime, ended: datetime) -> Span:
    return {"startTimeUnixNano": _nanoseconds(began), "endTimeUnixNano": _nanoseconds(ended)}


def _nanoseconds(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1_000_000) * 1_000)


def _moments(attempts: Iterable[AttemptRecord]) -> Iterator[datetime]:
    for one in attempts:
        yield from filter(None, (one.sent_at, one.started_at, one.finished_at))


def _error_type(record: EntryRecord) -> str | None:
    if record.outcome not in BAD:
        return None
    error = None if record.receipt is None else record.receipt.error
    return record.kind if error is None else error.type


def _events(record: EntryRecord) -> Iterator[JsonValue]:
    for one in record.attempts:
        about: dict[str, Value] = {names.MESSAGE_ID: one.task_id, names.WORKER: one.place}
        for name, moment in (
            *(("manifest.sent", one.sent_at), ("manifest.started", one.started_at)),
            ("manifest.ended", one.ended_at),
        ):
            if moment is not None:
                yield _event(name, moment, about)
        for each in one.tries:
            if each.ended_at is not None:
                yield _event("manifest.retried", each.ended_at, {**about, "reason": each.error})
    receipt, last = record.receipt, record.last
    if receipt is not None and receipt.error is not None and last is not None:
        at = last.finished_at or last.started_at or last.sent_at
        error: dict[str, Value] = {
            names.EXCEPTION_TYPE: receipt.error.type,
            names.EXCEPTION_MESSAGE: receipt.error.message,
            names.EXCEPTION_STACKTRACE: receipt.error.traceback,
        }
        if at is not None:
            yield _event("exception", at, error)


def _event(name: str, at: datetime, about: Mapping[str, Value]) -> JsonValue:
    return {"name": name, "timeUnixNano": _nanoseconds(at), "attributes": _attributes(about)}


def _attributes(values: Mapping[str, Value]) -> list[JsonValue]:
    """Return attributes as OTLP has them; those without a value are left out."""
    return [
        {"key": key, "value": _any(value)} for key, value in values.items() if value is not None
    ]


def _any(value: str | int | float | bool) -> JsonValue:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
