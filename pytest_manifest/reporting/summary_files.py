"""Write ``summary.json``, and Markdown where it is asked for, in one pass over a run's records."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, get_args

from pydantic_core import to_json

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.errors import StackError
from pytest_manifest.files import FILE_MODE, append, folder_of, write_whole
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.reporting import run_report
from pytest_manifest.reporting.github_runner import step_summary_file
from pytest_manifest.reporting.run_statistics import summary_of
from pytest_manifest.schema import summary

if TYPE_CHECKING:
    from pytest_manifest.run import Run


def complete(report: run_report.RunReport, run: Run) -> None:
    """Write the run's summary beside its ledger, and wherever options and CI ask for one.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    if (flower := _flower(run)) is not None:
        run_report.add_artifact(report.config, "flower", flower)
    with report.writing("the summary was not written", run), SummaryWriter() as writer:
        found = summary_of(run, report.config, writer.add)
        writer.finish(found)
        if run.ledger_path.parent == report.options.ledgers:
            _write_summary(report, run, writer, run.files.summary, FILE_MODE)
        if (copy := _copy_for(report, run)) is not None:
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
    report: run_report.RunReport, run: Run, writer: SummaryWriter, path: Path, mode: int
) -> None:
    with report.writing("the summary was not written", run):
        writer.write(path, mode)
        run_report.add_artifact(report.config, "summary", path, run.info.run)


def _copy_for(report: run_report.RunReport, run: Run) -> Path | None:
    """Return the file of ``--manifest-report``, for a second run with its id in the name."""
    path = report.options.summary
    if path is None or run is report.runs[0]:
        return path
    return path.with_name(f"{path.stem}.{run.info.run}{path.suffix}")


def _write_markdown(report: run_report.RunReport, run: Run, found: summary.RunSummary) -> None:
    step = step_summary_file()
    if step is None and report.options.markdown is None:
        return
    from pytest_manifest.reporting.github_summary import GitHubLinks, LocalLinks, markdown

    root, arguments = report.options.root, report.options.stack_arguments
    if step is not None:
        with report.writing("the step's summary was not written", run, needed=False):
            links = GitHubLinks.of_environment()
            text = markdown(run, found, links, root, arguments)
            with step.open("a", encoding="utf-8") as file:
                file.write(text)
    if (path := report.options.markdown) is not None:
        with report.writing("the summary in Markdown was not written", run):
            mode = report.options.report_mode
            folder_of(path, mode)
            local = LocalLinks(path.parent)
            text = markdown(run, found, local, root, arguments)
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


def _spool() -> tempfile.SpooledTemporaryFile[bytes]:
    return tempfile.SpooledTemporaryFile(max_size=SPOOL)


class SummaryWriter(contextlib.ExitStack):
    """Take a run's records, then its summary, and write the document to one or more files."""

    def __init__(self) -> None:
        super().__init__()
        self._spools: dict[Group, IO[bytes]] = {
            group: self.enter_context(_spool()) for group in GROUPS
        }
        # Asking a spool for its position would flush it each time.
        self._started: set[Group] = set()
        self._head = b""

    def add(self, record: EntryRecord) -> None:
        """Take the next entry, in the manifest's order."""
        group = _GROUP_OF[record.outcome]
        comma = b",\n  " if group in self._started else b"\n  "
        self._started.add(group)
        self._spools[group].write(comma + to_json(summary_fields(record)))

    def finish(self, found: summary.RunSummary) -> None:
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
            for group in GROUPS:
                file.write(f',\n "{group}": ['.encode())
                spool = self._spools[group]
                spool.seek(0)
                shutil.copyfileobj(spool, file)
                file.write(b"\n ]" if group in self._started else b"]")
            file.write(b"\n}\n")
