"""The run page at a session's end, for ``--manifest-report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.face.session import ManifestSession
from pytest_manifest.reporting.figures import comparison_of, records_of
from pytest_manifest.reporting.papers import add_paper
from pytest_manifest.reporting.run_page.page import PageFacts, write_page

if TYPE_CHECKING:
    from pytest_manifest.analysis.comparison import Comparison
    from pytest_manifest.run import Run


def write_run_page(state: ManifestSession, run: Run) -> None:
    """Write the run's page where the options say.

    What goes wrong is said among the run's findings, and stops nothing else.
    """
    if state.options.report is None:
        return
    path = page_path(state.options.report, run.info.run, alone=len(state.runs) == 1)
    with state.writing("the run page was not written", run):
        comparison = _comparison(state, run)
        with run.read() as ledger:
            status, entries, parts = ledger.status, ledger.count_entries(), ledger.segments()
        remarks = [*run.warnings, *([] if run.error is None else [f"The run gave up: {run.error}"])]
        facts = PageFacts(run.info, status, entries, remarks, comparison, parts)
        with records_of(run) as records:
            write_page(path, facts, records)
        add_paper(state.config, "page", path, run.info.run)


def page_path(report: Path, run: str, *, alone: bool) -> Path:
    """The file that was asked for; of several runs each has its own beside that."""
    return report if alone else report.with_name(f"{report.stem}-{run}{report.suffix}")


def _comparison(state: ManifestSession, run: Run) -> Comparison | None:
    """None where there is nothing to compare with, or it cannot be read: the summary says so."""
    try:
        return comparison_of(run, state.config)
    except ManifestToolError:
        return None
