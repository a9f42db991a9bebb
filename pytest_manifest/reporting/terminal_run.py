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
from pytest_manifest.reporting.run_statistics import comparison_of, statistics_of
from pytest_manifest.reporting.terminal_layout import BLANK, NARROWEST, Line, Sheet
from pytest_manifest.schema.statuses import BAD, VerdictStatus, outcome
from pytest_manifest.text import limits_phrase, listed, many, plural, short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.statistics import Statistics
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.run import Run


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
        name = short_path(run.manifest.path, report.options.root)
        message = f"{name}: the rest of what is known of run {run.info.run} is not known: {error}"
        reporter.write_line(message, red=True)


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
    name = short_path(run.manifest.path, report.options.root)
    with run.read() as ledger:
        counts, entries = ledger.verdicts.counts(), ledger.attempts.count_entries()
        about = _heading(run, name, ledger)
        cost, reasons = _cost_line(ledger, run), ledger.attempts.reasons()
        limits = limits_phrase(ledger.info.key_limits())
        reused = ledger.queries.reused_runs()
    good, bad = counts.get("passed", 0) == entries, has_failures(counts)
    for line in whole(about, sheet):
        yield Line(line, bold=True, red=bad, green=good, yellow=not (bad or good))
    if reused:
        runs = [f"run {name} ({count})" for name, count in reused.items()]
        text = f"  {plural(sum(reused.values()), 'entry')} reused from {listed(runs, _RUNS_SHOWN)}"
        yield from map(Line, whole(text, sheet))
    if cost is not None:
        yield Line(cost)
    if limits:
        yield Line(f"  {limits}")
    if reasons:
        again = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        yield Line(f"  further sendings: {again}")
    try:
        yield from _statistics_lines(run, statistics_of(run, report.config), report, sheet)
    except ManifestToolError as error:
        yield Line(f"  it has no figures: {error}", yellow=True)
    for text in warnings_of(run):
        yield from map(Line, whole(text, sheet))
    if len(report.runs) > 1:  # what is to be done about one run stands at the very end
        for text in next_steps(run, report):
            yield from map(Line, whole(text, sheet))
    yield from map(Line, _artifact_lines(run, report))


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

    name = short_path(run.manifest.path, report.options.root)
    with run.read() as ledger:
        counts, status, sending = (
            ledger.verdicts.counts(),
            ledger.info.status,
            ledger.attempts.send_states(),
        )
        entries, over_budget = (
            ledger.attempts.count_entries(),
            bool(ledger.info.get_meta(OVER_BUDGET)),
        )
        merged, shard = ledger.info.merged(), ledger.info.shard()
    if status == "running":  # its pytest has ended without recording it
        status = "stopped" if run.info.is_private else "detached"
    unsent, not_run = sending.get("planned", 0), sending.get("withdrawn", 0)
    blocked = counts.get("skipped", 0) > 0 or (counts.get("timed_out", 0) > 0 < unsent + not_run)
    left = entries - sum(counts.values())
    resume = "--manifest-resume --manifest-budget=MORE" if over_budget else "--manifest-resume"
    stack = report.options.stack_arguments
    if shard is not None:
        name = f"{name} --manifest-shard={shard}"
    if merged:
        yield from _how_to_complete(status, left)
    else:
        how = how_to_go_on(run, name, status, unsent, left, blocked=blocked, resume=resume)
        yield from (Command(one + stack) if isinstance(one, Command) else one for one in how)


def _heading(run: Run, name: str, ledger: Ledger) -> str:
    counts = sorted(ledger.verdicts.counts().items())
    verdicts = ", ".join(f"{count} {kind}" for kind, count in counts) or "none yet"
    if reused := sum(ledger.queries.reused_runs().values()):
        verdicts += f" ({reused} reused)"
    entries = many(ledger.attempts.count_entries(), "entry")
    found = f"{entries}: {verdicts}{descendants.run_phrase(ledger)}"
    return f"{name}: run {run.info.run}{_origin(ledger)}, {found}"


def _origin(ledger: Ledger) -> str:
    """Return which shard the run is of, or of how many runs it was merged."""
    merged, shard = ledger.info.merged(), ledger.info.shard()
    if merged:
        return f", merged of {plural(len(merged), 'run')}"
    return "" if shard is None else f", {shard.words}"


def run_line(run: Run, report: RunReport) -> str:
    """Return the line that stands for a run with ``-q``."""
    name = short_path(run.manifest.path, report.options.root)
    with run.read() as ledger:
        heading = _heading(run, name, ledger)
    comparison = comparison_of(run, report.config)
    more = [] if comparison is None else [terminal_statistics.comparison_phrase(comparison)]
    return "; ".join([heading, *(" ".join(one.split()) for one in more)])


def _statistics_lines(
    run: Run, found: Statistics, report: RunReport, sheet: Sheet
) -> Iterator[Line]:
    """Yield the run's statistics, and its comparison with an earlier one."""
    for text in descendants.untold_lines(found.descendants, found.entries):
        yield from map(Line, whole(text, sheet))
    lines = list(terminal_statistics.statistics_lines(found, sheet))
    if path := list(descendants.path_lines(found.descendants, sheet)):
        lines += [BLANK, *path]
    comparison = comparison_of(run, report.config)
    if comparison is not None:
        lines += [BLANK, *terminal_statistics.comparison_lines(comparison, sheet)]
    yield from lines
    if BLANK in lines:
        yield BLANK


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


def _cost_line(ledger: Ledger, run: Run) -> str | None:
    """Return what the run has cost; None unless a receipt reports a cost or it had a budget."""
    from pytest_manifest.ledger import BUDGET
    from pytest_manifest.schema import cost_text
    from pytest_manifest.verdict import Costs

    budget = ledger.info.get_meta(BUDGET)
    if not (budget or ledger.queries.has_costs()):
        return None
    costs = Costs(ledger, run.manifest)
    total = costs.total()
    if not (budget or costs.reported):
        return None
    limit = f" of a budget of {cost_text(float(budget))}" if budget else ""
    if not (costs.reported or total):
        return f"  cost not known, as no receipt has one{limit and f':{limit}'}"
    return f"  cost {cost_text(total)}{limit}"


def _how_to_complete(status: str, unjudged: int) -> Iterator[str]:
    """Yield how to complete a merged run, which cannot be resumed itself."""
    if status != "finished" or unjudged:
        yield (
            "  to complete it: go on with the unfinished runs that it was merged of, each with "
            "--manifest-resume and its --manifest-shard, then merge again"
        )
