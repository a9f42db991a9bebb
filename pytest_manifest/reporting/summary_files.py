"""Write ``summary.json``, and Markdown where it is asked for, in one pass over a run's records."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Final, Literal, get_args

from pydantic_core import to_json
from typing_extensions import Self

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.analysis.statistics import Statistics
from pytest_manifest.errors import StackError
from pytest_manifest.files import FILE_MODE, append, folder_of, write_whole
from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger
from pytest_manifest.ledger.run_info import ACCEPTED
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.reporting import run_report
from pytest_manifest.reporting.github_runner import FailingEntries, keep_failing, step_summary_file
from pytest_manifest.reporting.run_statistics import (
    comparison_of,
    computed,
    keep_statistics,
    keep_summary,
    records_of,
)
from pytest_manifest.schema import summary
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.run import Run


def complete(report: run_report.RunReport, run: Run) -> None:
    """Write the run's summary beside its ledger, and wherever options and CI ask for one.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    if (flower := _flower(run)) is not None:
        run_report.add_artifact(report.config, "flower", flower)
    with report.writing("the summary was not written", run):
        comparison = comparison_of(run, report.config)
        stats = _write_summaries(report, run, comparison)
        _write_markdown(report, run, stats, comparison)


def summary_path(run: Run) -> Path:
    """Return the file of a run's summary, beside its ledger."""
    return run.files.summary


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


def _write_summaries(
    report: run_report.RunReport, run: Run, comparison: summary.SummaryComparison | None
) -> Statistics:
    """Write the summaries; return the statistics of the same pass over the records."""
    failing = FailingEntries()
    with records_of(run) as records, SummaryWriter(run, report.options.root) as writer:
        found = computed(run, _collected(records, writer, failing))
        keep_statistics(run, report.config, found)
        keep_failing(report.config, run, failing)
        keep_summary(run, report.config, writer.finish(found, comparison))
        if run.ledger_path.parent == report.options.ledgers:
            _write_summary(report, run, writer, summary_path(run), FILE_MODE)
        if (copy := _copy_for(report, run)) is not None:
            _write_summary(report, run, writer, copy, report.options.report_mode)
    return found


def _write_summary(
    report: run_report.RunReport, run: Run, writer: SummaryWriter, path: Path, mode: int
) -> None:
    with report.writing("the summary was not written", run):
        writer.write(path, mode)
        run_report.add_artifact(report.config, "summary", path, run.info.run)


def _collected(
    records: Iterable[EntryRecord], writer: SummaryWriter, failing: FailingEntries
) -> Iterator[EntryRecord]:
    for record in records:
        writer.add(record)
        failing.add(record)
        yield record


def _copy_for(report: run_report.RunReport, run: Run) -> Path | None:
    """Return the file of ``--manifest-report``, for a second run with its id in the name."""
    path = report.options.summary
    if path is None or run is report.runs[0]:
        return path
    return path.with_name(f"{path.stem}.{run.info.run}{path.suffix}")


def _write_markdown(
    report: run_report.RunReport,
    run: Run,
    stats: Statistics,
    comparison: summary.SummaryComparison | None,
) -> None:
    step = step_summary_file()
    if step is None and report.options.markdown is None:
        return
    from pytest_manifest.reporting.github_summary import GitHubLinks, LocalLinks, markdown

    root, arguments = report.options.root, report.options.stack_arguments
    if step is not None:
        with report.writing("the step's summary was not written", run, needed=False):
            links = GitHubLinks.of_environment()
            text = markdown(run, stats, comparison, links, root, arguments)
            with step.open("a", encoding="utf-8") as file:
                file.write(text)
    if (path := report.options.markdown) is not None:
        with report.writing("the summary in Markdown was not written", run):
            mode = report.options.report_mode
            folder_of(path, mode)
            local = LocalLinks(path.parent)
            text = markdown(run, stats, comparison, local, root, arguments)
            write = write_whole if run is report.runs[0] else append
            write(path, text.encode(), mode)
            run_report.add_artifact(report.config, "markdown", path)


# summary.json, entry by entry, so that memory stays flat whatever the run's size

Group = Literal["failed", "unfinished", "succeeded"]
GROUPS: Final[Sequence[Group]] = get_args(Group)
_GROUP_OF: Final[dict[str, Group]] = {
    "passed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "skipped": "unfinished",
    "pending": "unfinished",
}
SPOOL: Final = 1 << 20
"""Bytes of one group of entries that are kept in memory, the rest in a temporary file."""


class SummaryWriter:
    """Take a run's records, then its statistics, and write the document to one or more files."""

    def __init__(self, run: run_report.ReportedRun, root: Path) -> None:
        self._run = run
        self._root = root
        self._spools: dict[Group, IO[bytes]] = {}
        self._started: set[Group] = (
            set()
        )  # asking a spool for its position would flush it each time
        self._open = contextlib.ExitStack()
        self._head = b""

    def __enter__(self) -> Self:
        for group in GROUPS:
            spool = tempfile.SpooledTemporaryFile(max_size=SPOOL)
            self._spools[group] = self._open.enter_context(spool)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, record: EntryRecord) -> None:
        """Take the next entry, in the manifest's order."""
        group = _GROUP_OF[record.outcome]
        comma = b",\n  " if group in self._started else b"\n  "
        self._started.add(group)
        self._spools[group].write(comma + to_json(summary_fields(record)))

    def finish(
        self, stats: Statistics, comparison: summary.SummaryComparison | None
    ) -> summary.RunSummary:
        """Take what is known after the last entry; return the document without its entries."""
        run = self._run
        with run.read() as ledger:
            about, cost = _run(run, ledger, self._root), _cost(ledger, stats)
        document = summary.RunSummary(
            run=about,
            statistics=stats,
            cost=cost,
            comparison=comparison,
            files=list(_files(run, self._root)),
        )
        whole = document.model_dump_json(indent=1, exclude={"failed", "unfinished", "succeeded"})
        self._head = whole.rstrip().removesuffix("}").rstrip().encode()
        return document

    def write(self, path: Path, mode: int = FILE_MODE) -> None:
        """Write the document, whole or not at all, to a file of this mode.

        Raises ManifestError or OSError if it cannot be written.
        """
        folder_of(path, mode)
        with atomic_file(path, mode) as file:
            file.write(self._head)
            for group in GROUPS:
                file.write(f',\n "{group}": ['.encode())
                spool = self._spools[group]
                spool.seek(0)
                shutil.copyfileobj(spool, file)
                file.write(b"\n ]" if group in self._started else b"]")
            file.write(b"\n}\n")


def _run(run: run_report.ReportedRun, ledger: Ledger, root: Path) -> summary.SummaryRun:
    info, shard = run.info, ledger.info.shard()
    return summary.SummaryRun(
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


def _cost(ledger: Ledger, statistics: Statistics) -> summary.SummaryCost:
    budget = ledger.info.get_meta(BUDGET)
    return summary.SummaryCost(
        total=statistics.cost,
        budget=float(budget) if budget else None,
        over_budget=bool(ledger.info.get_meta(OVER_BUDGET)),
    )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _files(run: run_report.ReportedRun, root: Path) -> Iterator[summary.SummaryFile]:
    for kind, path in run_report.run_files(run):
        with path.open("rb") as file:
            # Ledger and log are written to until the session ends, and by later audits.
            growing = kind in ("ledger", "log")
            digest = None if growing else _sha256(file)
        size = path.stat().st_size
        yield summary.SummaryFile(kind=kind, path=short_path(path, root), bytes=size, sha256=digest)
