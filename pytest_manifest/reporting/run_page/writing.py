"""Write the run page at a session's end, for ``--manifest-report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.figures import comparison_of, records_of
from pytest_manifest.reporting.papers import add_paper
from pytest_manifest.reporting.run_page.page import PageFacts, write_page
from pytest_manifest.reporting.run_report import RunReport

if TYPE_CHECKING:
    from pytest_manifest.analysis.comparison import Comparison
    from pytest_manifest.run import Run


def write_run_page(report: RunReport, run: Run) -> None:
    """Write the run's page to the file that the options name.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    if report.options.report is None:
        return
    path = page_path(report.options.report, run.info.run, alone=len(report.runs) == 1)
    with report.writing("the run page was not written", run):
        comparison = _comparison(report, run)
        with run.read() as ledger:
            status, entries, parts = (
                ledger.info.status,
                ledger.attempts.count_entries(),
                ledger.info.segments(),
            )
        remarks = [*run.warnings, *([] if run.error is None else [f"The run gave up: {run.error}"])]
        facts = PageFacts(run.info, status, entries, remarks, comparison, parts)
        with records_of(run) as records:
            write_page(path, facts, records)
        add_paper(report.config, "page", path, run.info.run)


def page_path(report: Path, run: str, *, alone: bool) -> Path:
    """Return the file that was asked for; of several runs each has its own beside it."""
    return report if alone else report.with_name(f"{report.stem}-{run}{report.suffix}")


def _comparison(report: RunReport, run: Run) -> Comparison | None:
    """Return the comparison; None if there is none or it cannot be read, which the summary says."""
    try:
        return comparison_of(run, report.config)
    except ManifestToolError:
        return None
