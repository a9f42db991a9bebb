"""A ledger with rows that this program cannot have written: read, or told by a sentence."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from pytest_manifest.analysis.reading import read_records
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.run.audit import violations
from pytest_manifest.run.exports import exported_lines
from pytest_manifest.verdict.judging import Costs
from tests.fuzz.lines import foreign, objects
from tests.fuzz.made_run import ENTRIES, RUN, finished_ledger, made_manifest
from tests.fuzz.oracles import expect_refusal, expect_sentence, scratch
from tests.fuzz.verdicts import MOST_EXPLAINED
from tests.reports import all_receipts, starts_by_task

TABLES: Final = (
    "run", "segments", "attempts", "starts", "receipts", "settled", "corrections", "handed_on",
    "descendants", "announced",
)  # fmt: skip
NAMES: Final = [entry.id for entry in ENTRIES]
MOST: Final = 20
_number = count()


@cache
def _whole() -> bytes:
    return finished_ledger("whole").read_bytes()


@cache
def _columns(table: str) -> tuple[str, ...]:
    with closing(sqlite3.connect(scratch() / "whole" / f"{RUN}.sqlite")) as db:
        return tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))


def check(data: bytes) -> None:
    """Change the ledger by each line, then read all that sessions, reports and checks read.

    ``{"flip": [place, bit]}`` flips a bit of the file; ``{"table": "receipts", "row": 0,
    "set": {"receipt": ...}}`` changes a row, without ``row`` it adds one, ``"delete": true``
    removes it.
    """
    changes = objects(data)[:MOST]
    content = bytearray(_whole())
    for one in changes:
        _flip(content, one.get("flip"))
    folder = scratch() / f"ledger-{next(_number)}"
    folder.mkdir()
    path = folder / f"{RUN}.sqlite"
    path.write_bytes(content)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for one in changes:
                with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError, ValueError):
                    _change(db, one)
        read_everything(path)
    except sqlite3.Error:
        raise
    except ManifestToolError as error:
        expect_refusal(error)
    finally:
        for file in folder.glob("*"):
            file.unlink()
        folder.rmdir()


def _flip(content: bytearray, spot: Any) -> None:
    if isinstance(spot, list) and len(spot) == 2 and all(isinstance(n, int) for n in spot):
        content[spot[0] % len(content)] ^= 1 << spot[1] % 8


def _change(db: sqlite3.Connection, one: dict[str, Any]) -> None:
    table, values = one.get("table"), one.get("set")
    if table not in TABLES:
        return
    row = one.get("row")
    which = f"rowid_of({row})"
    if isinstance(row, int) and one.get("delete") is True:
        db.execute(f"DELETE FROM {table} WHERE {_nth(db, table, row)}")
        return
    if not isinstance(values, dict):
        return
    known = {name: value for name, value in values.items() if name in _columns(table)}
    given = {name: _stored(value) for name, value in known.items()}
    if not given:
        return
    if isinstance(row, int):
        names = ", ".join(f"{name} = ?" for name in given)
        which = _nth(db, table, row)
        db.execute(f"UPDATE OR REPLACE {table} SET {names} WHERE {which}", (*given.values(),))
    else:
        marks = ", ".join("?" * len(given))
        names = ", ".join(given)
        db.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", (*given.values(),))


def _nth(db: sqlite3.Connection, table: str, row: int) -> str:
    """Return a condition that is true of the row at this place: not each table has a rowid."""
    columns = _columns(table)
    found = db.execute(
        f"SELECT {', '.join(map('quote({})'.format, columns))} FROM {table} LIMIT 1 OFFSET ?",
        (abs(row) % 4,),
    ).fetchone()
    if found is None:
        return "0"
    return " AND ".join(f"{name} IS {value}" for name, value in zip(columns, found, strict=True))


def _stored(value: Any) -> Any:
    """Return a value as SQLite may hold it; what is an object is stored as JSON text."""
    made = foreign(value)
    if isinstance(made, (dict, list)):
        import json

        return json.dumps(value, ensure_ascii=False)
    return made


def read_everything(path: Path) -> None:
    """Read as a session, its reports, its summary, an export and a check do."""
    manifest = made_manifest()
    find_runs(path.parent, sha256=manifest.sha256)
    find_runs(path.parent, manifest.path)
    with Ledger.open(path) as ledger:
        for read in _readings(ledger):
            _tell(read)
        for record in read_records(ledger, manifest):
            expect_sentence(record.id, 300)
        Costs(ledger, manifest).total()
        with closing(violations(ledger, manifest)) as broken:
            for violation in broken:
                expect_sentence(violation.sentence, MOST_EXPLAINED)


def _readings(ledger: Ledger) -> Iterator[object]:
    info, attempts, events, queries = ledger.info, ledger.attempts, ledger.events, ledger.queries
    yield info.read
    yield lambda: info.status
    yield from (info.shards, info.merged, info.segments, info.sent_on_request)
    yield from (attempts.send_states, attempts.reasons, attempts.count_entries, attempts.all)
    yield from (events.last_arrival, partial(starts_by_task, ledger), partial(all_receipts, ledger))
    yield from (ledger.verdicts.statuses, ledger.verdicts.counts)
    yield from (queries.runtimes, queries.all_verdicts, queries.has_costs)
    yield lambda: queries.histories(NAMES)
    yield lambda: queries.not_passed(NAMES)
    yield lambda: queries.runtime_of(NAMES)
    yield lambda: [one.parse() for _, one in ledger.verdicts.stored_from(NAMES[0], 20)]
    yield lambda: exported_lines(ledger)
    yield ledger.verdicts.refuse_contradictions


def _tell(read: Any) -> None:
    """Read it, to its end; a refusal is a sentence, and what else can be read is read, too."""
    try:
        found = read()
        if isinstance(found, Iterator):
            for _ in found:
                pass
    except ManifestToolError as error:
        expect_refusal(error)
