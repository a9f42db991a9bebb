"""Write what a run leaves for machines and CI at its end, in one pass over its records."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import StackError
from pytest_manifest.log import redact_url
from pytest_manifest.reporting.figures import comparison_of, note_statistics, records_of
from pytest_manifest.reporting.github_annotations import Failing, keep_failing
from pytest_manifest.reporting.papers import add_paper
from pytest_manifest.reporting.run_report import RunReport

if TYPE_CHECKING:
    from pytest_manifest.analysis.comparison import Comparison
    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.analysis.statistics import Statistics
    from pytest_manifest.reporting.completion_summary import SummaryWriter
    from pytest_manifest.run import Run

SUFFIX: Final = ".summary.json"


def complete(report: RunReport, run: Run) -> None:
    """Write the run's summary beside its ledger, and wherever options and CI ask for one.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    if (flower := _flower(run)) is not None:
        add_paper(report.config, "flower", flower)
    with report.writing("the summary was not written", run):
        comparison = comparison_of(run, report.config)
        statistics = _write_summaries(report, run, comparison)
        _write_markdown(report, run, statistics, comparison)


def summary_path(run: Run) -> Path:
    """Return the file of a run's summary, beside its ledger."""
    return run.files.summary


def _flower(run: Run) -> str | None:
    """Return the address of Flower's page of the stack's jobs, None if no Flower is known."""
    from pytest_manifest.stack.state import running_stack

    address = run.address.flower_url
    if not (address or run.address.is_private):
        with contextlib.suppress(StackError):
            running = running_stack()  # the user may have named it by its broker's URL
            if running is not None and running.broker_url == run.address.broker_url:
                address = running.flower_url
        address = address or os.environ.get("MANIFEST_FLOWER_URL", "")
    return f"{redact_url(address).rstrip('/')}/tasks" if address else None


def _write_summaries(report: RunReport, run: Run, comparison: Comparison | None) -> Statistics:
    """Write the summaries; return the statistics of the same pass over the records."""
    from pytest_manifest.analysis.statistics import statistics
    from pytest_manifest.reporting.completion_summary import SummaryWriter

    failing = Failing()
    with run.read() as ledger:
        parts = ledger.info.segments()
    with records_of(run) as records, SummaryWriter(run, report.options.root) as writer:
        found = statistics(_taken(records, writer, failing), run.info, parts)
        note_statistics(run, report.config, found)
        keep_failing(report.config, run, failing)
        writer.finish(found, comparison)
        if run.ledger_path.parent == report.options.ledgers:
            _write_summary(report, run, writer, summary_path(run), private=True)
        if (copy := _copy_for(report, run)) is not None:
            _write_summary(report, run, writer, copy)
    return found


def _write_summary(
    report: RunReport, run: Run, writer: SummaryWriter, path: Path, *, private: bool = False
) -> None:
    with report.writing("the summary was not written", run):
        writer.write(path, private=private)
        add_paper(report.config, "summary", path, run.info.run)


def _taken(
    records: Iterable[EntryRecord], writer: SummaryWriter, failing: Failing
) -> Iterator[EntryRecord]:
    for record in records:
        writer.add(record)
        failing.add(record)
        yield record


def _copy_for(report: RunReport, run: Run) -> Path | None:
    """Return the file of ``--manifest-summary``, for a second run with its id in the name."""
    path = report.options.summary
    if path is None or run is report.runs[0]:
        return path
    return path.with_name(f"{path.stem}.{run.info.run}{path.suffix}")


def _write_markdown(
    report: RunReport, run: Run, statistics: Statistics, comparison: Comparison | None
) -> None:
    from pytest_manifest.reporting.github_links import step_summary_file

    step = step_summary_file()
    if step is None and report.options.markdown is None:
        return
    from pytest_manifest.reporting.github_links import GitHubLinks, LocalLinks
    from pytest_manifest.reporting.github_markdown import markdown

    if step is not None:
        with report.writing("the step's summary was not written", run, needed=False):
            links = GitHubLinks.of_environment()
            text = markdown(run, statistics, comparison, links, report.options.root)
            with step.open("a", encoding="utf-8") as file:
                file.write(text)
    if (path := report.options.markdown) is not None:
        with report.writing("the summary in Markdown was not written", run):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = markdown(
                run, statistics, comparison, LocalLinks(path.parent), report.options.root
            )
            with path.open("w" if run is report.runs[0] else "a", encoding="utf-8") as file:
                file.write(text)
            add_paper(report.config, "markdown", path)
