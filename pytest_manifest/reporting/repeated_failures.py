"""Show a few failures of each cause below pytest's heading, and count the others.

pytest's own short summary names every one of them, and its count has all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pytest

from pytest_manifest.analysis.causes import EXAMPLES
from pytest_manifest.bindings import OF_VERDICT
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.reporting.run_statistics import statistics_of

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
            for cause in statistics_of(run, config).causes
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


def show_repeated(reporter: pytest.TerminalReporter, report: RunReport) -> int:
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
