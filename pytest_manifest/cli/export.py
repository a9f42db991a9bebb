"""Write what a run has left in a format for other programs: ``manifest export``."""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.analysis.statistics import Statistics, statistics
from pytest_manifest.cli import ExportFormat
from pytest_manifest.cli.output import check_target, say, write_json
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.files import FILE_MODE, folder_of
from pytest_manifest.ledger import Statuses
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.manifest.writer import atomic_file, write_receipt_lines, writing
from pytest_manifest.run.exports import exported_lines
from pytest_manifest.verdict.explanation import failed_of, number_of

COLUMNS: Final = (
    *("id", "task", "line", "verdict", "sentence", "task_id", "attempts", "wait", "runtime"),
    *("worker", "sent_at", "started_at", "finished_at", "cost", "tags"),
    *("descendants", "descendants_failed", "reused_from"),
)
"""The columns of the CSV file; times are UTC, durations seconds."""


def run(
    run: StoredRun,
    form: ExportFormat,
    target: Path | None,
    mode: int,
    *,
    force: bool,
    json: bool,
) -> None:
    """Write the run in this format to a file of this mode; to stdout where ``target`` is None."""
    check_target(target, force=force, json=json)
    if target is None:
        with tempfile.TemporaryDirectory(prefix="manifest-export-") as folder:
            path = Path(folder) / "export"
            _WRITERS[form](run, path, Path.cwd(), FILE_MODE)
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    with writing(target):
        folder_of(target, mode)
    _WRITERS[form](run, target, target.parent, mode)
    if json:
        size = target.stat().st_size
        write_json({"run": run.info.run, "format": form.value, "file": str(target), "bytes": size})
    else:
        say(f"{form.value} of run {run.info.run} in {target}")


def _write_receipts(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    with run.read() as ledger:
        write_receipt_lines(path, exported_lines(ledger), mode=mode)


def _write_csv(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    with run.records() as records, run.read() as ledger, atomic_file(path, mode) as file:
        rows = csv.DictWriter(_Text(file.write), COLUMNS, extrasaction="ignore")
        rows.writeheader()
        while some := list(islice(records, BATCH)):
            roots = [one.last.task_id for one in some if one.last is not None]
            trees = ledger.trees.statuses_of(roots) if ledger.descendants.any() else {}
            rows.writerows(_row(one, trees) for one in some)


class _Text:
    """A file for the csv module, which writes text."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        """Write the text in UTF-8."""
        self._write(text.encode("utf-8", "surrogatepass"))


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


def _statistics(run: StoredRun, records: Iterator[EntryRecord]) -> Statistics:
    from pytest_manifest.reporting.descendants import read_trees

    with run.read() as ledger:
        parts, tree_end = ledger.info.segments(), ledger.trees.last_end()
        trees = read_trees(ledger)
    return statistics(records, run.info, parts, tree_end, trees)


def _write_summary(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.summary_files import SummaryWriter

    def noted(records: Iterator[EntryRecord]) -> Iterator[EntryRecord]:
        for record in records:
            writer.add(record)
            yield record

    with run.records() as records, SummaryWriter(run, Path.cwd()) as writer:
        writer.finish(_statistics(run, noted(records)), None)
        writer.write(path, mode)


def _write_markdown(run: StoredRun, path: Path, home: Path, mode: int) -> None:
    from pytest_manifest.reporting.github_summary import LocalLinks, markdown

    with run.records() as records:
        found = _statistics(run, records)
    text = markdown(run, found, None, LocalLinks(home), Path.cwd())
    with atomic_file(path, mode) as file:
        file.write(text.encode())


def _write_page(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.next_step import RunAgain, worker_logs
    from pytest_manifest.reporting.run_page.columns import trees_of
    from pytest_manifest.reporting.run_page.page import PageMetadata, write_page
    from pytest_manifest.text import short_path

    with run.read() as ledger, run.records() as records:
        metadata = PageMetadata(
            run.info,
            ledger.info.status,
            ledger.attempts.count_entries(),
            segments=ledger.info.segments(),
            trees=trees_of(ledger),
            again=RunAgain(short_path(run.manifest.path, Path.cwd())),
            logs=list(worker_logs(run, path.parent)),
        )
        write_page(path, metadata, records, mode)


_WRITERS: Final[Mapping[ExportFormat, Callable[[StoredRun, Path, Path, int], None]]] = {
    ExportFormat.RECEIPTS: _write_receipts,
    ExportFormat.SUMMARY: _write_summary,
    ExportFormat.CSV: _write_csv,
    ExportFormat.MARKDOWN: _write_markdown,
    ExportFormat.PAGE: _write_page,
}
