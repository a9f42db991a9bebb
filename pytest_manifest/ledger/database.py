"""Run statements and transactions on a ledger's connection; SQLite's errors become LedgerError."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.files import DAMAGE_ERRORS
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, EXPORTED_INSTEAD, Row, damaged
from pytest_manifest.schema import Receipt

Built = TypeVar("Built")
Value = TypeVar("Value", str, int)
_BUSY = 5
_CANNOT_OPEN = 14
"""SQLITE_CANTOPEN: there is no such file, or its shared memory cannot be made on a full disk."""
_ENVIRONMENT_ERRORS = {
    _BUSY: "database is locked",  # SQLITE_BUSY
    6: "database table is locked",  # SQLITE_LOCKED
    8: "attempt to write a readonly database",  # SQLITE_READONLY
    10: "disk I/O error",  # SQLITE_IOERR
    13: "database or disk is full",  # SQLITE_FULL
    _CANNOT_OPEN: "unable to open database file",
    15: "locking protocol",  # SQLITE_PROTOCOL
}
"""SQLite's errors of the file system or of locking, which say nothing of the content: primary
result code -> words. The module sqlite3 has names for the codes from Python 3.11 on."""
_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_SAVEPOINT = ("SAVEPOINT part", "RELEASE part", "ROLLBACK TO part")
"""How a transaction begins, commits and rolls back: by itself, and while commits are deferred."""
BUSY_AGAIN_MS = 1000
"""Milliseconds that a connection waits for another process once it has waited in vain: what is
left to be written, as a run gives up, would take half a minute each."""
LAST_SEQ = """
    SELECT max(
        coalesce((SELECT max(seq) FROM {0}.facts), 0),
        coalesce((SELECT max(seq) FROM {0}.verdicts), 0),
        coalesce((SELECT max(seq) FROM {0}.run), 0)
    )
"""
"""A query for the last number given in the order of a ledger, which has this name in SQLite."""
CHUNK = 500
"""Values in one statement: far fewer than any version of SQLite allows."""


class Database:
    """A ledger's connection and the state of its transaction, shared by the ledger's parts."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._in_transaction = False
        self._deferred = False
        self._ends: dict[str, list[tuple[int, Receipt]]] = {}
        self._seq: int | None = None
        """The last number given of the ledger's order, once a transaction has asked for one."""

    def defer_commits(self, *, has_begun: bool = False) -> None:
        """Commit nothing from now on until :meth:`commit_deferred`.

        Closed without that, the ledger is unchanged. Until then only this connection sees the rows.
        ``has_begun``: the transaction is open already.
        """
        if not has_begun:
            with self.write_errors():
                self.connection.execute("BEGIN IMMEDIATE")
        self._deferred = True

    @property
    def commits_deferred(self) -> bool:
        """Return whether writes since :meth:`defer_commits` are not committed yet."""
        return self._deferred

    def reconnect(self, connection: sqlite3.Connection) -> None:
        """Go on with another connection, whose file has all that was deferred."""
        self.connection = connection
        self._deferred = False

    def commit_deferred(self) -> None:
        """Commit at once all that was written since :meth:`defer_commits`."""
        with self.write_errors():
            self.connection.execute("COMMIT")
        self._deferred = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written inside together, or nothing of it.

        Raises LedgerError where that fails; then nothing was written.
        """
        if (
            self._deferred and not self.connection.in_transaction
        ):  # else this would begin a transaction that is committed
            raise unwritable(self.path, "an earlier record of the transaction failed")
        begin, commit, roll_back = _SAVEPOINT if self._deferred else _TRANSACTION
        with self.write_errors():
            self.connection.execute(begin)
        self._in_transaction = True
        try:
            yield
            with self.write_errors():
                if self._seq is not None:
                    self.connection.execute("UPDATE run SET seq = ? WHERE n = 1", (self._seq,))
                self.connection.execute(commit)
        except BaseException:
            with suppress(sqlite3.Error):  # after a full disk SQLite has rolled back already
                self.connection.execute(roll_back)
            raise
        finally:
            self._in_transaction = False
            self._seq = None
            self._ends.clear()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for writing, in the caller's transaction or in a new one."""
        if not self._in_transaction:
            with self.transaction(), self.write_errors():
                yield self.connection
        elif self.connection.in_transaction:
            with self.write_errors():
                yield self.connection
        else:
            raise unwritable(self.path, "an earlier record of the transaction failed")

    def take_seq(self, count: int = 1) -> int:
        """Return the first of so many numbers of the ledger's order; call it while writing.

        What is taken and not committed is given again: numbers are in the order of commits.
        """
        if self._seq is None:
            self._seq = self.last_seq()
        first = self._seq + 1
        self._seq += count
        return first

    def next_job(self) -> int:
        """Return the number that the next job gets."""
        return 1 + self.number("SELECT max(n) FROM jobs")

    def last_seq(self) -> int:
        """Return the last number that was given and committed, or given in this transaction."""
        return self.number(LAST_SEQ.format("main")) if self._seq is None else self._seq

    def note_end(self, task_id: str, receipt: Receipt, seq: int) -> None:
        """Note under which number a receipt is recorded, for a verdict by it."""
        if self._in_transaction:
            self._ends.setdefault(task_id, []).append((seq, receipt))

    def ends_of(self, task_id: str) -> Sequence[tuple[int, Receipt]]:
        """Return the receipts of a job that were recorded in this transaction, by their numbers."""
        return self._ends.get(task_id, ())

    def read(self, query: str, values: Sequence[str | int] = ()) -> Generator[Row, None, None]:
        try:
            # Not "yield from", which closes the cursor: that fails where the ledger was closed, as
            # when the reader of a damaged row gave up.
            for row in self.connection.execute(query, values):  # noqa: UP028
                yield row
        except (OverflowError, *DAMAGE_ERRORS) as error:
            raise unreadable(self.path, error) from error

    def build_each(
        self, make: Callable[[Row], Built], query: str, values: Sequence[str | int] = ()
    ) -> Generator[Built, None, None]:
        """Yield ``make(row)`` of each row. Raises LedgerError where it fails on a row."""
        with self.parse_errors():  # not of each row, which would be felt
            for row in self.read(query, values):
                yield make(row)

    def read_one(self, query: str, values: Sequence[str | int] = ()) -> Row | None:
        with closing(self.read(query, values)) as rows:
            return next(rows, None)

    def number(self, query: str, values: Sequence[str | int] = ()) -> int:
        """Return the one number that a query finds; 0 for none."""
        row = self.read_one(query, values)
        return int(row[0]) if row and row[0] is not None else 0

    def of_each(self, query: str, values: Sequence[Value]) -> list[Row]:
        """Return what a query finds of these values; ``{}`` in it stands for some of them."""
        found: list[Row] = []
        for start in range(0, len(values), CHUNK):
            some = values[start : start + CHUNK]
            try:
                given = self.connection.execute(query.format(",".join("?" * len(some))), some)
                found += given.fetchall()
            except (OverflowError, *DAMAGE_ERRORS) as error:
                raise unreadable(self.path, error) from error
        return found

    @contextmanager
    def parse_errors(self) -> Iterator[None]:
        """Raise LedgerError where what the ledger holds cannot be parsed."""
        try:
            yield
        except BAD_ROW_ERRORS as error:
            raise damaged(self.path, error) from error

    @contextmanager
    def write_errors(self) -> Iterator[None]:
        """Turn SQLite's errors of writing into LedgerError."""
        try:
            yield
        except DAMAGE_ERRORS as error:
            if _code(error) == _BUSY:
                with suppress(sqlite3.Error):
                    self.connection.execute(f"PRAGMA busy_timeout = {BUSY_AGAIN_MS}")
            raise unwritable(self.path, error) from error


class LedgerPart:
    """Base of the parts of a :class:`~pytest_manifest.ledger.Ledger`: queries by one theme."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def _present(self, query: str, values: Sequence[str]) -> set[str]:
        """Return those of these texts that a query finds; ``{}`` in it stands for them."""
        return {str(row[0]) for row in self._db.of_each(query, values)}

    def _name_jobs(self, task_ids: Iterable[str]) -> None:
        """Add the jobs of these that are not known."""
        with self._db.writing() as db:
            db.executemany(NAMED, ((one,) for one in dict.fromkeys(task_ids)))


NAMED: Final = """
    INSERT OR IGNORE INTO jobs (n, id, entry)
    SELECT 1 + coalesce(max(n), 0), ?, 1 + coalesce(max(n), 0) FROM jobs
"""
"""Add a job of which no more is known than its id: whose it is may come later."""


def _code(error: Exception | str) -> int:
    """Return the code of an error of the file system or of a lock; 0 for others."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF  # the other bits say more of the same
    # Before Python 3.11 an error has no code; nor has one that the module itself raises.
    return next((one for one, words in _ENVIRONMENT_ERRORS.items() if str(error) == words), 0)


def unreadable(path: Path, error: Exception) -> LedgerError:
    code = _code(error)
    is_there = path.is_file() if code == _CANNOT_OPEN else code in _ENVIRONMENT_ERRORS
    if is_there or isinstance(error, OSError):
        return LedgerError(
            f"{path}: the ledger cannot be read now ({error}); free some space, or see that the "
            "folder is in order, then try again"
        )
    return LedgerError(
        f"{path}: this is not a ledger that can be read ({error}); name that of a run, or restore "
        f"it from a copy: {EXPORTED_INSTEAD}"
    )


def unwritable(path: Path, error: Exception | str) -> LedgerError:
    advice = "free some space, or see that the folder is writable"
    if _code(error) == _BUSY:
        advice = "another program has it open and does not let go: find it with 'fuser', and end it"
    return LedgerError(
        f"{path}: cannot be written ({error}); {advice}, then go on with --manifest-resume"
    )
