"""Close pytest's output with the answer: what came of the runs, why, and what to do first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.next_step import Command
from pytest_manifest.reporting.run_report import RunReport, artifacts
from pytest_manifest.reporting.run_statistics import statistics_of
from pytest_manifest.reporting.terminal_layout import Line, Sheet
from pytest_manifest.reporting.terminal_run import (
    has_failures,
    next_steps,
    reporting_faults,
    sheet_of,
    write,
    write_runs_in_short,
)
from pytest_manifest.schema.statuses import VerdictStatus
from pytest_manifest.text import listed, plural, short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.causes import Cause
    from pytest_manifest.run import Run

MOST: Final = 8
"""Lines of the block, its heading included."""
_CAUSES: Final = 3
_PAGE: Final = "page"


class _Found(NamedTuple):
    """A cause of a run's failures."""

    cause: Cause
    run: Run


def write_closing(reporter: pytest.TerminalReporter, report: RunReport) -> None:
    """Write the block, below pytest's own short summary; with ``-q`` a line a run."""
    if not report.runs:
        return
    if reporter.verbosity < 0:
        write_runs_in_short(reporter, report)
        return
    with reporting_faults(reporter, report.runs[0], report):
        counts, entries = _counts(report.runs)
        title, good = _title(report, counts, entries), counts["passed"] == entries
        bad = has_failures(counts)
        reporter.write_sep("=", title, bold=True, red=bad, green=good, yellow=not (bad or good))
        for line in closing_lines(report, sheet_of(reporter)):
            write(reporter, line)


def closing_lines(report: RunReport, sheet: Sheet) -> Iterator[Line]:
    """Yield what stands below the heading: at most MOST - 1 lines."""
    found = _causes(report)
    steps = [line for run in report.runs for line in next_steps(run, report)]
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


def _title(report: RunReport, counts: Counter[VerdictStatus], entries: int) -> str:
    runs = report.runs
    what = plural(len(runs), "run")
    if len(runs) == 1:
        what = short_path(runs[0].manifest.path, report.options.root)
    left = entries - counts.total()
    ends = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    ends += [f"{left} without a verdict"] if left else []
    return f"{what}: {', '.join(ends)} of {plural(entries, 'entry')}"


def _causes(report: RunReport) -> list[_Found]:
    """Return the causes of all runs, the largest first."""
    found: list[_Found] = []
    for run in report.runs:
        try:
            found += [_Found(cause, run) for cause in statistics_of(run, report.config).causes]
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


def _examples(cause: Cause) -> str:
    more = cause.count - len(cause.examples)
    return ", ".join(cause.examples) + (f" and {more} more" if more else "")


def _first(found: Sequence[_Found], report: RunReport, sheet: Sheet) -> Iterator[str]:
    """Yield, in at most two lines, what to do first: what the largest cause's verdicts advise."""
    cause, run = found[0]
    if not cause.step:
        return
    where = entry_place(run, cause.examples[0], report)
    label = "  first: "
    for text in sheet.in_two_lines(f"{cause.step} ({where})", sheet.width - len(label)):
        yield label + text
        label = " " * len(label)


def entry_place(run: Run, entry: str, report: RunReport) -> str:
    """Return where an entry stands: ``orders.jsonl:17``."""
    name = short_path(run.manifest.path, report.options.root)
    line = run.manifest.line_of(entry) if entry in run.manifest else None
    return name if line is None else f"{name}:{line}"


def _again(run: Run, report: RunReport) -> Iterator[str]:
    """Yield the command that runs again what failed, where pytest remembers that."""
    if not report.config.pluginmanager.has_plugin("lfplugin"):
        return
    name = short_path(run.manifest.path, report.options.root)
    with run.read() as ledger:
        shard = ledger.info.shard()
    part = "" if shard is None else f" --manifest-shard={shard}"
    stack = report.options.stack_arguments
    yield f"  to run these again: pytest --manifest={name}{part} --lf{stack}"


def _files(report: RunReport) -> Iterator[str]:
    """Yield where page and ledger are."""
    root = report.options.root
    pages = [
        short_path(location, root) if isinstance(location, Path) else location
        for run in report.runs
        for kind, location in artifacts(report.config, run.info.run)
        if kind == _PAGE
    ]
    ledgers = [short_path(run.ledger_path, root) for run in report.runs]
    for kind, paths in ((_PAGE, pages), ("ledger", ledgers)):
        if paths:
            yield f"  {kind:<8}  {listed(paths, 1)}"
