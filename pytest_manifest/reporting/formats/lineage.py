"""Write a run as events of OpenLineage, so that a catalogue has it beside the tables that it wrote.

They are made by openlineage-python, and written by its file transport, a line an event: the run is
made (START), its first message is sent (RUNNING), it has ended (COMPLETE, FAIL or ABORT), with each
entry as a test. The namespace is that of ``OPENLINEAGE_NAMESPACE``, as everywhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from openlineage.client.event_v2 import InputDataset, Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    error_message_run,
    job_type_job,
    processing_engine_run,
    test_run,
)
from openlineage.client.transport.file import FileConfig, FileTransport

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.reporting.summary import records_of
from pytest_manifest.schema.statuses import BAD
from pytest_manifest.schema.summary import RunSummary

PRODUCER: Final = "https://pytest-celery-manifest.invalid/"
NAMESPACE: Final = "OPENLINEAGE_NAMESPACE"
MOST: Final = 10_000
"""Entries of a run beyond which only those are listed that have failed."""
_STATUSES: Final = {"passed": "pass", "failed": "fail", "error": "fail"}


def write(run: ReportedRun, summary: RunSummary, path: Path, mode: int) -> None:
    """Write the events."""
    with tempfile.TemporaryDirectory(prefix="manifest-lineage-") as folder:
        draft = Path(folder) / "events"
        transport = FileTransport(FileConfig(str(draft), append=True))
        for event in _events(run, summary):
            transport.emit(event)
        with draft.open("rb") as events, atomic_file(path, mode) as file:
            shutil.copyfileobj(events, file)


def _events(run: ReportedRun, summary: RunSummary) -> Iterator[RunEvent]:
    about, found = summary.run, summary.statistics
    namespace = os.environ.get(NAMESPACE) or "default"
    made = Run(
        str(uuid5(NAMESPACE_URL, f"manifest:{about.run}")), {"processing_engine": _engine(summary)}
    )
    kind = job_type_job.JobTypeJobFacet("BATCH", "PYTEST", "MANIFEST", producer=PRODUCER)
    job = Job(namespace, about.manifest, {"jobType": kind})
    inputs = [InputDataset("file", about.manifest)]

    def event(state: RunState, at: datetime, of: Run) -> RunEvent:
        return RunEvent(
            eventType=state,
            eventTime=at.isoformat(),
            run=of,
            job=job,
            producer=PRODUCER,
            inputs=inputs,
        )

    yield event(RunState.START, about.created_at, made)
    if found.began is not None:
        yield event(RunState.RUNNING, found.began, made)
    state = _state(summary)
    if state is None:
        return
    with records_of(run) as records:
        some = [one for one in records if found.entries <= MOST or one.outcome in BAD]
    facets = {
        **(made.facets or {}),
        "test": test_run.TestRunFacet([_test(one) for one in some], producer=PRODUCER),
    }
    if state == RunState.FAIL:
        what = "; ".join(f"{one.title}: {one.count}" for one in found.causes)
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            what or about.error or "not all entries have passed", "python", producer=PRODUCER
        )
    yield event(
        state, max(found.ended or about.created_at, about.created_at), Run(made.runId, facets)
    )


def _engine(summary: RunSummary) -> processing_engine_run.ProcessingEngineRunFacet:
    return processing_engine_run.ProcessingEngineRunFacet(
        version=summary.run.version, name="pytest-celery-manifest", producer=PRODUCER
    )


def _state(summary: RunSummary) -> RunState | None:
    """Return how the run ended; None: its workers go on."""
    if summary.run.status == "stopped":
        return RunState.ABORT
    if summary.run.status != "finished":
        return None
    outcomes = summary.statistics.outcomes
    return RunState.FAIL if any(outcomes.get(one) for one in BAD) else RunState.COMPLETE


def _test(record: EntryRecord) -> test_run.TestExecution:
    params: dict[str, object] = {"task": record.task, "verdict": record.kind or "pending"}
    if record.last is not None:
        params["task_id"] = record.last.task_id
    return test_run.TestExecution(
        name=record.id,
        status=_STATUSES.get(record.outcome, "skip"),
        severity="error",
        type=record.task,
        description=(record.sentence or None) if record.outcome != "passed" else None,
        params=params,
    )
