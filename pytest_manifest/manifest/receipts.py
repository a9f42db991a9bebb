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

from pydantic import JsonValue
from pydantic_core import from_json
from typing_extensions import Self

from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.writer import dump_fields
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.fields import RULE, is_identifier
from pytest_manifest.schema.receipts import ExportedDescendant

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def receipt_line(kept: str, judged: Mapping[str, JsonValue] | None = None) -> bytes:
    """Return a receipt's line, without its newline, from the JSON text that the ledger keeps.

    ``judged``: how its run judged it, without fields that are null.
    """
    return dump_fields(Receipt, {**from_json(kept), "judged": judged})


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


_AS_WE_WRITE: Final = re.compile(
    rb'\{"receipt": 1, "run": "([^"\\]*)", "entry": "([^"\\]*)", "attempt": ([0-9]{1,9}),'
).match
_MAY_BE_REUSED: Final = b'"reused"'
_OF_DESCENDANT: Final = re.compile(rb'\s*\{\s*"descendant"\s*:').match
_BATCH: Final = 500
_TABLES: Final = """
    CREATE TABLE places (
        entry TEXT PRIMARY KEY, attempt INTEGER NOT NULL, line INTEGER NOT NULL,
        start INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE others (
        entry TEXT NOT NULL, same INTEGER NOT NULL, line INTEGER NOT NULL, start INTEGER NOT NULL
    );
    CREATE TABLE descendants (start INTEGER PRIMARY KEY, line INTEGER NOT NULL);
    CREATE TABLE reused (task_id TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
"""
_TAKE: Final = (
    "DELETE FROM places WHERE entry IN (SELECT value FROM json_each(?)) "
    "RETURNING entry, line, start"
)
_STRANGE: Final = """
    SELECT (SELECT count(*) FROM places)
        + (SELECT count(*) FROM others WHERE entry IN (SELECT entry FROM places))
"""
_DOUBLED: Final = (
    "SELECT count(*) FROM others WHERE same AND entry NOT IN (SELECT entry FROM places)"
)
_ADD_REUSED: Final = "INSERT OR IGNORE INTO reused VALUES (?, ?)"
_Place = tuple[str, int, int, int]
"""Entry, attempt, number of the line, its offset."""


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
            jsonl.refuse_long_lines(self._file, path)
            self._find_places()
        except BaseException:
            self.close()
            raise

    def _find_places(self) -> None:
        places: list[_Place] = []
        for line in jsonl.read_lines(self._file, self._faults):
            if self._faults.enough(line.number):
                raise self._faults.error()
            if _OF_DESCENDANT(line.raw):
                rows = "INSERT INTO descendants VALUES (?, ?)"
                self._db.execute(rows, (line.offset, line.number))
                continue
            place = self._place(line)
            if place is not None:
                places.append(place)
            if len(places) == _BATCH:
                self._add(places)
                places.clear()
        self._add(places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        self._file.close()

    def take(self, entries: Sequence[str]) -> Iterator[Exported | None]:
        """Yield the receipts of these entries, in the order given; None: missing or invalid.

        Each entry can be taken once.
        """
        rows = self._db.execute(_TAKE, (json.dumps(entries, ensure_ascii=False),)).fetchall()
        places = {entry: (line, start) for entry, line, start in rows}
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
        left = "SELECT line, start FROM places UNION ALL SELECT line, start FROM others ORDER BY 2"
        for line, start in self._db.execute(left):
            self._read(line, start)
        self._faults.raise_any()
        return self._number(_STRANGE), self._number(_DOUBLED)

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _place(self, line: jsonl.Line) -> _Place | None:
        told = None if _MAY_BE_REUSED in line.raw else _AS_WE_WRITE(line.raw)
        if told is None:  # not in this package's form, so the whole line is parsed
            receipt = jsonl.parse_document(line, Receipt, self._faults)
            if receipt is None:
                return None
            if (by := receipt.reused) is not None:
                self.runs.add(by.run)
                self._db.execute(_ADD_REUSED, (receipt.task_id, by.entry))
                return by.entry, 0, line.number, line.offset
            self.runs.add(receipt.run)
            return receipt.entry, receipt.attempt, line.number, line.offset
        run = told[1].decode(errors="replace")
        if run not in self.runs and not is_identifier(run):
            self._faults.add(line.number, f"'run': {RULE}")
            return None
        self.runs.add(run)
        return told[2].decode(errors="replace"), int(told[3]), line.number, line.offset

    def _add(self, places: Sequence[_Place]) -> None:
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", places)
        if self._db.total_changes - before < len(places):
            for place in places:
                self._choose(*place)

    def _choose(self, entry: str, attempt: int, line: int, start: int) -> None:
        """Keep this place or the one that is known, and put the other one aside."""
        query = "SELECT attempt, line, start FROM places WHERE entry = ?"
        known, *other = self._db.execute(query, (entry,)).fetchone()
        if other == [line, start]:
            return
        if attempt >= known:
            self._db.execute(
                "REPLACE INTO places VALUES (?, ?, ?, ?)", (entry, attempt, line, start)
            )
        else:
            other = [line, start]
        self._db.execute(
            "INSERT INTO others VALUES (?, ?, ?, ?)", (entry, attempt == known, *other)
        )

    def _read(self, line: int, start: int) -> Exported | None:
        self._file.seek(start)
        raw = self._file.readline()
        receipt = jsonl.parse_document(jsonl.Line(line, start, raw), Receipt, self._faults)
        if self._faults.enough(line):
            raise self._faults.error()
        if receipt is None:
            return None
        # An escape may be a lone surrogate, which parsing replaced.
        escaped = b"\\u" in raw
        return Exported(receipt, receipt.model_dump_json() if escaped else raw.decode())
