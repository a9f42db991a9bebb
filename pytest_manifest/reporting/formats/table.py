"""Make a row of each entry of a run, for tables, and write them as CSV."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.records import EntryRecord, summary_fields
from pytest_manifest.ledger import Statuses
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.reporting.summary import records_of
from pytest_manifest.schema.summary import RunSummary
from pytest_manifest.verdict.explanation import failed_of, number_of

COLUMNS: Final = (
    *("id", "task", "line", "verdict", "sentence", "task_id", "attempts", "wait", "runtime"),
    *("worker", "sent_at", "started_at", "finished_at", "cost", "tags"),
    *("descendants", "descendants_failed", "reused_from"),
)
"""The columns of the CSV file; times are UTC, durations seconds."""
Row = Mapping[str, object]


def write(run: ReportedRun, _summary: RunSummary, path: Path, mode: int) -> None:
    """Write CSV, with a header, in UTF-8."""
    with atomic_file(path, mode) as file:
        text = codecs.getwriter("utf-8")(file, "surrogatepass")
        rows = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        rows.writeheader()
        for some in batches_of_rows(run):
            rows.writerows(map(_with_texts, some))


def batches_of_rows(run: ReportedRun) -> Iterator[list[Row]]:
    """Yield the rows of some entries after the other, in the manifest's order.

    Moments are datetimes, tags a list. Raises LedgerError or ManifestError.
    """
    with records_of(run) as records, run.read() as ledger:
        while some := list(islice(records, BATCH)):
            roots = [one.last.task_id for one in some if one.last is not None]
            trees = ledger.trees.statuses_of(roots) if ledger.descendants.any() else {}
            yield [_row(one, trees) for one in some]


def _row(record: EntryRecord, trees: Mapping[str, Statuses]) -> Row:
    last, origin = record.last, record.reused_from
    row: dict[str, object] = {**summary_fields(record), "tags": record.entry.tags}
    row["reused_from"] = None if origin is None else origin.run
    if last is not None:
        row |= {name: getattr(last, name) for name in ("sent_at", "started_at", "finished_at")}
        row |= {"worker": last.worker, "cost": last.cost}
        if last.task_id in trees:
            counts = trees[last.task_id]
            row |= {"descendants": number_of(counts), "descendants_failed": failed_of(counts)}
    return row


def _with_texts(row: Row) -> Row:
    moments = {name: row.get(name) for name in ("sent_at", "started_at", "finished_at")}
    texts = {name: one.isoformat() for name, one in moments.items() if hasattr(one, "isoformat")}
    tags = row["tags"]
    return {**row, **texts, "tags": " ".join(tags) if isinstance(tags, list) else ""}
