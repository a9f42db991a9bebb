"""Write on the terminal: a plan's preview, each run with its files, and at the end the answer.

The end says what came of the runs, why, and what to do first. Of each cause a few failures are
shown below pytest's heading, the others counted: pytest's own short summary names all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from pytest_manifest.analysis.causes import EXAMPLES
from pytest_manifest.bindings import OF_VERDICT
from pytest_manifest.console import terminal_file
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.reporting import figures
from pytest_manifest.reporting.figures import BLANK, Line, Sheet
from pytest_manifest.reporting.next_step import failed_last, is_command, next_steps
from pytest_manifest.reporting.run_report import PlanReport, RunReport, artifacts
from pytest_manifest.reporting.summary import summary_of
from pytest_manifest.schema.statuses import BAD, TAKEN_BACK, VerdictStatus, outcome
from pytest_manifest.text import listed, many, plural, short_path
from pytest_manifest.verdict.explanation import counts_text

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run
    from pytest_manifest.schema.summary import RunSummary, SummaryCause


RUN_AGAIN = ("manifest_entry", "manifest_group")
"""Properties of reports by which a test is one of an entry, or of many."""


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
    is_quiet = report.runs and reporter.verbosity < 0  # what little is shown stands at the end
    if is_quiet or not (report.runs or report.notices):
        return
    reporter.write_sep("=", "manifest runs")
    for notice in report.notices.take_new():
        reporter.write_line(f"note: {notice}", yellow=True)
    if report.runs:
        write_runs(reporter, report)


def rerun_notices(reporter: pytest.TerminalReporter) -> list[str]:
    """Say what was not done where pytest-rerunfailures ran tests of entries again."""
    again = {
        one.nodeid
        for one in reporter.stats.get("rerun", ())
        if hasattr(one, "rerun")  # its own: a test whose xdist worker died is not repeated
        if any(name in RUN_AGAIN for name, _ in one.user_properties)
    }
    said = f"{plural(len(again), 'test')} of jobs ran again: a rerun looks at the same receipt once"
    rest = " more, and sends nothing; to send failed jobs again, run the session again with --lf"
    return [said + rest] if again else []


def _write_previews(
    reporter: pytest.TerminalReporter, report: RunReport, plans: PlanReport
) -> None:
    from pytest_manifest.planning import preview

    reporter.write_sep("=", "plan")
    root: Path = report.options.root
    for manifest in plans.planned:
        for line in preview(manifest, plans.queues, report.options.key_limits):
            reporter.write_line(line.replace(f"{root}/", ""))
        _write_notes(reporter, plans, f"{manifest.header.workflow}:{manifest.header.mode}")
        if not report.runs:
            name = short_path(manifest.path, root)
            name += report.options.stack_arguments
            reporter.write_line(f"nothing was sent; to dispatch it: pytest --manifest={name}")
            reporter.write_line(f"it would go to: {plans.stack()}")


def _write_notes(reporter: pytest.TerminalReporter, plans: PlanReport, plan: str) -> None:
    """Write the planner's messages beside the preview."""
    for note in plans.notes.get(plan, ()):
        reporter.write_line(f"  {redact(note)}")


_Found: TypeAlias = "tuple[SummaryCause, Run]"
MOST: Final = 8
"""Lines of the block, its heading included."""
_CAUSES: Final = 3


def write_closing(reporter: pytest.TerminalReporter, report: RunReport) -> None:
    """Write the block, below pytest's own short summary; with ``-q`` a line a run."""
    if not report.runs:
        return
    if reporter.verbosity < 0:
        write_runs_in_short(reporter, report)
        return
    with reporting_faults(reporter, report.runs[0], report):
        title, good, bad = _title(report)
        reporter.write_sep("=", title, bold=True, red=bad, green=good, yellow=not (bad or good))
        for line in closing_lines(report, sheet_of(reporter)):
            write(reporter, line)


def closing_lines(report: RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield what stands below the heading: at most MOST - 1 lines."""
    found = _causes(report)
    steps = [line for run in report.runs for line in next_steps(run, report)]
    remembers = report.config.pluginmanager.has_plugin("lfplugin")
    again = failed_last(report, *dict.fromkeys(run for _, run in found)) if found else ""
    if again and remembers and not any(map(is_command, steps)):
        steps.append(f"  to run these again: {again}{report.options.stack_arguments}")
    files = list(_files(report))
    room = MOST - 1 - len(files)
    steps = steps[: max(room - 2, 1)] if found else steps[:room]
    room -= len(steps)
    advice = list(_first(found, report, sheet)) if found else []
    advice = advice if len(advice) + min(len(found), _CAUSES) <= room else advice[:1]
    yield from _cause_lines(found, min(_CAUSES, room - len(advice)), sheet)
    yield from (Line(text, yellow=True) for text in advice)
    yield from map(Line, steps)
    yield from map(Line, files)


def _title(report: RunReport) -> tuple[str, bool, bool]:
    """Return what came of all entries, whether all have passed, and whether some have failed."""
    counts: Counter[VerdictStatus] = Counter()
    entries = 0
    for run in report.runs:
        with run.read() as ledger:
            counts.update(ledger.verdicts.counts())
            entries += ledger.attempts.count_entries()
    left = entries - counts.total()
    ends = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    ends += [f"{left} without a verdict"] if left else []
    accepted = _accepted(report)
    ends += [f"{accepted.total()} of these accepted"] if accepted else []
    counts.subtract(accepted)
    one = report.name_of(report.runs[0]) if len(report.runs) == 1 else ""
    title = f"{one or plural(len(report.runs), 'run')}: {', '.join(ends)}"
    passed = counts["passed"] == entries and not report.lacks_artifacts
    bad = has_failures(one for one, count in counts.items() if count > 0)
    return f"{title} of {plural(entries, 'entry')}", passed, bad


def _accepted(report: RunReport) -> Counter[VerdictStatus]:
    """Return how many failures are accepted, by their verdicts."""
    found: Counter[VerdictStatus] = Counter()
    for run in report.runs:
        with suppress(ManifestToolError):  # the run's own lines say so
            found.update(summary_of(run, report.config).accepted_verdicts)
    return found


def _causes(report: RunReport) -> list[_Found]:
    """Return the causes of all runs, the largest first."""
    found: list[_Found] = []
    for run in report.runs:
        with suppress(ManifestToolError):  # the run's own lines say so
            found += ((cause, run) for cause in summary_of(run, report.config).statistics.causes)
    return sorted(found, key=lambda one: -one[0].count)


def _cause_lines(found: Sequence[_Found], most: int, sheet: Sheet) -> Iterator[Line]:
    shown = found[:most]
    wide = max((len(str(cause.count)) for cause, _ in shown), default=0)
    for position, (cause, _) in enumerate(shown):
        more = len(found) - most if position == most - 1 else 0
        rest = f" (and {plural(more, 'more cause')})" if more > 0 else ""
        before = f"  {cause.count:>{wide}}  "
        room = sheet.width - len(before) - len(rest)
        title = sheet.cut(cause.title, room * 3 // 5)
        names = sheet.cut(_examples(cause), room - len(title) - 2)
        yield Line(f"{before}{title}: {names}{rest}", red=True)


def _examples(cause: SummaryCause) -> str:
    more = cause.count - len(cause.examples)
    return ", ".join(cause.examples) + (f" and {more} more" if more else "")


def _first(found: Sequence[_Found], report: RunReport, sheet: Sheet) -> Iterator[str]:
    """Yield, in at most two lines, what to do first: what the largest cause's verdicts advise.

    What was taken back is what other failures led to, unless there are none.
    """
    cause, run = next((one for one in found if one[0].kind not in TAKEN_BACK), found[0])
    if not cause.step:
        return
    where, entry = report.name_of(run), cause.examples[0]
    if entry in run.manifest:
        where = f"{where}:{run.manifest.line_of(entry)}"
    label = "  first: "
    for text in sheet.in_two_lines(f"{cause.step} ({where})", sheet.width - len(label)):
        yield label + text
        label = " " * len(label)


def _files(report: RunReport) -> Iterator[str]:
    """Yield where page and ledger are."""
    root = report.options.root
    found = [one for run in report.runs for one in artifacts(report.config, run.info.run)]
    found += (("ledger", run.ledger_path) for run in report.runs)
    for kind in ("page", "ledger"):
        if paths := [short_path(Path(path), root) for of, path in found if of == kind]:
            yield _artifact_line(kind, listed(paths, 1), root)


_KINDS: Final = ("failed", "error")
_WITHOUT_TEXT: Final = ("no", "line")
"""Values of ``--tb`` with which no failure takes more than a line."""
_WITHOUT_CAUSE: Final = (None, "pending")
"""Verdicts that no cause names: that of an entry which has none, and one that is not reached."""
_ALL: Final = pytest.StashKey[dict[str, list[object]]]()


def hide_repeated(reporter: pytest.TerminalReporter, report: RunReport) -> None:
    """Leave pytest the failures of those entries that the causes name, until they are shown."""
    config = report.config
    if not report.runs or reporter.verbosity > 0 or config.option.tbstyle in _WITHOUT_TEXT:
        return
    if not any(map(reporter.stats.get, _KINDS)):
        return
    try:
        named = {
            (run.info.run, entry)
            for run in report.runs
            for cause in summary_of(run, config).statistics.causes
            for entry in cause.examples
        }
    except ManifestToolError:
        return
    hidden = config.stash.setdefault(_ALL, {})
    for kind in reporter.stats.keys() & {*_KINDS}:
        hidden[kind] = reporter.stats[kind]
        reporter.stats[kind] = list(_shown(hidden[kind], named))


def show_repeated(reporter: pytest.TerminalReporter, report: RunReport) -> int:
    """Give pytest all failures back; return how many were hidden."""
    hidden = report.config.stash.get(_ALL, {})
    number = sum(len(every) - len(reporter.stats[kind]) for kind, every in hidden.items())
    reporter.stats.update(hidden)
    hidden.clear()
    return number


def _shown(every: Iterable[object], named: set[tuple[str, str]]) -> Iterator[object]:
    """Yield reports of entries that a cause names, that say more than a verdict, or have no cause.

    Of the last, the first few.
    """
    room = EXAMPLES
    for report in every:
        if not isinstance(report, pytest.TestReport) or not getattr(report, OF_VERDICT, False):
            yield report
            continue
        told = dict(report.user_properties)
        if told.get("manifest_verdict") in _WITHOUT_CAUSE:
            if room > 0:
                yield report
            room -= 1
        elif (told.get("manifest_run"), told.get("manifest_entry")) in named:
            yield report


# A run


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
            summary = summary_of(run, report.config)
            heading = _heading(summary, report.name_of(run))
            if summary.comparison is not None:
                heading += f"; {figures.comparison_phrase(summary.comparison)}"
            for line in (heading, *warnings_of(run), *next_steps(run, report)):
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
        width=max(reporter.config.get_terminal_writer().fullwidth, figures.NARROWEST),
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
    # What is to be done about the only run stands at the very end.
    steps = next_steps(run, report) if len(report.runs) > 1 else ()
    for text in chain(warnings_of(run), steps):
        yield from map(Line, whole(text, sheet))
    yield from map(Line, _artifact_lines(run, report))


def _figures(run: Run, summary: RunSummary, report: RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield a run's verdicts, its statistics, and its comparison with an earlier one."""
    found = summary.statistics
    with run.read() as ledger:
        reasons = ledger.attempts.reasons()
    good = found.verdicts.get("passed", 0) == found.entries
    bad = bool(BAD.intersection(name for name, count in found.outcomes.items() if count))
    for line in whole(_heading(summary, report.name_of(run)), sheet):
        yield Line(line, bold=True, red=bad, green=good, yellow=not (bad or good))
    runs = [f"run {name} ({count})" for name, count in found.reused.items()]
    entries = plural(sum(found.reused.values()), "entry")
    again = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    phrases = (
        f"{entries} reused from {listed(runs, _RUNS_SHOWN)}" if runs else "",
        figures.cost_phrase(summary.cost),
        figures.limits_of(summary.run),
        again and f"further sendings: {again}",
        *(
            f"{one.count:,} {one.text} (such as {listed(one.examples, 1)})"
            for one in summary.accepted
        ),
        figures.untold_phrase(found.descendants, found.entries),
        *figures.slowed_phrases(summary.run.throttled),
        *figures.action_phrases(summary.run.actions),
    )
    for phrase in filter(None, phrases):
        yield from map(Line, whole(f"  {phrase}", sheet))
    lines = list(figures.statistics_lines(found, sheet))
    if path := list(figures.path_lines(found.descendants, sheet)):
        lines += [BLANK, *path]
    if summary.comparison is not None:
        lines += [BLANK, *figures.comparison_lines(summary.comparison, sheet)]
    yield from lines
    if BLANK in lines:
        yield BLANK


def whole(text: str, sheet: Sheet) -> Iterator[str]:
    """Yield a message's lines, wrapped between words on a terminal; a command stays on one line."""
    if sheet.terminal and not is_command(text):
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


def _heading(summary: RunSummary, name: str) -> str:
    found, run = summary.statistics, summary.run
    verdicts = ", ".join(f"{n} {kind}" for kind, n in sorted(found.verdicts.items()) if n)
    if reused := sum(found.reused.values()):
        verdicts += f" ({reused} reused)"
    if accepted := summary.accepted_verdicts.total():
        verdicts += f" ({accepted} accepted)"
    trees = found.descendants
    started = f"; {counts_text(trees.statuses)}" if trees.number else ""
    origin = f", shard {run.shard.replace('/', ' of ')}" if run.shard else ""
    if run.merged:
        origin = f", merged of {plural(len(run.merged), 'run')}"
    entries = many(found.entries, "entry")
    return f"{name}: run {run.run}{origin}, {entries}: {verdicts or 'no verdict yet'}{started}"


def _artifact_lines(run: Run, report: RunReport) -> Iterator[str]:
    """Yield the lines that name the run's files and addresses."""
    root = report.options.root
    found: list[tuple[str, Path | str]] = []
    if run.ledger_path.parent != report.options.ledgers:
        yield "  judged apart: what the run itself has kept stays as it was"
    else:
        files, logs = run.files, run.files.worker_logs()
        found += [("ledger", run.ledger_path), ("receipts", files.receipts), ("log", files.log)]
        if len(logs) > 1:
            every = short_path(files.worker_logs_pattern, root)
            found.append(("workers", f"{every} ({len(logs)} files)"))
        else:
            found += (("worker", log) for log in logs)
    for kind, location in [*found, *artifacts(report.config, run.info.run)]:
        yield _artifact_line(kind, location, root)


def _artifact_line(kind: str, location: Path | str, root: Path) -> str:
    shown = short_path(location, root) if isinstance(location, Path) else location
    return f"  {kind:<8}  {shown}"
