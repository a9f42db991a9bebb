"""Write what a run has left in a format for other programs: ``manifest export``."""

from __future__ import annotations

import codecs
import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer, check_target
from pytest_manifest.cli.stored_run import StoredRun, report_mode
from pytest_manifest.files import FILE_MODE, folder_of
from pytest_manifest.ledger import Statuses
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest.writer import atomic_file, write_receipt_lines, writing
from pytest_manifest.verdict.explanation import failed_of, number_of

COLUMNS: Final = (
    *("id", "task", "line", "verdict", "sentence", "task_id", "attempts", "wait", "runtime"),
    *("worker", "sent_at", "started_at", "finished_at", "cost", "tags"),
    *("descendants", "descendants_failed", "reused_from"),
)
"""The columns of the CSV file; times are UTC, durations seconds."""


class ExportFormat(str, Enum):
    """The formats of ``manifest export``."""

    RECEIPTS = "receipts"
    SUMMARY = "summary"
    CSV = "csv"
    MARKDOWN = "markdown"
    PAGE = "page"


def export(
    run: arguments.RunId,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            "-f",
            help="receipts: JSON lines; summary: a JSON document; csv: a row an entry; markdown, "
            "page: the report of what was completed",
        ),
    ] = ExportFormat.RECEIPTS,
    output: arguments.Output = None,
    force: arguments.Force = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Write what a run has left, in five formats.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    stored, mode = StoredRun.named(run, folder), report_mode()
    check_target(output, force=force, json=json)
    if output is None:
        with tempfile.TemporaryDirectory(prefix="manifest-export-") as scratch:
            path = Path(scratch) / "export"
            _WRITERS[form](stored, path, Path.cwd(), FILE_MODE)
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    with writing(output):
        folder_of(output, mode)
    _WRITERS[form](stored, output, output.parent, mode)
    name, size = stored.info.run, output.stat().st_size
    document: dict[str, JsonValue] = {"run": name, "format": form.value, "file": str(output)}
    answer(document | {"bytes": size}, [f"{form.value} of run {name} in {output}"], json=json)


def _write_receipts(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.run.exports import exported_lines

    with run.read() as ledger:
        write_receipt_lines(path, exported_lines(ledger), mode=mode)


def _write_csv(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    with run.records() as records, run.read() as ledger, atomic_file(path, mode) as file:
        text = codecs.getwriter("utf-8")(file, "surrogatepass")
        rows = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        rows.writeheader()
        while some := list(islice(records, BATCH)):
            roots = [one.last.task_id for one in some if one.last is not None]
            trees = ledger.trees.statuses_of(roots) if ledger.descendants.any() else {}
            rows.writerows(_row(one, trees) for one in some)


def _row(record: EntryRecord, trees: Mapping[str, Statuses]) -> Mapping[str, object]:
    last = record.last
    origin = record.reused_from
    row: dict[str, object] = {**summary_fields(record), "tags": " ".join(record.entry.tags)}
    row["reused_from"] = None if origin is None else origin.run
    if last is not None:
        moments = {name: getattr(last, name) for name in ("sent_at", "started_at", "finished_at")}
        row |= {name: moment and moment.isoformat() for name, moment in moments.items()}
        row |= {"worker": last.worker, "cost": last.cost}
        if last.task_id in trees:
            counts = trees[last.task_id]
            row |= {"descendants": number_of(counts), "descendants_failed": failed_of(counts)}
    return row


def _write_summary(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.summary import SummaryWriter, make_summary

    with SummaryWriter() as writer:
        writer.finish(make_summary(run, Path.cwd(), take=writer.add))
        writer.write(path, mode)


def _write_markdown(run: StoredRun, path: Path, home: Path, mode: int) -> None:
    from pytest_manifest.reporting.markdown import Links, markdown
    from pytest_manifest.reporting.summary import make_summary

    text = markdown(run, make_summary(run, Path.cwd()), Links(home), Path.cwd())
    with atomic_file(path, mode) as file:
        file.write(text.encode())


def _write_page(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.run_page.page import PageMetadata, write_page_of
    from pytest_manifest.reporting.summary import make_summary

    about = PageMetadata(make_summary(run, Path.cwd()))
    write_page_of(run, path, about, Path.cwd(), mode)


_WRITERS: Final[Mapping[ExportFormat, Callable[[StoredRun, Path, Path, int], None]]] = {
    ExportFormat.RECEIPTS: _write_receipts,
    ExportFormat.SUMMARY: _write_summary,
    ExportFormat.CSV: _write_csv,
    ExportFormat.MARKDOWN: _write_markdown,
    ExportFormat.PAGE: _write_page,
}
