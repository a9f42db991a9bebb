"""Write on the terminal: a header, a plan's preview, and a summary with all files written.

Close pytest's output with the answer: what came of the runs, why, and what to do first.

Check the record of each run of a session for what is promised of it, once it is over.

Show a few failures of each cause below pytest's heading, and count the others.

pytest's own short summary names every one of them, and its count has all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from pytest_manifest.analysis.causes import EXAMPLES
from pytest_manifest.bindings import OF_VERDICT
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.reporting import run_report, terminal_run
from pytest_manifest.reporting.next_step import Command
from pytest_manifest.reporting.run_statistics import summary_of
from pytest_manifest.reporting.terminal_layout import Line, Sheet
from pytest_manifest.schema.statuses import VerdictStatus
from pytest_manifest.text import listed, plural, short, short_path

if TYPE_CHECKING:
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run
    from pytest_manifest.run.invariants import Violation
    from pytest_manifest.schema.summary import SummaryCause


RUN_AGAIN = ("manifest_entry", "manifest_group")
"""Properties of reports by which a test is one of an entry, or of many."""


def write_summary(
    reporter: pytest.TerminalReporter, report: run_report.RunReport, plans: run_report.PlanReport
) -> None:
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
    reporter: pytest.TerminalReporter, report: run_report.RunReport, plans: run_report.PlanReport
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


def _write_notes(
    reporter: pytest.TerminalReporter, plans: run_report.PlanReport, plan: str
) -> None:
    """Write the planner's messages beside the preview."""
    notes: Sequence[str] = plans.notes.get(plan, ())
    for note in notes:
        reporter.write_line(f"  {redact(note)}")


SHOWN: Final = 3
"""Broken promises that the summary names; ``manifest check`` names all."""


def check_record(report: run_report.RunReport, run: Run) -> None:
    """Have the summary say whether the run's record is consistent; the session fails if not.

    What is judged apart, by another manifest than the run's, is no record of it.
    """
    from pytest_manifest.run.audit import record_size

    if run.ledger_path.parent != report.options.ledgers:
        return
    unchecked = report.writing("the run's record could not be checked", run, needed=False)
    with unchecked, run.read() as ledger:
        size = record_size(ledger)
        broken, number = _violations(ledger, _manifest(ledger, run))
        numbers = f"{plural(size.entries, 'entry')}, {plural(size.verdicts, 'verdict')}"
        said = "consistent" if not number else plural(number, "contradiction")
        run_report.add_artifact(report.config, "record", f"{said}: {numbers}", run.info.run)
        if number:
            report.lacks_artifacts = True
            run.warnings.append(_warning(run, broken, number))


def _violations(ledger: Ledger, manifest: Manifest) -> tuple[Sequence[Violation], int]:
    """Return the first broken invariants, and how many there are.

    The verdicts of this session are the judge's own: ``manifest check`` judges them again.
    """
    from pytest_manifest.run.invariants import broken_invariants

    with closing(broken_invariants(ledger, manifest)) as found:
        first = list(islice(found, SHOWN))
        return first, len(first) + sum(1 for _ in found)


def _manifest(ledger: Ledger, run: Run) -> Manifest:
    """Return the manifest that the run was made of: the session's, or the copy beside the ledger.

    What a change left as it was is in the copy alone.
    """
    from pytest_manifest.run.changes import kept_manifest

    digest = ledger.info.read().sha256
    if digest == run.manifest.sha256:
        return run.manifest
    return kept_manifest(run.ledger_path, digest) or run.manifest


def _warning(run: Run, broken: Sequence[Violation], number: int) -> str:
    named = "; ".join(
        f"{one.promise}{f', entry {short(one.entry)}' if one.entry else ''}: {one.sentence}"
        for one in broken
    )
    more = f" (and {number - len(broken)} more)" if number > len(broken) else ""
    return (
        f"the run's record is not consistent, so this session fails: {named}{more}; "
        f"'manifest check {run.info.run}' names all of them; do not rely on the verdicts of these "
        "entries, and report this"
    )


MOST: Final = 8
"""Lines of the block, its heading included."""
_CAUSES: Final = 3
_PAGE: Final = "page"


class _Found(NamedTuple):
    """A cause of a run's failures."""

    cause: SummaryCause
    run: Run


def write_closing(reporter: pytest.TerminalReporter, report: run_report.RunReport) -> None:
    """Write the block, below pytest's own short summary; with ``-q`` a line a run."""
    if not report.runs:
        return
    if reporter.verbosity < 0:
        terminal_run.write_runs_in_short(reporter, report)
        return
    with terminal_run.reporting_faults(reporter, report.runs[0], report):
        counts, entries = _counts(report.runs)
        title, good = _title(report, counts, entries), counts["passed"] == entries
        bad = terminal_run.has_failures(counts)
        reporter.write_sep("=", title, bold=True, red=bad, green=good, yellow=not (bad or good))
        for line in closing_lines(report, terminal_run.sheet_of(reporter)):
            terminal_run.write(reporter, line)


def closing_lines(report: run_report.RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield what stands below the heading: at most MOST - 1 lines."""
    found = _causes(report)
    steps = [line for run in report.runs for line in terminal_run.next_steps(run, report)]
    if found and not any(isinstance(line, Command) for line in steps):
        steps += _again(found[0].run, report)
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


def _counts(runs: Sequence[Run]) -> tuple[Counter[VerdictStatus], int]:
    """Return how many entries of all runs have which verdict, and how many there are."""
    counts: Counter[VerdictStatus] = Counter()
    entries = 0
    for run in runs:
        with run.read() as ledger:
            counts.update(ledger.verdicts.counts())
            entries += ledger.attempts.count_entries()
    return counts, entries


def _title(report: run_report.RunReport, counts: Counter[VerdictStatus], entries: int) -> str:
    runs = report.runs
    what = plural(len(runs), "run")
    if len(runs) == 1:
        what = report.name_of(runs[0])
    left = entries - counts.total()
    ends = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    ends += [f"{left} without a verdict"] if left else []
    return f"{what}: {', '.join(ends)} of {plural(entries, 'entry')}"


def _causes(report: run_report.RunReport) -> list[_Found]:
    """Return the causes of all runs, the largest first."""
    found: list[_Found] = []
    for run in report.runs:
        try:
            found += [
                _Found(cause, run) for cause in summary_of(run, report.config).statistics.causes
            ]
        except ManifestToolError:
            continue  # the run's own lines say so
    return sorted(found, key=lambda one: -one.cause.count)


def _cause_lines(found: Sequence[_Found], most: int, sheet: Sheet) -> Iterator[Line]:
    shown = found[:most]
    wide = max((len(str(one.cause.count)) for one in shown), default=0)
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


def _first(found: Sequence[_Found], report: run_report.RunReport, sheet: Sheet) -> Iterator[str]:
    """Yield, in at most two lines, what to do first: what the largest cause's verdicts advise."""
    cause, run = found[0]
    if not cause.step:
        return
    where = entry_place(run, cause.examples[0], report)
    label = "  first: "
    for text in sheet.in_two_lines(f"{cause.step} ({where})", sheet.width - len(label)):
        yield label + text
        label = " " * len(label)


def entry_place(run: Run, entry: str, report: run_report.RunReport) -> str:
    """Return where an entry stands: ``orders.jsonl:17``."""
    name = report.name_of(run)
    line = run.manifest.line_of(entry) if entry in run.manifest else None
    return name if line is None else f"{name}:{line}"


def _again(run: Run, report: run_report.RunReport) -> Iterator[str]:
    """Yield the command that runs again what failed, where pytest remembers that."""
    if not report.config.pluginmanager.has_plugin("lfplugin"):
        return
    name = report.name_of(run)
    with run.read() as ledger:
        shard = ledger.info.shard()
    part = "" if shard is None else f" --manifest-shard={shard}"
    stack = report.options.stack_arguments
    yield f"  to run these again: pytest --manifest={name}{part} --lf{stack}"


def _files(report: run_report.RunReport) -> Iterator[str]:
    """Yield where page and ledger are."""
    root = report.options.root
    pages = [
        short_path(location, root) if isinstance(location, Path) else location
        for run in report.runs
        for kind, location in run_report.artifacts(report.config, run.info.run)
        if kind == _PAGE
    ]
    ledgers = [short_path(run.ledger_path, root) for run in report.runs]
    for kind, paths in ((_PAGE, pages), ("ledger", ledgers)):
        if paths:
            yield f"  {kind:<8}  {listed(paths, 1)}"


_KINDS: Final = ("failed", "error")
_WITHOUT_TEXT: Final = ("no", "line")
"""Values of ``--tb`` with which no failure takes more than a line."""
_WITHOUT_CAUSE: Final = (None, "pending")
"""Verdicts that no cause names: that of an entry which has none, and one that is not reached."""
_ALL: Final = pytest.StashKey[dict[str, list[object]]]()


def hide_repeated(reporter: pytest.TerminalReporter, report: run_report.RunReport) -> None:
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
    for kind in _KINDS:
        every = reporter.stats.get(kind, [])
        few = list(_shown(every, named))
        if len(few) < len(every):
            hidden[kind], reporter.stats[kind] = every, few


def show_repeated(reporter: pytest.TerminalReporter, report: run_report.RunReport) -> int:
    """Give pytest all failures back; return how many were hidden."""
    number = 0
    hidden = report.config.stash.get(_ALL, {})
    while hidden:
        kind, every = hidden.popitem()
        number += len(every) - len(reporter.stats[kind])
        reporter.stats[kind] = every
    return number


def _shown(every: Iterable[object], named: set[tuple[str, str]]) -> Iterator[object]:
    """Yield reports of entries that a cause names, that say more than a verdict, or have no cause.

    Of the last, the first few.
    """
    room = EXAMPLES
    for report in every:
        if not isinstance(report, pytest.TestReport) or not getattr(report, OF_VERDICT, False):
            yield report
        elif dict(report.user_properties).get("manifest_verdict") in _WITHOUT_CAUSE:
            if room > 0:
                yield report
            room -= 1
        elif entry_of(report.user_properties) in named:
            yield report


def entry_of(rows: Sequence[tuple[str, object]]) -> tuple[str, str]:
    """Return run and entry of a test, by its properties."""
    found = dict(rows)
    return str(found.get("manifest_run", "")), str(found.get("manifest_entry", ""))
