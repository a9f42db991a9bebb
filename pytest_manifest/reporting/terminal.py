"""Write on the terminal: a header, a plan's preview, and a summary with all files written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from pytest_manifest.redaction import redact
from pytest_manifest.reporting.repeated_failures import show_repeated
from pytest_manifest.reporting.run_report import ManifestLine, PlanReport, RunReport
from pytest_manifest.text import plural, short_path

RUN_AGAIN = ("manifest_entry", "manifest_group")
"""Properties of reports by which a test is one of an entry, or of many."""


def header_lines(manifests: Iterable[ManifestLine], stack: str) -> list[str]:
    """Return the lines of pytest's header: where the jobs go, if known, and each manifest."""
    lines: list[str] = [f"manifest: {stack}"] if stack else []
    for one in manifests:
        if one.entries is None:
            lines.append(f"manifest: {one.name}")
        elif not one.shard:
            lines.append(f"manifest: {one.name} ({plural(one.entries, 'entry')})")
        else:
            share = f"{one.selected:,} of {one.entries:,} entries"
            lines.append(f"manifest: {one.name}, {one.shard}: {share}")
    return lines


def write_summary(reporter: pytest.TerminalReporter, report: RunReport, plans: PlanReport) -> None:
    """Write how many failures were not shown, previews of what was planned, one block a run."""
    if hidden := show_repeated(reporter, report):
        failures = "1 more failure" if hidden == 1 else f"{hidden:,} more failures"
        reporter.write_line(f"{failures} of the same causes not shown (-v shows all)")
    if plans.empty is not None:
        reporter.write_sep("=", "manifest")
        reporter.write_line(
            f"plan {plans.asked_for}: nothing to do; no manifest was written, nothing was sent"
        )
        _write_notes(reporter, plans, plans.empty)
    if plans.asked_for and plans.planned:
        _write_previews(reporter, report, plans)
    if plans.resume_lines:
        reporter.write_sep("=", "resume: what would be done")
        for line in plans.resume_lines:
            reporter.write_line(line)
    report.notices += rerun_notices(reporter)
    if not (report.runs or report.notices):
        return
    if report.runs and reporter.verbosity < 0:
        return  # what little is shown stands at the end
    reporter.write_sep("=", "manifest runs")
    for notice in report.notices.take_new():
        reporter.write_line(f"note: {notice}", yellow=True)
    if report.runs:
        from pytest_manifest.reporting.terminal_run import write_runs

        write_runs(reporter, report)


def rerun_notices(reporter: pytest.TerminalReporter) -> list[str]:
    """Say what was not done where pytest-rerunfailures ran tests of entries again."""
    again = {
        one.nodeid
        for one in reporter.stats.get("rerun", ())
        if hasattr(one, "rerun")  # its own: a test whose xdist worker died is not repeated
        if any(name in RUN_AGAIN for name, _ in one.user_properties)
    }
    if not again:
        return []
    tests = plural(len(again), "test")
    said = (
        f"{tests} of jobs ran again: a rerun looks at the same receipt once more, and sends nothing"
    )
    return [f"{said}; to send failed jobs again, run the session again with --lf"]


def _write_previews(
    reporter: pytest.TerminalReporter, report: RunReport, plans: PlanReport
) -> None:
    from pytest_manifest.planning import preview

    reporter.write_sep("=", "plan")
    root: Path = report.options.root
    for manifest in plans.planned:
        counted = preview(manifest)
        unnamed = {task for task, queue in counted.tasks if queue is None}
        for line in counted.lines(plans.queues(unnamed), report.options.key_limits):
            reporter.write_line(line.replace(f"{root}/", ""))
        _write_notes(reporter, plans, f"{manifest.header.workflow}:{manifest.header.mode}")
        if not report.runs:
            name = short_path(manifest.path, root)
            name += report.options.stack_arguments
            reporter.write_line(f"nothing was sent; to dispatch it: pytest --manifest={name}")
            reporter.write_line(f"it would go to: {plans.stack()}")


def _write_notes(reporter: pytest.TerminalReporter, plans: PlanReport, plan: str) -> None:
    """Write the planner's messages beside the preview."""
    notes: Sequence[str] = plans.notes.get(plan, ())
    for note in notes:
        reporter.write_line(f"  {redact(note)}")
