"""Write a run's metrics as text for Prometheus (OpenMetrics 1.0), for node_exporter's textfile
collector or a push gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.metrics import LAST_SUCCESS, METRICS, Labels, Metric, manifest_label
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.schema.run_facts import SegmentEnded
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.schema.summary import RunSummary


def write(run: ReportedRun, _summary: RunSummary, path: Path, mode: int) -> None:
    """Write the file; it tells of this run, and when the last good one of its manifest was."""
    with RunReader(run.ledger_path) as reader:
        status = reader.look()
    lines = [*_lines(status), *_last_success(run, status), "# EOF\n"]
    with atomic_file(path, mode) as file:
        file.write("".join(lines).encode())


def _lines(status: RunStatus) -> Iterator[str]:
    for metric in METRICS:
        values = [(labels, value) for labels, value in metric.points(status) if value is not None]
        if values:
            yield from _head(metric)
            for labels, value in values:
                yield _sample(metric, {"manifest": manifest_label(status), **labels}, value)


def _last_success(run: ReportedRun, status: RunStatus) -> Iterator[str]:
    """Yield the lines about the newest good run up to this one; nothing where none was."""
    info = run.info
    runs = find_runs(run.ledger_path.parent, info.manifest, info.sha256)
    here = runs.index(run.ledger_path) if run.ledger_path in runs else -1
    for path in reversed(runs[: here + 1]):
        with Ledger.open(path) as ledger:
            counts, found = ledger.verdicts.counts(), ledger.info.read()
            ends = (
                one.at for one in ledger.facts.of_run(found.run) if isinstance(one, SegmentEnded)
            )
            is_good = (
                ledger.info.status == "finished"
                and sum(counts.values()) == ledger.attempts.count_entries()
                and all(outcome_of(one) in ("passed", "skipped") for one in counts)
            )
            ended = max(ends, default=found.created_at)
        if is_good:
            labels = {"manifest": manifest_label(status)}
            yield from _head(LAST_SUCCESS)
            yield _sample(LAST_SUCCESS, labels, ended.timestamp())
            return


def _head(metric: Metric) -> Iterator[str]:
    yield f"# TYPE {metric.prometheus} gauge\n"
    yield f"# HELP {metric.prometheus} {metric.about}\n"


def _sample(metric: Metric, labels: Labels, value: float) -> str:
    named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{metric.prometheus}{{{named}}} {value!r}\n"


def _escaped(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
