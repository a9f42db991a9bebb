"""Write a run's trace and metrics as OTLP's JSON lines, which a collector reads from a file.

Each line is a request: several with spans, the last one with metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import JsonValue
from pydantic_core import to_json

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.otlp import spans
from pytest_manifest.reporting.otlp.collector import Signal
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.reporting.summary import records_of
from pytest_manifest.schema.statuses import BAD
from pytest_manifest.schema.summary import RunSummary

AT_ONCE: Final = 500
"""Spans in one request."""
Request: TypeAlias = tuple[Signal, Mapping[str, JsonValue]]


def write(run: ReportedRun, _summary: RunSummary, path: Path, mode: int) -> None:
    """Write the file."""
    with atomic_file(path, mode) as file:
        for _, document in requests_of(run):
            file.write(to_json(document) + b"\n")


def requests_of(run: ReportedRun) -> Iterator[Request]:
    """Yield what a collector is sent of a run. Raises LedgerError or ManifestError."""
    with RunReader(run.ledger_path) as reader:
        status, stretches = reader.look(), reader.story.stretches
    with run.read() as ledger:
        trace = ledger.info.trace()
    manifest = run.info.manifest.name
    with records_of(run) as records:
        found = (
            spans.entry_span(one, trace, manifest, run.info.created_at)
            for one in records
            if spans.is_kept(trace, one.id, one.outcome in BAD)
        )
        every = chain(spans.run_spans(status, trace, stretches), found)
        while some := [*islice(every, AT_ONCE)]:
            yield "traces", spans.spans_document(some)
    yield "metrics", spans.metrics_document(status)
