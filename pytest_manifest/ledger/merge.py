"""Merge ledgers into one: SQLite copies their rows, in constant memory."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import private_folder
from pytest_manifest.ledger.database import LAST_SEQ
from pytest_manifest.ledger.files import refuse_network, sqlite_uri
from pytest_manifest.ledger.rows import RunSegment, text
from pytest_manifest.ledger.run_info import setting
from pytest_manifest.ledger.tables import LEDGER_VERSION, TABLES, VIEWS
from pytest_manifest.manifest.writer import sync

# The file becomes visible only when complete and synced, so it needs no journal.
_SETTINGS = ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536")
_SHIFTED: Final[Mapping[str, Mapping[str, str]]] = {
    "run": {"n": "run", "seq": "seq"},
    "segments": {"run": "run", "n": "segments"},
    "jobs": {
        "n": "jobs",
        "entry": "jobs",
        "root": "jobs",
        "run": "run",
        "seq": "seq",
        "sending": "seq",
    },
    "facts": {"seq": "seq", "job": "jobs", "run": "run"},
    "verdicts": {"seq": "seq", "entry": "jobs", "job": "jobs", "corrects": "seq", "end": "seq"},
}
"""Columns with numbers of a ledger's own, and of what: each ledger's come after those of the
ledgers before it. A 0 is none."""
_HIGHEST: Final = {
    "run": "SELECT max(n) FROM part.run",
    "segments": "SELECT coalesce(max(n), 0) FROM part.segments",
    "jobs": "SELECT coalesce(max(n), 0) FROM part.jobs",
    "seq": LAST_SEQ.format("part"),
}
_SAME_ENTRY: Final = """
    SELECT p.name FROM part.jobs p JOIN main.jobs m ON m.name = p.name ORDER BY p.n LIMIT 1
"""
_SAME_JOB: Final = """
    SELECT m.name, p.name FROM part.jobs p JOIN main.jobs m ON m.id = p.id
    WHERE p.state = 'reused' LIMIT 1
"""


def merge_files(
    target: Path,
    sources: Sequence[Path],
    metadata: Mapping[str, str | int | None],
    segments: Sequence[RunSegment],
) -> None:
    """Create at ``target`` a ledger with all rows of ``sources``, which stay as they are.

    ``metadata``: columns of its own run, or of those merged by the names of ``run_info.key_of``;
    ``segments``: those of its own. All are of the present version. Raises
    LedgerError where an entry is in two of them, or the file cannot be written; then ``target``
    does not exist.
    """
    try:
        private_folder(target.parent)
        refuse_network(target.parent)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            _merge_into(made, sources, metadata, segments)
            sync(made)
            made.chmod(0o600)
            made.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{target}: the merged ledger cannot be written ({error}); name a local folder that is "
            "writable and has free space"
        ) from error


def _merge_into(
    path: Path,
    sources: Sequence[Path],
    metadata: Mapping[str, str | int | None],
    segments: Sequence[RunSegment],
) -> None:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rwc", uri=True)) as db:
        db.isolation_level = None
        for pragma in _SETTINGS:
            db.execute(f"PRAGMA {pragma}")
        for statement in (*TABLES, *VIEWS):
            db.execute(statement)
        before = {"run": 1, "segments": len(segments), "jobs": 0, "seq": 0}
        for source in sources:
            db.execute("ATTACH ? AS part", (sqlite_uri(source, "ro"),))
            db.execute("BEGIN")
            _refuse_duplicates(db, sources)
            for table, shifted in _SHIFTED.items():
                _copy(db, table, {one: before[of] for one, of in shifted.items()})
            for of, query in _HIGHEST.items():
                before[of] += db.execute(query).fetchone()[0]
            db.execute("COMMIT")
            db.execute("DETACH part")
        db.execute("INSERT INTO run (n) VALUES (1)")
        own = {**metadata, "ledger": LEDGER_VERSION, "seq": before["seq"]}
        for key, value in own.items():
            db.execute(*setting(key, value))
        db.executemany(
            "INSERT INTO segments (n, run, started, stopped) VALUES (?, 1, ?, ?)",
            ((n, text(one.started), text(one.stopped)) for n, one in enumerate(segments, 1)),
        )
        db.execute("PRAGMA journal_mode = WAL")


def _copy(db: sqlite3.Connection, table: str, shifts: Mapping[str, int]) -> None:
    """Copy the rows of a table, their own numbers moved."""
    columns = [str(row[1]) for row in db.execute(f"PRAGMA main.table_info({table})")]
    names = ", ".join(f'"{one}"' for one in columns)
    values = ", ".join(
        f'CASE WHEN "{one}" <> 0 THEN "{one}" + {shifts[one]} ELSE "{one}" END'
        if one in shifts
        else f'"{one}"'
        for one in columns
    )
    db.execute(f"INSERT INTO main.{table} ({names}) SELECT {values} FROM part.{table}")  # noqa: S608 - fixed text


def _refuse_duplicates(db: sqlite3.Connection, sources: Sequence[Path]) -> None:
    row = db.execute(_SAME_ENTRY).fetchone()
    if row is not None:
        raise LedgerError(_duplicate_message(str(row[0]), sources))
    row = db.execute(_SAME_JOB).fetchone()
    if row is not None:
        raise LedgerError(
            f"entries {row[0]!r} and {row[1]!r} were both reused from one job of an earlier run, "
            "which can be of one of them alone; run one of their shards again, without "
            "--manifest-reuse, and merge that"
        )


def _duplicate_message(entry: str, sources: Sequence[Path]) -> str:
    """Build the message that names the ledgers with this entry."""
    found: list[str] = []
    for source in sources:
        with closing(sqlite3.connect(sqlite_uri(source, "ro"), uri=True)) as db:
            if db.execute("SELECT 1 FROM jobs WHERE name = ? LIMIT 1", (entry,)).fetchone():
                found.append(str(source))
    return (
        f"entry {entry!r} is in {' and in '.join(found[:2])}: it was sent twice, and which of the "
        "two counts is not known; leave one of these ledgers out"
    )
