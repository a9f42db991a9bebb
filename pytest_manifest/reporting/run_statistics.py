"""Make a run's summary and comparison once a session, however many reports use them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pytest

from pytest_manifest.errors import ManifestError, ManifestToolError
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger, find_runs
from pytest_manifest.ledger.run_info import ACCEPTED
from pytest_manifest.reporting.run_report import REPORT_KEY, ReportedRun, RunReport, run_files
from pytest_manifest.schema.summary import (
    RunSummary,
    SummaryComparison,
    SummaryCost,
    SummaryFile,
    SummaryRun,
)
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.ledger import RunInfo
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run

_SUMMARIES: Final = pytest.StashKey[dict[Path, RunSummary]]()
_COMPARISONS: Final = pytest.StashKey[dict[Path, SummaryComparison | None]]()


def summary_of(
    run: Run, config: pytest.Config, take: Callable[[EntryRecord], object] | None = None
) -> RunSummary:
    """Return the summary of a run that is over, but its entries; made once a session.

    ``take`` is called with the record of each entry on the way, which makes the summary anew.
    Raises LedgerError or ManifestError if ledger or manifest cannot be read.
    """
    known = config.stash.setdefault(_SUMMARIES, {})
    if take is not None or run.ledger_path not in known:
        with records_of(run) as records:
            root, found = config.stash[REPORT_KEY].options.root, comparison_of(run, config)
            known[run.ledger_path] = make_summary(run, records, root, found, take)
    return known[run.ledger_path]


def make_summary(
    run: ReportedRun,
    records: Iterable[EntryRecord],
    root: Path,
    comparison: SummaryComparison | None = None,
    take: Callable[[EntryRecord], object] | None = None,
) -> RunSummary:
    """Make the summary of a run in one pass over its records. Raises LedgerError."""
    from pytest_manifest.analysis.statistics import statistics
    from pytest_manifest.reporting.descendants import read_trees

    def noted() -> Iterator[EntryRecord]:
        for record in records:
            if take is not None:
                take(record)
            yield record

    with run.read() as ledger:
        parts, tree_end = ledger.info.segments(), ledger.trees.last_end()
        found = statistics(noted(), run.info, parts, tree_end, read_trees(ledger))
        budget = ledger.info.get_meta(BUDGET)
        return RunSummary(
            run=_run(run, ledger, root),
            statistics=found,
            cost=SummaryCost(
                total=found.cost,
                budget=float(budget) if budget else None,
                over_budget=bool(ledger.info.get_meta(OVER_BUDGET)),
            ),
            comparison=comparison,
            files=list(_files(run, root)),
        )


@dataclass(frozen=True)
class RunEntries:
    """The record of each entry of a run, in the manifest's order, read anew by each iteration."""

    run: Run

    def __iter__(self) -> Iterator[EntryRecord]:
        """Read the records. Raises LedgerError or ManifestError."""
        with records_of(self.run) as records:
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
    """Compare with the run that the option names; None, with a warning of the run, if not."""
    path = report.options.compare
    if path is None:
        return None
    earlier = path if isinstance(path, Path) else _last(run, report.options.ledgers)
    if earlier is None:
        run.warnings.append(f"there is no earlier run of {report.name_of(run)} to compare with")
    elif earlier.stem == run.info.run:
        run.warnings.append(f"run {run.info.run} was not compared with itself")
    else:
        return _compare_with(earlier, run)
    return None


def _compare_with(path: Path, run: Run) -> SummaryComparison:
    from pytest_manifest.analysis.comparison import compare, compare_trees

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


def _last(run: Run, folder: Path) -> Path | None:
    """Return the ledger of the newest earlier run of the same manifest that has verdicts."""
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


def _run(run: ReportedRun, ledger: Ledger, root: Path) -> SummaryRun:
    info, shard = run.info, ledger.info.shard()
    return SummaryRun(
        run=info.run,
        manifest=short_path(run.manifest.path, root),
        manifest_sha256=info.sha256,
        workflow=info.workflow,
        mode=info.mode,
        shard=None if shard is None else str(shard),
        merged=list(ledger.info.merged()),
        key_limits=dict(ledger.info.key_limits()),
        created_at=info.created_at,
        status=ledger.info.status,
        error=None if run.error is None else str(run.error),
        findings=list(run.warnings),
        accepted=sorted(ledger.info.texts(ACCEPTED)),
        broker=info.broker,
        backend=info.backend,
        owned=info.is_private,
        version=version("pytest-celery-manifest"),
    )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _files(run: ReportedRun, root: Path) -> Iterator[SummaryFile]:
    for kind, path in run_files(run):
        with path.open("rb") as file:
            # Ledger and log are written to until the session ends, and by later audits.
            growing = kind in ("ledger", "log")
            digest = None if growing else _sha256(file)
        size = path.stat().st_size
        yield SummaryFile(kind=kind, path=short_path(path, root), bytes=size, sha256=digest)
