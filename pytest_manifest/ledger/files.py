"""The files of ledgers: file systems, connections, tables and versions, and a folder's runs."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.rows import MERGED
from pytest_manifest.ledger.run_files import ledgers_in

NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "9p", "afs", "gpfs", "beegfs", "orangefs"),
    *("sshfs", "s3fs", "goofys", "gcsfuse", "rclone", "juicefs", "davfs", "curlftpfs", "moosefs"),
    "autofs",
)
"""Prefixes of file system types on which SQLite's WAL cannot rely on locks and shared memory, the
kernel's or FUSE's; an automounter counts where nothing is mounted on it."""
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""An escaped character, such as a space, in a list of mounts."""
_NUMBER = re.compile(r"[0-9]{1,15}")
DAMAGE_ERRORS = (sqlite3.Error, UnicodeError)
"""What the sqlite3 module raises on a damaged file; UnicodeError where the message is no text."""
BUSY_SECONDS = 30.0
"""Seconds that a connection waits for another process that writes."""
CACHE_KB = 32_000
"""How much of a ledger a writing connection may cache, in kB; SQLite's default is 2,000. Receipts
come in no order, so each may touch another page of an index."""


def connect(
    path: Path, mode: Literal["rw", "ro"] = "rw", *, keep_journal: bool = False
) -> sqlite3.Connection:
    """Connect to an existing file, without automatic transactions.

    ``keep_journal``: the kind of journal stays as it is, so that a file of which nothing comes is
    not changed. Raises sqlite3.Error where there is no such file, or it is no database.
    """
    if path.exists() and not path.is_file():  # SQLite would wait for a pipe's writer
        raise sqlite3.OperationalError("it is no regular file")
    db = sqlite3.connect(sqlite_uri(path, mode), uri=True, timeout=BUSY_SECONDS)
    db.isolation_level = None
    try:
        if mode == "rw" and not keep_journal:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def refuse_cut(path: Path, db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the file's last page is not whole.

    SQLite reads what is missing of it as zeros. While a write-ahead log is there, it may hold that
    page.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return
    (page_size,) = db.execute("PRAGMA page_size").fetchone()
    if path.stat().st_size % page_size:
        raise sqlite3.DatabaseError("it is cut off within a page")


def sqlite_uri(path: Path, mode: Literal["rw", "ro"]) -> str:
    """Return the file's URI for SQLite, to open or attach it by."""
    alone = "&immutable=1" if mode == "ro" and _cannot_change(path) else ""
    # Not resolve(), which raises RuntimeError of links that lead to themselves.
    return f"{Path(os.path.realpath(path)).as_uri()}?mode={mode}{alone}"


def _cannot_change(path: Path) -> bool:
    """Return whether the file is complete and in a folder that is not writable.

    SQLite reads a file in WAL mode there only as immutable: else it would create files beside it.
    """
    wal = path.with_name(f"{path.name}-wal")
    return path.is_file() and not wal.exists() and not os.access(path.parent, os.W_OK)


def find_runs(folder: Path) -> list[Path]:
    """Return the ledgers in ``folder`` that can be read, oldest first."""
    return [path for path, _ in _runs(folder)]


def find_runs_by_digest(folder: Path, sha256: str) -> list[Path]:
    """Return the ledgers in ``folder`` of runs of the manifest with this digest, oldest first."""
    return [path for path, noted in _runs(folder) if noted.get("sha256") == sha256]


def find_runs_of_manifest(folder: Path, manifest: Path, sha256: str | None = None) -> list[Path]:
    """Return the ledgers in ``folder`` of runs of the manifest at this path, oldest first.

    The manifest's content then does not matter. With ``sha256`` runs of a manifest with this digest
    count as well, wherever it was.
    """
    name = str(manifest.resolve())
    return [
        path
        for path, noted in _runs(folder)
        if noted.get("manifest") == name or (sha256 is not None and noted.get("sha256") == sha256)
    ]


def _runs(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield each run in the folder with its metadata, oldest first.

    Ledgers of other versions, or cut off at creation, are skipped. A merged run is as old as the
    oldest of its runs, and comes after it. Creation times decide only between runs with the same
    number (from different folders), because a clock can be set back.
    """
    found: list[tuple[int, str, bool, Path, dict[str, str]]] = []
    for path in ledgers_in(folder):
        with suppress(OSError, *DAMAGE_ERRORS), closing(connect(path, "ro")) as db:
            if version_of(db) == str(LEDGER_VERSION):
                rows = db.execute("SELECT key, value FROM run").fetchall()
                noted = {str(key): str(value) for key, value in rows}
                age = run_number_of(noted), noted.get("created_at", ""), MERGED in noted
                found.append((*age, path, noted))
    return ((path, noted) for *_, path, noted in sorted(found, key=lambda one: one[:4]))


def run_number_of(noted: Mapping[str, str]) -> int:
    """Return a run's number in the order in which a folder's runs began; 0: it has none."""
    text = noted.get("number", "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def next_run_number(folder: Path) -> int:
    """Return a number above those of all runs in the folder, unreadable ones included."""
    numbers = [run_number_of(noted) for _, noted in _runs(folder)]
    numbers += [run_number_of_lock(path) for path in folder.glob("*.lock")]
    return max(numbers, default=0) + 1


def run_number_of_lock(lock: Path) -> int:
    """Read a run's number from its lock file, which has it for when the ledger is damaged."""
    try:
        return run_number_of({"number": lock.read_text("ascii").strip()})
    except (OSError, ValueError):
        return 0


def refuse_network(folder: Path) -> None:
    """Raise LedgerError where the folder is on a network file system."""
    kind = file_system(folder)
    if kind.removeprefix("fuse.").startswith(NETWORK_FILE_SYSTEMS):
        raise LedgerError(
            f"{folder}: lies on a network file system ({kind}), where a ledger is not safe; "
            "name a local folder with the ini option manifest_dir"
        )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of a folder's file system; "" where the system does not tell."""
    if not mounts.is_file():
        return ""
    place = folder.resolve()
    with suppress(OSError):
        os.scandir(place).close()  # an automounter mounts a folder when it is read
    rows = [line.split() for line in mounts.read_text("utf-8", "replace").splitlines()]
    around = [row for row in rows if place.is_relative_to(_ESCAPED.sub(_unescaped, row[1]))]
    # The last of several mounts on one path is on top: an automounter's is below what it mounts.
    return max(reversed(around), key=lambda row: len(row[1]))[2] if around else ""


def _unescaped(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))


LEDGER_VERSION = 1

TABLES: Sequence[str] = (
    "CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE attempts (
        task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT,
        reason TEXT, kind TEXT, verdict TEXT, reused_from TEXT,
        starts_lost INTEGER NOT NULL DEFAULT 0, set_back REAL NOT NULL DEFAULT 0,
        seq INTEGER NOT NULL DEFAULT 0, sending INTEGER NOT NULL DEFAULT 0, cause TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX attempts_by_entry ON attempts (entry, attempt)",
    """
    CREATE TABLE starts (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, started_at TEXT, retries INTEGER NOT NULL,
        worker TEXT, host TEXT, pid INTEGER, redelivered INTEGER NOT NULL,
        boot TEXT, pid_namespace TEXT,
        hop INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE handed_on (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, how TEXT NOT NULL, ended_at TEXT,
        next_at TEXT, cost REAL, seq INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
    """,
    # What a receipt found when it came. Times do not say: clocks are set back, and an attempt that
    # is sent once more is of a later time.
    """
    CREATE TABLE receipts (
        seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, execution TEXT,
        receipt TEXT NOT NULL, arrived_at TEXT NOT NULL, newest_attempt INTEGER,
        after_verdict INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX receipts_by_task ON receipts (task_id)",
    """
    CREATE TABLE settled (
        seq INTEGER PRIMARY KEY, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
        kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE descendants (
        task_id TEXT PRIMARY KEY, root TEXT NOT NULL, parent TEXT NOT NULL, task TEXT NOT NULL,
        how TEXT NOT NULL, queue TEXT, fulfils TEXT, spawned_at TEXT, kind TEXT, verdict TEXT,
        chords TEXT, due TEXT, broker TEXT, starts_lost INTEGER NOT NULL DEFAULT 0,
        seq INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE INDEX descendants_by_root ON descendants (root, kind)",
    """
    CREATE TABLE announced (
        root TEXT NOT NULL, key TEXT NOT NULL, announcer TEXT NOT NULL, how TEXT NOT NULL,
        task TEXT NOT NULL, number INTEGER NOT NULL, task_ids TEXT NOT NULL,
        is_off INTEGER NOT NULL, seq INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (root, key, announcer)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE corrections (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, attempt INTEGER,
        was TEXT NOT NULL, kind TEXT NOT NULL, told_at TEXT NOT NULL, corrected_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE facts (
        seq INTEGER PRIMARY KEY, entry INTEGER NOT NULL, job INTEGER NOT NULL,
        kind INTEGER NOT NULL, at INTEGER NOT NULL, source INTEGER NOT NULL, execution TEXT,
        hop INTEGER, retries INTEGER, redelivered INTEGER, worker TEXT, pid INTEGER, data TEXT
    )
    """,
    "CREATE INDEX facts_by_entry ON facts (entry)",
    "CREATE TABLE numbers (n INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL)",
    "CREATE UNIQUE INDEX numbers_by_name ON numbers (kind, name)",
)


@lru_cache(maxsize=1)
def type_queries() -> Mapping[str, str]:
    """Return, for each table, a query for a value that is not of its column's type.

    SQLite keeps values of any type in any column. What is found is the column's name.
    """
    found = {}
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in TABLES:
            db.execute(statement)
        tables = [str(row[0]) for row in db.execute(_TABLE_NAMES)]
        for table in tables:
            columns = db.execute(f"PRAGMA table_info({table})").fetchall()
            tests = [
                (name, f"typeof({name}) NOT IN ('{kind.lower()}'{'' if needed else _OR_NULL})")
                for _, name, kind, needed, _, _ in columns
            ]
            which = " ".join(f"WHEN {test} THEN '{name}'" for name, test in tests)
            where = " OR ".join(test for _, test in tests)
            found[table] = f"SELECT CASE {which} END FROM {table} WHERE {where} LIMIT 1"  # noqa: S608 - fixed text
    return found


_TABLE_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
_OR_NULL = ", 'null'"


def version_of(db: sqlite3.Connection) -> str | None:
    """Return the version that a ledger states, None where it states none.

    Raises sqlite3.Error where the file is no ledger.
    """
    row = db.execute("SELECT value FROM run WHERE key = 'ledger'").fetchone()
    return None if row is None else str(row[0])
