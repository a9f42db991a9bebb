"""Read, index and write the receipts file: one receipt a line, without a header.

The lines of tasks that jobs started stand among them; their first field is ``descendant``.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic_core import from_json
from typing_extensions import Self

from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.writer import dump_fields
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.receipts import ExportedDescendant

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def receipt_line(kept: str) -> bytes:
    """Return a receipt's line, without its newline, from the JSON text that the ledger keeps."""
    return dump_fields(Receipt, from_json(kept))


def descendant_line(
    fields: Mapping[str, str | int | None], verdict: str | None, receipt: str | None
) -> bytes:
    """Return the line of a task that a job started, without its newline.

    ``fields``: of an ``ExportedDescendant``; its ``verdict`` and ``receipt`` as the ledger's JSON.
    """
    parts = [_dumps({"descendant": 1, **fields})[:-1].encode()]
    if verdict is not None:
        parts.append(b', "verdict": ' + verdict.encode())
    if receipt is not None:
        parts.append(b', "receipt": ' + receipt_line(receipt))
    return b"".join([*parts, b"}"])


_OF_DESCENDANT: Final = re.compile(rb'\s*\{\s*"descendant"\s*:').match
_TABLES: Final = """
    CREATE TABLE found (
        entry TEXT NOT NULL, attempt INTEGER NOT NULL, line INTEGER PRIMARY KEY,
        start INTEGER NOT NULL
    );
    CREATE INDEX of_entry ON found (entry);
    CREATE TABLE taken (entry TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE descendants (start INTEGER PRIMARY KEY, line INTEGER NOT NULL);
    CREATE TABLE reused (task_id TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
"""
_PLACES: Final = """
    SELECT entry, line, start FROM found WHERE entry IN (SELECT value FROM json_each(?))
    ORDER BY attempt, line
"""
_COUNTS: Final = """
    SELECT
        (SELECT count(*) FROM found WHERE entry NOT IN (SELECT entry FROM taken)),
        (SELECT coalesce(sum(n), 0) FROM (
            SELECT count(*) - count(DISTINCT attempt) AS n FROM found
            WHERE entry IN (SELECT entry FROM taken) GROUP BY entry
        ))
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """A receipt, and the same as JSON that any parser takes."""

    receipt: Receipt
    text: str


class ReceiptIndex:
    """The places of the receipts in a file, kept in a database that vanishes with this object.

    Of several receipts of an entry the last one of the highest attempt counts. Raises ManifestError
    where the file cannot be read; faults of its lines are noted, and raised by :meth:`finish`.
    """

    def __init__(self, path: Path) -> None:
        self.runs: set[str] = set()
        """The runs that the receipts are of; of those that a run has reused, that run."""
        self._faults = jsonl.Faults(path)
        self._file = jsonl.open_regular(path)
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        try:
            self._find_places()
        except BaseException:
            self.close()
            raise

    def _find_places(self) -> None:
        for line in jsonl.read_lines(self._file, self._faults):
            if _OF_DESCENDANT(line.raw):
                place = (line.offset, line.number)
                self._db.execute("INSERT INTO descendants VALUES (?, ?)", place)
                continue
            receipt = jsonl.parse_document(line, Receipt, self._faults)
            if receipt is None:
                continue
            run, entry, attempt = receipt.run, receipt.entry, receipt.attempt
            if (by := receipt.reused) is not None:
                run, entry, attempt = by.run, by.entry, 0
                added = (receipt.task_id, entry)
                self._db.execute("INSERT OR IGNORE INTO reused VALUES (?, ?)", added)
            self.runs.add(run)
            found = (entry, attempt, line.number, line.offset)
            self._db.execute("INSERT INTO found VALUES (?, ?, ?, ?)", found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        self._file.close()

    def take(self, entries: Sequence[str]) -> Iterator[Exported | None]:
        """Yield the receipts of these entries, in the order given; None: missing."""
        asked = (json.dumps(entries, ensure_ascii=False),)
        # Of each entry the last one stays: that of the highest attempt.
        places = {entry: (line, start) for entry, line, start in self._db.execute(_PLACES, asked)}
        taken = "INSERT OR IGNORE INTO taken SELECT value FROM json_each(?)"
        self._db.execute(taken, asked)
        for entry in entries:
            place = places.get(entry)
            yield None if place is None else self._read(*place)

    def reusing_entry(self, task_id: str) -> str | None:
        """Return the entry that reuses an attempt of an earlier run; None: it is the run's own."""
        row = self._db.execute("SELECT entry FROM reused WHERE task_id = ?", (task_id,)).fetchone()
        return None if row is None else str(row[0])

    def descendants(self) -> Iterator[ExportedDescendant]:
        """Yield the tasks that jobs started, in the file's order, without invalid ones."""
        for start, number in self._db.execute("SELECT start, line FROM descendants ORDER BY start"):
            self._file.seek(start)
            line = jsonl.Line(number, start, self._file.readline())
            one = jsonl.parse_document(line, ExportedDescendant, self._faults)
            if self._faults.enough(number):
                raise self._faults.error()
            if one is not None:
                yield one

    def finish(self) -> tuple[int, int]:
        """Count, after all entries were taken, the receipts of other entries and the duplicates.

        Duplicates are the taken receipts whose attempt has another receipt too. Raises
        ManifestError with every fault of the file (at most 20, and the number of the others).
        """
        self._faults.raise_any()
        strange, doubled = self._db.execute(_COUNTS).fetchone()
        return int(strange), int(doubled)

    def _read(self, line: int, start: int) -> Exported | None:
        self._file.seek(start)
        raw = self._file.readline()
        receipt = jsonl.parse_document(jsonl.Line(line, start, raw), Receipt, self._faults)
        if receipt is None:  # the file was changed meanwhile
            return None
        # An escape may be a lone surrogate, which parsing replaced.
        escaped = b"\\u" in raw
        return Exported(receipt, receipt.model_dump_json() if escaped else raw.decode())
