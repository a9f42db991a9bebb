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
from pytest_manifest.ledger.rows import FACT_TABLES, MERGED
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

    Ledgers of unknown versions, or cut off at creation, are skipped; those of older versions are
    read as they are. A merged run is as old as the oldest of its runs, and comes after it. Creation
    times decide only between runs without a number, or with the same one (from different folders),
    because a clock can be set back.
    """
    found: list[tuple[int, str, bool, Path, dict[str, str]]] = []
    for path in ledgers_in(folder):
        with suppress(OSError, *DAMAGE_ERRORS), closing(connect(path, "ro")) as db:
            version = version_of(db)
            if version == str(LEDGER_VERSION) or is_older(version):
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


LEDGER_VERSION = 9

_HANDED_ON = """
    CREATE TABLE handed_on (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, how TEXT NOT NULL, ended_at TEXT,
        next_at TEXT, PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
"""

_DESCENDANTS = (
    """
    CREATE TABLE descendants (
        task_id TEXT PRIMARY KEY, root TEXT NOT NULL, parent TEXT NOT NULL, task TEXT NOT NULL,
        how TEXT NOT NULL, queue TEXT, fulfils TEXT, spawned_at TEXT, kind TEXT, verdict TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX descendants_by_root ON descendants (root, kind)",
    """
    CREATE TABLE announced (
        root TEXT NOT NULL, key TEXT NOT NULL, announcer TEXT NOT NULL, how TEXT NOT NULL,
        task TEXT NOT NULL, number INTEGER NOT NULL, task_ids TEXT NOT NULL,
        is_off INTEGER NOT NULL, PRIMARY KEY (root, key, announcer)
    ) WITHOUT ROWID
    """,
)

_MORE_OF_DESCENDANTS = (
    "ALTER TABLE descendants ADD COLUMN chords TEXT",
    "ALTER TABLE descendants ADD COLUMN due TEXT",
    "ALTER TABLE descendants ADD COLUMN broker TEXT",
)
_CORRECTIONS = """
    CREATE TABLE corrections (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, attempt INTEGER,
        was TEXT NOT NULL, kind TEXT NOT NULL, told_at TEXT NOT NULL, corrected_at TEXT NOT NULL
    )
"""
# What a receipt found when it came. Times cannot tell: clocks are set back, and an attempt that is
# sent once more is of a later time.
_WHEN_RECEIPTS_CAME = (
    "ALTER TABLE receipts ADD COLUMN newest_attempt INTEGER",
    "ALTER TABLE receipts ADD COLUMN after_verdict INTEGER NOT NULL DEFAULT 0",
)
# Where an attempt that an earlier run has sent, and this one has reused, had run.
_WHERE_ATTEMPTS_RAN = "ALTER TABLE attempts ADD COLUMN reused_from TEXT"
# What an execution has reported whose job went on; its receipt has the last one's alone.
_COSTS_OF_TRIES = "ALTER TABLE handed_on ADD COLUMN cost REAL"
# What excuses an attempt's reports, since it happened while it was in flight.
_EXCUSES = (
    "ALTER TABLE attempts ADD COLUMN starts_lost INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE attempts ADD COLUMN set_back REAL NOT NULL DEFAULT 0",
    "ALTER TABLE descendants ADD COLUMN starts_lost INTEGER NOT NULL DEFAULT 0",
)
_OF_ALL_RUNS = "'emptied', 'gave_up', 'other_broker', 'plain_workers', 'own_limits'"
# What was kept once a ledger holds as it has been judged: what was forged stays so. And each run
# that a ledger was merged of has what the ledger had of all of them.
_OLD_EXCUSES = (
    """
    UPDATE attempts SET starts_lost = EXISTS (SELECT 1 FROM run WHERE key = 'emptied'),
        set_back = coalesce((
            SELECT CAST(json_extract(value, '$.set_back') AS REAL) FROM run WHERE key = 'clock'
        ), 0)
    WHERE entry NOT IN (SELECT entry FROM settled WHERE kind = 'forged')
    """,
    "UPDATE descendants SET starts_lost = EXISTS (SELECT 1 FROM run WHERE key = 'emptied')",
    f"""
    INSERT OR IGNORE INTO run SELECT r.key || ':' || j.value, r.value FROM run r, json_each((
        SELECT value FROM run WHERE key = 'merged'
    )) j WHERE r.key IN ({_OF_ALL_RUNS}, 'receipt_keys')
    """,  # noqa: S608 - fixed text
    f"""
    DELETE FROM run WHERE key IN ({_OF_ALL_RUNS})
        AND EXISTS (SELECT 1 FROM run WHERE key = 'merged')
    """,  # noqa: S608 - fixed text
)
# Of what came before they were kept, times are all there is.
_WHEN_OLD_RECEIPTS_CAME = (
    """
    UPDATE receipts SET newest_attempt = (
        SELECT max(b.attempt) FROM attempts a JOIN attempts b ON b.entry = a.entry
        WHERE a.task_id = receipts.task_id AND (
            b.attempt <= a.attempt OR b.sent_at IS NULL OR b.sent_at <= receipts.arrived_at
        )
    )
    """,
    """
    UPDATE receipts SET after_verdict = EXISTS (
        SELECT 1 FROM attempts a
        JOIN corrections c ON c.entry = a.entry AND c.attempt = a.attempt
        WHERE a.task_id = receipts.task_id
            AND (c.told_at <= receipts.arrived_at OR c.corrected_at < c.told_at)
    )
    """,
)

TABLES: Sequence[str] = (
    "CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE attempts (
        task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT,
        reason TEXT, kind TEXT, verdict TEXT
    ) WITHOUT ROWID
    """,
    "CREATE INDEX attempts_by_entry ON attempts (entry, attempt)",
    """
    CREATE TABLE starts (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, started_at TEXT, retries INTEGER NOT NULL,
        worker TEXT, host TEXT, pid INTEGER, redelivered INTEGER NOT NULL,
        boot TEXT, pid_namespace TEXT,
        hop INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
    """,
    _HANDED_ON,
    """
    CREATE TABLE receipts (
        seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, execution TEXT,
        receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
    )
    """,
    "CREATE INDEX receipts_by_task ON receipts (task_id)",
    """
    CREATE TABLE settled (
        seq INTEGER PRIMARY KEY, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
        kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
    )
    """,
    *_DESCENDANTS,
    *_MORE_OF_DESCENDANTS,
    _CORRECTIONS,
    *_WHEN_RECEIPTS_CAME,
    _WHERE_ATTEMPTS_RAN,
    _COSTS_OF_TRIES,
    *_EXCUSES,
    *FACT_TABLES,
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

_STEPS: Mapping[int, Sequence[str]] = {
    1: (
        "ALTER TABLE attempts ADD COLUMN reason TEXT",
        "ALTER TABLE attempts ADD COLUMN kind TEXT",
        "ALTER TABLE attempts ADD COLUMN verdict TEXT",
    ),
    2: (
        "ALTER TABLE starts ADD COLUMN boot TEXT",
        "ALTER TABLE starts ADD COLUMN pid_namespace TEXT",
        "ALTER TABLE starts ADD COLUMN hop INTEGER NOT NULL DEFAULT 0",
        _HANDED_ON,
    ),
    3: _DESCENDANTS,
    4: (*_MORE_OF_DESCENDANTS, _CORRECTIONS),
    5: (*_WHEN_RECEIPTS_CAME, *_WHEN_OLD_RECEIPTS_CAME),
    6: (_WHERE_ATTEMPTS_RAN,),
    7: (_COSTS_OF_TRIES,),
    8: (*_EXCUSES, *_OLD_EXCUSES, *FACT_TABLES),
}
"""Statements that migrate a ledger from a version to the next one."""


def version_of(db: sqlite3.Connection) -> str | None:
    """Return the version that a ledger states, None where it states none.

    Raises sqlite3.Error where the file is no ledger.
    """
    row = db.execute("SELECT value FROM run WHERE key = 'ledger'").fetchone()
    return None if row is None else str(row[0])


def is_older(version: str | None) -> bool:
    """Return whether a ledger of this version can be migrated to the present one."""
    return any(version == str(number) for number in _STEPS)


def migrate(db: sqlite3.Connection) -> None:
    """Migrate an older ledger to the present version in one transaction.

    Of several processes at once one does it, and the others find it done. Raises sqlite3.Error,
    with nothing changed, where the file cannot be written.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        while is_older(version := version_of(db)):
            number = int(version or 0)
            for statement in _STEPS[number]:
                db.execute(statement)
            db.execute("UPDATE run SET value = ? WHERE key = 'ledger'", (str(number + 1),))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
