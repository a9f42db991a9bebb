"""Compute a run's statistics and comparison once a session, however many reports use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.errors import ManifestError, ManifestToolError
from pytest_manifest.reporting.run_report import REPORT_KEY, ReportedRun, RunReport
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.analysis.statistics import Statistics
    from pytest_manifest.ledger import Ledger, RunInfo
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run
    from pytest_manifest.schema.summary import RunSummary, SummaryComparison

_STATISTICS: Final = pytest.StashKey[dict[Path, "Statistics"]]()
_SUMMARIES: Final = pytest.StashKey[dict[Path, "RunSummary"]]()
_COMPARISONS: Final = pytest.StashKey[dict[Path, "SummaryComparison | None"]]()


def computed(run: ReportedRun, records: Iterable[EntryRecord]) -> Statistics:
    """Return the statistics of a run, in one pass over its records. Raises LedgerError."""
    from pytest_manifest.analysis.statistics import statistics
    from pytest_manifest.reporting.descendants import read_trees

    with run.read() as ledger:
        parts, tree_end = ledger.info.segments(), ledger.trees.last_end()
        trees = read_trees(ledger)
    return statistics(records, run.info, parts, tree_end, trees)


def statistics_of(run: Run, config: pytest.Config) -> Statistics:
    """Return the statistics of a run that is over, computed at the first call.

    Raises LedgerError or ManifestError if ledger or manifest cannot be read.
    """
    known = config.stash.setdefault(_STATISTICS, {})
    if run.ledger_path not in known:
        with records_of(run) as records:
            known[run.ledger_path] = computed(run, records)
    return known[run.ledger_path]


def keep_statistics(run: Run, config: pytest.Config, found: Statistics) -> None:
    """Keep the statistics that another report's pass over the run's records has given."""
    config.stash.setdefault(_STATISTICS, {})[run.ledger_path] = found


def keep_summary(run: Run, config: pytest.Config, summary: RunSummary) -> None:
    """Keep the run's summary for what makes reports of it."""
    config.stash.setdefault(_SUMMARIES, {})[run.ledger_path] = summary


def summary_of(run: Run, config: pytest.Config) -> RunSummary | None:
    """Return the summary of a run that is over; None where it could not be made."""
    return config.stash.get(_SUMMARIES, {}).get(run.ledger_path)


class RunEntries:
    """The record of each entry of a run, in the manifest's order, read anew by each iteration."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[EntryRecord]:
        with records_of(self._run) as records:
            yield from records


def comparison_of(run: Run, config: pytest.Config) -> SummaryComparison | None:
    """Compare a run that is over with the one that ``--manifest-compare`` names.

    Returns None if the option was not given, or if the runs could not be compared: then the reason
    is among the run's warnings.
    """
    report = config.stash[REPORT_KEY]
    known = config.stash.setdefault(_COMPARISONS, {})
    if run.ledger_path not in known:
        known[run.ledger_path] = None
        try:
            known[run.ledger_path] = _compare(run, report)
        except ManifestToolError as error:
            run.warnings.append(f"it was not compared with an earlier run: {error}")
    return known[run.ledger_path]


def comparison_or_last(run: Run, config: pytest.Config) -> SummaryComparison | None:
    """Compare as ``--manifest-compare`` asks, without it with the last run of the manifest, if any.

    Raises LedgerError or ManifestError if that one cannot be read.
    """
    report = config.stash[REPORT_KEY]
    if report.options.compare is not None:
        return comparison_of(run, config)
    earlier = _last(run, report.options.ledgers)
    return None if earlier is None else _compare_with(earlier, run)


@contextmanager
def records_of(run: Run) -> Iterator[Iterator[EntryRecord]]:
    """Open the run's records, with its own copy of the manifest if the file has changed.

    Raises ManifestError if the file has changed and there is no copy.
    """
    from pytest_manifest.run.changes import kept_manifest

    manifest = run.manifest
    with run.read() as ledger:
        try:
            next(iter(manifest), None)
        except ManifestError:
            kept = kept_manifest(run.ledger_path, manifest.sha256)
            if kept is None:
                raise
            manifest = kept
        with _reading(ledger, manifest) as records:
            yield records


@contextmanager
def _reading(ledger: Ledger, manifest: Manifest) -> Iterator[Iterator[EntryRecord]]:
    from pytest_manifest.analysis.reading import read_records

    with closing(read_records(ledger, manifest)) as records:
        yield records


def _compare(run: Run, report: RunReport) -> SummaryComparison | None:
    path = None if report.options.compare is None else _earlier(run, report)
    return None if path is None else _compare_with(path, run)


def _compare_with(path: Path, run: Run) -> SummaryComparison:
    from pytest_manifest.analysis.comparison import compare, compare_trees
    from pytest_manifest.ledger import Ledger

    with Ledger.open(path) as ledger:
        info = ledger.info.read()
        manifest = _manifest_of(path, info, run)
        with _reading(ledger, manifest) as before, records_of(run) as after, run.read() as now:
            return compare(
                before,
                after,
                before_run=info.run,
                after_run=run.info.run,
                known_before=manifest.ids,
                known_after=run.manifest.ids,
                trees=compare_trees(ledger.trees.by_entry(), now.trees.by_entry()),
            )


def _earlier(run: Run, report: RunReport) -> Path | None:
    """Return the ledger to compare with; None, with a warning of the run, if there is none."""
    options = report.options
    name = short_path(run.manifest.path, options.root)
    path = options.compare
    if isinstance(path, Path):
        if path.stem == run.info.run:
            run.warnings.append(f"run {run.info.run} was not compared with itself")
            return None
        return path
    earlier = _last(run, options.ledgers)
    if earlier is None:
        run.warnings.append(f"there is no earlier run of {name} to compare with")
    return earlier


def _last(run: Run, folder: Path) -> Path | None:
    """Return the ledger of the newest earlier run of the same manifest that has verdicts."""
    from pytest_manifest.ledger import Ledger, find_runs

    paths = {run.manifest.path.resolve(), run.info.manifest}
    known = {path for path in paths for path in find_runs(folder, path)}
    known.update(find_runs(folder, sha256=run.info.sha256))
    earlier: list[tuple[tuple[int, datetime], Path]] = []
    with run.read() as ledger:
        shard = ledger.info.shard()
    for path in known:
        with Ledger.open(path) as ledger:
            info = ledger.info.read()
            if ledger.info.shard() not in (None, shard):
                continue  # it has run other entries
            if path != run.ledger_path and info.age < run.info.age and ledger.verdicts.counts():
                earlier.append((info.age, path))
    return max(earlier)[1] if earlier else None


def _manifest_of(path: Path, info: RunInfo, run: Run) -> Manifest:
    """Return the manifest of an earlier run: its copy, else its file, else this run's."""
    from pytest_manifest.manifest import read_manifest
    from pytest_manifest.run.changes import kept_manifest

    kept = kept_manifest(path, info.sha256)
    if kept is not None:
        return kept
    if info.manifest.is_file() and info.manifest != run.manifest.path.resolve():
        try:
            return read_manifest(info.manifest)
        except ManifestError:
            pass
    return run.manifest
