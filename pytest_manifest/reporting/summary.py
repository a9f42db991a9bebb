"""Make a run's summary and comparison once a session, check its record, and write its summary.

All is made in one pass over the records of its entries, however many reports use it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pytest
from pydantic_core import to_json

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.analysis.throttles import actions_in, throttles_in
from pytest_manifest.errors import ManifestError, ManifestToolError, StackError
from pytest_manifest.files import FILE_MODE, append, file_sha256, folder_of, write_whole
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger, find_runs
from pytest_manifest.ledger.run_info import ACCEPTED
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.reporting import run_report
from pytest_manifest.reporting.run_report import ReportedRun, RunReport, add_artifact
from pytest_manifest.schema import summary as schema
from pytest_manifest.schema.run_facts import Segment
from pytest_manifest.schema.statuses import BAD
from pytest_manifest.text import plural, short, short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.digest import DigestMaker
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run.invariants import Violation
    from pytest_manifest.run.run import Run

_SUMMARIES: Final = pytest.StashKey[dict[Path, schema.RunSummary]]()


def summary_of(
    run: Run, config: pytest.Config, take: Callable[[EntryRecord], EntryRecord] | None = None
) -> schema.RunSummary:
    """Return the summary of a run that is over, but its entries; made once a session.

    ``take`` is given the record of each entry, and returns it, which makes the summary anew.
    Raises LedgerError or ManifestError if ledger or manifest cannot be read.
    """
    known = config.stash.setdefault(_SUMMARIES, {})
    if take is not None or run.ledger_path not in known:
        report = config.stash[run_report.REPORT_KEY]
        found = _compared(run, report)
        known[run.ledger_path] = make_summary(run, report.options.root, found, take)
    return known[run.ledger_path]


def make_summary(
    run: ReportedRun,
    root: Path,
    comparison: schema.SummaryComparison | None = None,
    take: Callable[[EntryRecord], EntryRecord] | None = None,
) -> schema.RunSummary:
    """Make the summary of a run in one pass over its records. Raises ManifestError, LedgerError."""
    from pytest_manifest.analysis.dispositions import ACCEPTANCE
    from pytest_manifest.analysis.statistics import statistics
    from pytest_manifest.analysis.uses import Uses
    from pytest_manifest.reporting.descendants import read_trees

    with records_of(run) as records, run.read() as ledger:
        parts, tree_end = ledger.info.segments(), ledger.trees.last_end()
        uses = Uses(run.info.manifest, ACCEPTANCE.now)
        taken = map(uses.add, records if take is None else map(take, records))
        found = statistics(taken, run.info, parts, tree_end, read_trees(ledger))
        budget = ledger.info.get_meta(BUDGET)
        return schema.RunSummary(
            run=_run(run, ledger, root, uses.said()),
            statistics=found,
            cost=schema.SummaryCost(
                total=found.cost,
                budget=float(budget) if budget else None,
                over_budget=bool(ledger.info.get_meta(OVER_BUDGET)),
            ),
            comparison=comparison,
            files=list(_files(run, root)),
            accepted=uses.accepted(),
        )


@dataclass(frozen=True)
class RunEntries:
    """The record of each entry of a run, in the manifest's order, read anew by each iteration."""

    run: Run

    def __iter__(self) -> Iterator[EntryRecord]:
        """Read the records. Raises LedgerError or ManifestError."""
        with records_of(self.run) as records:
            yield from records


@contextmanager
def records_of(run: ReportedRun) -> Iterator[Iterator[EntryRecord]]:
    """Open the run's records. Raises ManifestError or LedgerError."""
    from pytest_manifest.analysis.reading import read_records

    with run.read() as ledger, closing(read_records(ledger, _readable(run))) as records:
        yield records


def _readable(run: ReportedRun) -> Manifest:
    """Return the run's manifest, its own copy if the file has changed.

    Raises ManifestError if there is no copy.
    """
    from pytest_manifest.run.changes import kept_manifest

    try:
        next(iter(run.manifest), None)
    except ManifestError:
        kept = kept_manifest(run.ledger_path, run.manifest.sha256)
        if kept is None:
            raise
        return kept
    return run.manifest


def _compared(run: Run, report: RunReport) -> schema.SummaryComparison | None:
    """Compare with the run that ``--manifest-compare`` names; None, with a warning, if not."""
    path = report.options.compare
    if path is None:
        return None
    try:
        earlier = path if isinstance(path, Path) else _last(run, report.options.ledgers)
        if earlier is None:
            run.warnings.append(f"there is no earlier run of {report.name_of(run)} to compare with")
        elif earlier.stem == run.info.run:
            run.warnings.append(f"run {run.info.run} was not compared with itself")
        else:
            return _compare_with(earlier, run)
    except ManifestToolError as error:
        run.warnings.append(f"it was not compared with an earlier run: {error}")
    return None


def compare_with_last(run: Run, report: RunReport) -> schema.SummaryComparison | None:
    """Compare a run that is over with the last one of its manifest, None if there is none.

    Raises LedgerError or ManifestError if that one cannot be read.
    """
    earlier = _last(run, report.options.ledgers)
    return None if earlier is None else _compare_with(earlier, run)


def _compare_with(path: Path, run: Run) -> schema.SummaryComparison:
    """Compare with the run of this ledger, by its manifest: its copy, else its file, else ours."""
    from pytest_manifest.analysis.comparison import compare_ledgers
    from pytest_manifest.manifest import read_manifest
    from pytest_manifest.run.changes import kept_manifest

    with Ledger.open(path) as before, run.read() as after:
        info = before.info.read()
        manifest = kept_manifest(path, info.sha256)
        if manifest is None and info.manifest != run.manifest.path.resolve():
            with contextlib.suppress(ManifestError):
                manifest = read_manifest(info.manifest)
        return compare_ledgers(before, manifest or run.manifest, after, _readable(run))


def _last(run: Run, folder: Path) -> Path | None:
    """Return the ledger of the newest earlier run of the same manifest that has verdicts."""
    paths = {run.manifest.path.resolve(), run.info.manifest}
    known = {path for path in paths for path in find_runs(folder, path)}
    known.update(find_runs(folder, sha256=run.info.sha256))
    earlier: list[tuple[tuple[int, datetime], Path]] = []
    with run.read() as ledger:
        shard = ledger.info.shard()
    for path in known - {run.ledger_path}:
        with Ledger.open(path) as ledger:
            age, is_ours = ledger.info.read().age, ledger.info.shard() in (None, shard)
            # Another shard has run other entries.
            if is_ours and age < run.info.age and ledger.verdicts.counts():
                earlier.append((age, path))
    return max(earlier)[1] if earlier else None


def _run(run: ReportedRun, ledger: Ledger, root: Path, more: Iterable[str]) -> schema.SummaryRun:
    info, shard = run.info, ledger.info.shard()
    segments = [one for one in ledger.facts.of_run(info.run) if isinstance(one, Segment)]
    return schema.SummaryRun(
        run=info.run,
        manifest=short_path(run.manifest.path, root),
        manifest_sha256=info.sha256,
        workflow=info.workflow,
        mode=info.mode,
        shard=None if shard is None else str(shard),
        merged=list(ledger.info.merged()),
        key_limits=dict(ledger.info.key_limits()),
        rates=dict(segments[-1].rates) if segments else {},
        queue_depth=segments[-1].queue_depth if segments else None,
        throttled=throttles_in(ledger, info.run),
        actions=actions_in(ledger, info.run),
        created_at=info.created_at,
        status=ledger.info.status,
        error=None if run.error is None else str(run.error),
        findings=list(dict.fromkeys([*run.warnings, *more])),
        accepted=sorted(ledger.info.texts(ACCEPTED)),
        broker=info.broker,
        backend=info.backend,
        owned=info.is_private,
        version=version("pytest-celery-manifest"),
    )


def _files(run: ReportedRun, root: Path) -> Iterator[schema.SummaryFile]:
    for kind, path in run_report.run_files(run):
        # Ledger and log are written to until the session ends, and by later audits.
        digest = None if kind in ("ledger", "log") else file_sha256(path)
        size = path.stat().st_size
        yield schema.SummaryFile(kind=kind, path=short_path(path, root), bytes=size, sha256=digest)


# The check of a record

SHOWN: Final = 3
"""Broken promises that the summary names; ``manifest check`` names all."""


def check_record(report: RunReport, run: Run) -> None:
    """Have the summary say whether the run's record is consistent; the session fails if not.

    What is judged apart, by another manifest than the run's, is no record of it. The verdicts of
    this session are the judge's own: ``manifest check`` judges them again.
    """
    from pytest_manifest.run.audit import record_size
    from pytest_manifest.run.changes import kept_manifest
    from pytest_manifest.run.invariants import broken_invariants

    if run.ledger_path.parent != report.options.ledgers:
        return
    unchecked = report.writing("the run's record could not be checked", run, needed=False)
    with unchecked, run.read() as ledger:
        size, digest, manifest = record_size(ledger), ledger.info.read().sha256, run.manifest
        if digest != manifest.sha256:  # what a change left as it was is in the copy alone
            manifest = kept_manifest(run.ledger_path, digest) or manifest
        broken: Sequence[Violation] = ()
        number = 0
        if run.strategy.consistent_at != ledger.facts.last_seq():
            with closing(broken_invariants(ledger, manifest)) as found:
                broken = list(islice(found, SHOWN))
                number = len(broken) + sum(1 for _ in found)
        numbers = f"{plural(size.entries, 'entry')}, {plural(size.verdicts, 'verdict')}"
        said = "consistent" if not number else plural(number, "contradiction")
        add_artifact(report.config, "record", f"{said}: {numbers}", run.info.run)
        if number:
            report.lacks_artifacts = True
            run.warnings.append(_warning(run, broken, number))


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


# Files


def complete(report: RunReport, run: Run) -> None:
    """Write the run's summary beside its ledger, and wherever options and CI ask for one.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    from pytest_manifest.analysis.digest import DigestMaker

    if (flower := _flower(run)) is not None:
        add_artifact(report.config, "flower", flower)
    with report.writing("the summary was not written", run), SummaryWriter() as writer:
        maker = DigestMaker(run.info.entries)
        found = summary_of(run, report.config, lambda one: maker.add(writer.add(one)))
        writer.finish(found)
        run.warnings += [one for one in found.run.findings if one not in run.warnings]
        if run.ledger_path.parent == report.options.ledgers:
            _write_summary(report, run, writer, run.files.summary, FILE_MODE)
            _write_digest(report, run, maker, found)
        if (copy := report.options.summary) is not None:
            if run is not report.runs[0]:
                copy = copy.with_name(f"{copy.stem}.{run.info.run}{copy.suffix}")
            _write_summary(report, run, writer, copy, report.options.report_mode)
        _write_markdown(report, run, found)


def _flower(run: Run) -> str | None:
    """Return the address of Flower's page of the stack's jobs, None if no Flower is known."""
    from pytest_manifest.stack.state import running_stack

    address = run.address.flower_url
    if not (address or run.address.is_private):
        with contextlib.suppress(StackError):
            running = running_stack()  # the user may have named it by its broker's URL
            if running is not None and running.broker_url == run.address.broker_url:
                address = running.flower_url
        address = address or os.environ.get("MANIFEST_FLOWER_URL", "")
    return f"{redact_url(address).rstrip('/')}/tasks" if address else None


def _write_summary(
    report: RunReport, run: Run, writer: SummaryWriter, path: Path, mode: int
) -> None:
    with report.writing("the summary was not written", run):
        writer.write(path, mode)
        add_artifact(report.config, "summary", path, run.info.run)


def _write_digest(
    report: RunReport, run: Run, maker: DigestMaker, found: schema.RunSummary
) -> None:
    from pytest_manifest.analysis.digest import write_digest

    with (
        report.writing("the run's digest was not written", run, needed=False),
        run.read() as ledger,
    ):
        number, statistics = len(_readable(run)), found.statistics
        write_digest(maker.digest(ledger, number, statistics, found.cost.total), run.ledger_path)


def _write_markdown(report: RunReport, run: Run, found: schema.RunSummary) -> None:
    step = run_report.step_summary_file()
    if step is None and report.options.markdown is None:
        return
    from pytest_manifest.reporting.markdown import Links, markdown

    options = report.options
    text = partial(markdown, run, found, root=options.root, arguments=options.stack_arguments)
    if step is not None:
        unwritten = report.writing("the step's summary was not written", run, needed=False)
        with unwritten, step.open("a", encoding="utf-8") as file:
            file.write(text(Links.on_github()))
    if (path := options.markdown) is not None:
        with report.writing("the summary in Markdown was not written", run):
            mode = options.report_mode
            folder_of(path, mode)
            write = write_whole if run is report.runs[0] else append
            write(path, text(Links(path.parent)).encode(), mode)
            add_artifact(report.config, "markdown", path)


# summary.json, entry by entry, so that memory stays flat whatever the run's size

GROUPS: Final = ("failed", "unfinished", "succeeded")
SPOOL: Final = 1 << 20
"""Bytes of one group of entries that are kept in memory, the rest in a temporary file."""


def _spool() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=SPOOL)


class SummaryWriter(contextlib.ExitStack):
    """Take a run's records, then its summary, and write the document to one or more files."""

    def __init__(self) -> None:
        super().__init__()
        self._spools: dict[str, IO[bytes]] = {
            group: self.enter_context(_spool()) for group in GROUPS
        }
        self._head = b""

    def add(self, record: EntryRecord) -> EntryRecord:
        """Take the next entry, in the manifest's order, and return it."""
        is_bad, has_passed = record.outcome in BAD, record.outcome == "passed"
        group = "failed" if is_bad else "succeeded" if has_passed else "unfinished"
        self._spools[group].write(b",\n  " + to_json(summary_fields(record)))
        return record

    def finish(self, found: schema.RunSummary) -> None:
        """Take what is known after the last entry."""
        whole = found.model_dump_json(indent=1, exclude={"failed", "unfinished", "succeeded"})
        self._head = whole.rstrip().removesuffix("}").rstrip().encode()

    def write(self, path: Path, mode: int = FILE_MODE) -> None:
        """Write the document, whole or not at all, to a file of this mode.

        Raises ManifestError or OSError if it cannot be written.
        """
        folder_of(path, mode)
        with atomic_file(path, mode) as file:
            file.write(self._head)
            for group, spool in self._spools.items():
                file.write(f',\n "{group}": ['.encode())
                spool.seek(0)
                some = spool.read(1)  # the comma
                shutil.copyfileobj(spool, file)
                file.write(b"\n ]" if some else b"]")
            file.write(b"\n}\n")
