"""Show a run in the terminal: verdicts, statistics, next steps, and where its files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.console import terminal_file
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting import descendants, terminal_statistics
from pytest_manifest.reporting.next_step import Command, how_to_go_on
from pytest_manifest.reporting.run_report import RunReport, artifacts
from pytest_manifest.reporting.run_statistics import summary_of
from pytest_manifest.reporting.terminal_layout import BLANK, NARROWEST, Line, Sheet
from pytest_manifest.schema import cost_text
from pytest_manifest.schema.statuses import BAD, VerdictStatus, outcome
from pytest_manifest.text import limits_phrase, listed, many, plural, short_path
from pytest_manifest.verdict.explanation import counts_text

if TYPE_CHECKING:
    from pytest_manifest.run import Run
    from pytest_manifest.schema.summary import RunSummary, SummaryCost


_RUNS_SHOWN: Final = 3


def write_runs(reporter: pytest.TerminalReporter, report: RunReport) -> None:
    """Write one block a run, then the files and addresses of the whole session."""
    sheet = sheet_of(reporter)
    for run in report.runs:
        with reporting_faults(reporter, run, report):
            for line in _run_lines(run, report, sheet):
                write(reporter, line)
    for kind, location in artifacts(report.config):
        reporter.write_line(_artifact_line(kind, location, report.options.root))


def write_runs_in_short(reporter: pytest.TerminalReporter, report: RunReport) -> None:
    """Write with ``-q`` one line a run, and what the user must know."""
    for run in report.runs:
        with reporting_faults(reporter, run, report):
            steps = next_steps(run, report)
            for line in (run_line(run, report), *warnings_of(run), *steps):
                reporter.write_line(line)


def has_failures(statuses: Iterable[VerdictStatus]) -> bool:
    """Return whether any of these verdicts is a failure, or an error."""
    return any(outcome(one) in BAD for one in statuses)


def write(reporter: pytest.TerminalReporter, line: Line) -> None:
    """Write a line in its colours."""
    text, bold, red, yellow, green = line
    reporter.write_line(text, bold=bold, red=red, yellow=yellow, green=green)


@contextmanager
def reporting_faults(
    reporter: pytest.TerminalReporter, run: Run, report: RunReport
) -> Iterator[None]:
    """Report a ledger that cannot be read in a line, so that session and other blocks go on."""
    try:
        yield
    except ManifestToolError as error:
        rest = f"the rest of what is known of run {run.info.run} is not known: {error}"
        reporter.write_line(f"{report.name_of(run)}: {rest}", red=True)


def sheet_of(reporter: pytest.TerminalReporter) -> Sheet:
    """Return the width and the abilities of pytest's terminal."""
    file = terminal_file(reporter.config)
    encoding = (getattr(file, "encoding", None) or "").lower().replace("-", "")
    return Sheet(
        width=max(reporter.config.get_terminal_writer().fullwidth, NARROWEST),
        terminal=file.isatty(),
        rich=file.isatty() and encoding == "utf8",
        all=reporter.verbosity > 0,
    )


def _run_lines(run: Run, report: RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield a run's lines: its verdicts, statistics, next steps and files."""
    try:
        yield from _figures(run, summary_of(run, report.config), report, sheet)
    except ManifestToolError as error:
        yield Line(f"{report.name_of(run)}: run {run.info.run}", bold=True)
        yield Line(f"  it has no figures: {error}", yellow=True)
    for text in warnings_of(run):
        yield from map(Line, whole(text, sheet))
    if len(report.runs) > 1:  # what is to be done about one run stands at the very end
        for text in next_steps(run, report):
            yield from map(Line, whole(text, sheet))
    yield from map(Line, _artifact_lines(run, report))


def _figures(run: Run, summary: RunSummary, report: RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield a run's verdicts, its statistics, and its comparison with an earlier one."""
    found = summary.statistics
    with run.read() as ledger:
        reasons = ledger.attempts.reasons()
    good, bad = found.verdicts.get("passed", 0) == found.entries, has_failures(found.verdicts)
    for line in whole(_heading(summary, report.name_of(run)), sheet):
        yield Line(line, bold=True, red=bad, green=good, yellow=not (bad or good))
    if found.reused:
        runs = [f"run {name} ({count})" for name, count in found.reused.items()]
        entries = plural(sum(found.reused.values()), "entry")
        text = f"  {entries} reused from {listed(runs, _RUNS_SHOWN)}"
        yield from map(Line, whole(text, sheet))
    again = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    limits = limits_phrase(summary.run.key_limits)
    for text in (_cost(summary.cost), limits, again and f"further sendings: {again}"):
        if text:
            yield Line(f"  {text}")
    for text in descendants.untold_lines(found.descendants, found.entries):
        yield from map(Line, whole(text, sheet))
    lines = list(terminal_statistics.statistics_lines(found, sheet))
    if path := list(descendants.path_lines(found.descendants, sheet)):
        lines += [BLANK, *path]
    if summary.comparison is not None:
        lines += [BLANK, *terminal_statistics.comparison_lines(summary.comparison, sheet)]
    yield from lines
    if BLANK in lines:
        yield BLANK


def whole(text: str, sheet: Sheet) -> Iterator[str]:
    """Yield a message's lines, wrapped between words on a terminal; a command stays on one line."""
    if sheet.terminal and ": pytest --" not in text:
        indent = len(text) - len(text.lstrip())
        yield from sheet.wrapped(text, indent=indent, hanging=2)
    else:
        yield text


def warnings_of(run: Run) -> Iterator[str]:
    """Yield what the user must know, also with ``-q``: corrections, warnings, why it gave up."""
    for correction in run.corrections:
        verdict = correction.verdict
        yield (
            f"  {verdict.entry!r} was {correction.before} at first and is {verdict.verdict}: "
            f"{verdict.sentence}"
        )
    for warning in run.warnings:
        yield f"  {warning}"
    if run.error is not None:
        yield f"  the run gave up: {run.error}"


def next_steps(run: Run, report: RunReport) -> Iterator[str]:
    """Yield what is left to do, also with ``-q``: the commands by which to go on."""
    from pytest_manifest.ledger import OVER_BUDGET

    name = report.name_of(run)
    with run.read() as ledger:
        counts, sending = ledger.verdicts.counts(), ledger.attempts.send_states()
        left = ledger.attempts.count_entries() - sum(counts.values())
        status, over_budget = ledger.info.status, ledger.info.get_meta(OVER_BUDGET)
        merged, shard = ledger.info.merged(), ledger.info.shard()
    if status == "running":  # its pytest has ended without recording it
        status = "stopped" if run.info.is_private else "detached"
    if merged:  # it cannot be resumed itself
        if status != "finished" or left:
            yield (
                "  to complete it: go on with the unfinished runs that it was merged of, each with "
                "--manifest-resume and its --manifest-shard, then merge again"
            )
        return
    unsent, not_run = sending.get("planned", 0), sending.get("withdrawn", 0)
    blocked = counts.get("skipped", 0) > 0 or (counts.get("timed_out", 0) > 0 < unsent + not_run)
    resume = "--manifest-resume --manifest-budget=MORE" if over_budget else "--manifest-resume"
    if shard is not None:
        name = f"{name} --manifest-shard={shard}"
    for one in how_to_go_on(run, name, status, unsent, left, blocked=blocked, resume=resume):
        is_command = isinstance(one, Command)
        yield Command(one + report.options.stack_arguments) if is_command else one


def _heading(summary: RunSummary, name: str) -> str:
    found, run = summary.statistics, summary.run
    verdicts = ", ".join(f"{n} {kind}" for kind, n in sorted(found.verdicts.items()) if n)
    if reused := sum(found.reused.values()):
        verdicts += f" ({reused} reused)"
    trees = found.descendants
    started = f"; {counts_text(trees.statuses)}" if trees.number else ""
    origin = f", shard {run.shard.replace('/', ' of ')}" if run.shard else ""
    if run.merged:
        origin = f", merged of {plural(len(run.merged), 'run')}"
    entries = many(found.entries, "entry")
    return f"{name}: run {run.run}{origin}, {entries}: {verdicts or 'none yet'}{started}"


def run_line(run: Run, report: RunReport) -> str:
    """Return the line that stands for a run with ``-q``."""
    summary = summary_of(run, report.config)
    more = ""
    if summary.comparison is not None:
        more = f"; {terminal_statistics.comparison_phrase(summary.comparison)}"
    return _heading(summary, report.name_of(run)) + more


def _cost(cost: SummaryCost) -> str:
    """Return what the run has cost; "" unless a receipt reports a cost or it had a budget."""
    limit = "" if cost.budget is None else f" of a budget of {cost_text(cost.budget)}"
    if cost.total is not None:
        return f"cost {cost_text(cost.total)}{limit}"
    return f"cost not known, as no receipt has one:{limit}" if limit else ""


def _artifact_lines(run: Run, report: RunReport) -> Iterator[str]:
    """Yield the lines that name the run's files and addresses."""
    root = report.options.root
    if run.ledger_path.parent != report.options.ledgers:
        yield "  judged apart: what the run itself has kept stays as it was"
    else:
        yield _artifact_line("ledger", run.ledger_path, root)
        yield _artifact_line("receipts", run.files.receipts, root)
        yield _artifact_line("log", run.files.log, root)
        logs = run.files.worker_logs()
        if len(logs) > 1:
            every = short_path(run.files.worker_logs_pattern, root)
            yield f"  workers   {every} ({len(logs)} files)"
        else:
            yield from (_artifact_line("worker", log, root) for log in logs)
    for kind, location in artifacts(report.config, run.info.run):
        yield _artifact_line(kind, location, root)


def _artifact_line(kind: str, location: Path | str, root: Path) -> str:
    shown = short_path(location, root) if isinstance(location, Path) else location
    return f"  {kind:<8}  {shown}"
