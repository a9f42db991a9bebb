"""Write a run's entries as Parquet, for pandas, DuckDB and warehouses: a row an entry.

Each row has run and manifest, so that many runs are read as one table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.formats.table import batches_of_rows
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.schema.summary import RunSummary

_MOMENT: Final = pa.timestamp("us", "UTC")
_TEXT: Final = pa.string()
_COLUMNS: Final = (
    *(("run", _TEXT), ("manifest", _TEXT), ("run_created_at", _MOMENT)),
    *(("id", _TEXT), ("task", _TEXT), ("line", pa.int64())),
    *(("verdict", _TEXT), ("sentence", _TEXT), ("task_id", _TEXT), ("attempts", pa.int32())),
    *(("wait", pa.float64()), ("runtime", pa.float64()), ("worker", _TEXT)),
    *(("sent_at", _MOMENT), ("started_at", _MOMENT), ("finished_at", _MOMENT)),
    *(("cost", pa.float64()), ("tags", pa.list_(_TEXT))),
    *(("descendants", pa.int64()), ("descendants_failed", pa.int64())),
    ("reused_from", _TEXT),
)
SCHEMA: Final = pa.schema(_COLUMNS)
"""The columns; durations in seconds, cost in the entries' unit."""


def write(run: ReportedRun, summary: RunSummary, path: Path, mode: int) -> None:
    """Write one file, a row group for some thousands of entries."""
    about = {
        "run": summary.run.run,
        "manifest": summary.run.manifest,
        "run_created_at": summary.run.created_at,
    }
    with atomic_file(path, mode) as file, parquet.ParquetWriter(file, SCHEMA) as writer:
        for some in batches_of_rows(run):
            rows = [{**about, **row} for row in some]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
