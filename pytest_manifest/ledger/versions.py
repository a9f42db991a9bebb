"""The ledger's tables, and how those of an older version become those of this one."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

LEDGER_VERSION = 3

_HANDED_ON = """
    CREATE TABLE handed_on (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, how TEXT NOT NULL, ended_at TEXT,
        next_at TEXT, PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
"""

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
        seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, execution TEXT,
        receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
    )
    """,
    "CREATE INDEX receipts_by_task ON receipts (task_id)",
    """
    CREATE TABLE settled (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
        kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
    )
    """,
)

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
}
"""What turns a ledger of a version into one of the next."""


def version_of(db: sqlite3.Connection) -> str | None:
    """The version that a ledger says it has, None where it says nothing.

    Raises sqlite3.Error where the file is no ledger.
    """
    row = db.execute("SELECT value FROM run WHERE key = 'ledger'").fetchone()
    return None if row is None else str(row[0])


def is_older(version: str | None) -> bool:
    """Whether a ledger of this version can be brought to the present one."""
    return version is not None and version.isdecimal() and int(version) in _STEPS


def migrate(db: sqlite3.Connection) -> None:
    """Bring an older ledger to the present version in one transaction.

    Of several processes that begin at once one does it, and the others find it done. Raises
    sqlite3.Error, with nothing changed, where the file cannot be written.
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
