"""Create, open, migrate and copy a ledger's database, and run its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.files import (
    DAMAGE_ERRORS,
    LEDGER_VERSION,
    TABLES,
    connect,
    is_older,
    migrate,
    refuse_network,
    version_of,
)
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, Row, RunInfo, damaged, info_rows
from pytest_manifest.schema import Receipt

Built = TypeVar("Built")
_ENVIRONMENT_ERRORS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
)
"""Errors of the file system or of locking, which say nothing of the file's content."""
_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_SAVEPOINT = ("SAVEPOINT part", "RELEASE part", "ROLLBACK TO part")
"""How a transaction begins, commits and rolls back: by itself, and while commits are deferred."""
CHUNK = 500
"""Values in one statement: far fewer than any version of SQLite allows."""


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split values into chunks for one statement each."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def placeholders(values: Sequence[str]) -> str:
    """Return placeholders for these values in a statement."""
    return ",".join("?" * len(values))


class Database:
    """The file and its connection: base of the parts of :class:`~pytest_manifest.ledger.Ledger`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._in_transaction = False
        self._deferred = False
        self._texts: dict[int, tuple[Receipt, str]] = {}

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> Self:
        """Create a ledger at ``path``.

        Raises LedgerError where the file exists or cannot be created.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            refuse_network(path.parent)
            path.touch(mode=0o600, exist_ok=False)
            return cls(path, _created(path, info))
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{path}: the ledger cannot be created ({error}); "
                "choose a writable local folder with the ini option manifest_dir"
            ) from error

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open an existing ledger, by default for reading only.

        One of an older version is migrated first. Raises LedgerError where it is missing, of
        another version, or not a ledger.
        """
        try:
            with closing(connect(path, "ro")) as db:
                version = version_of(db)
        except (OSError, *DAMAGE_ERRORS) as error:
            raise _unreadable(path, error) from error
        if is_older(version):
            version = _migrated(path, version)
        if version != str(LEDGER_VERSION):
            raise LedgerError(
                f"{path}: the ledger has version {version}, this program reads version "
                f"{LEDGER_VERSION}; use the version of pytest-celery-manifest that wrote it"
            )
        try:
            return cls(path, connect(path, "rw" if write else "ro"))
        except DAMAGE_ERRORS as error:
            raise (_unwritable if write else _unreadable)(path, error) from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def compact(self) -> None:
        """Move the write-ahead log into the file, so that a copy of the file is complete."""
        with self._write_errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Copy what is committed at this moment into a new file.

        Raises LedgerError where the file exists or cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise _uncopied(path, error) from error
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._db.backup(copy)
        except sqlite3.Error as error:
            path.unlink(missing_ok=True)
            raise _uncopied(path, error) from error

    def disable_journal(self) -> None:
        """Write without a journal, for a ledger that is useless once this process has ended."""
        with self._write_errors():
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("PRAGMA cache_size = -8000")  # kB; receipts come in no order

    def defer_commits(self) -> None:
        """Commit nothing from now on until :meth:`commit_deferred`.

        Closed without that, the ledger is unchanged. Until then only this connection sees the rows.
        """
        with self._write_errors():
            self._db.execute("BEGIN IMMEDIATE")
        self._deferred = True

    @property
    def commits_deferred(self) -> bool:
        """Return whether writes since :meth:`defer_commits` are not committed yet."""
        return self._deferred

    def commit_deferred(self) -> None:
        """Commit at once all that was written since :meth:`defer_commits`."""
        with self._write_errors():
            self._db.execute("COMMIT")
        self._deferred = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything written inside together, or nothing of it.

        Raises LedgerError where that fails; then nothing was written.
        """
        if (
            self._deferred and not self._db.in_transaction
        ):  # else this would begin a transaction that is committed
            raise _unwritable(self.path, "an earlier record of the transaction failed")
        begin, commit, roll_back = _SAVEPOINT if self._deferred else _TRANSACTION
        with self._write_errors():
            self._db.execute(begin)
        self._in_transaction = True
        try:
            yield
            with self._write_errors():
                self._db.execute(commit)
        except BaseException:
            with suppress(sqlite3.Error):  # after a full disk SQLite has rolled back already
                self._db.execute(roll_back)
            raise
        finally:
            self._in_transaction = False
            self._texts.clear()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for writing, in the caller's transaction or in a new one."""
        if not self._in_transaction:
            with self.transaction(), self._write_errors():
                yield self._db
        elif self._db.in_transaction:
            with self._write_errors():
                yield self._db
        else:
            raise _unwritable(self.path, "an earlier record of the transaction failed")

    def _receipt_text(self, receipt: Receipt) -> str:
        """Return a receipt as JSON, encoded once a transaction, which may write it twice."""
        known = self._texts.get(id(receipt))
        if known is not None:
            return known[1]
        text = receipt.model_dump_json()
        if self._in_transaction:
            self._texts[id(receipt)] = receipt, text
        return text

    def _read(self, query: str, values: Sequence[str | int] = ()) -> Generator[Row, None, None]:
        try:
            yield from self._db.execute(query, values)
        except (OverflowError, *DAMAGE_ERRORS) as error:
            raise _unreadable(self.path, error) from error

    def _each(
        self, make: Callable[[Row], Built], query: str, values: Sequence[str | int] = ()
    ) -> Generator[Built, None, None]:
        """Yield ``make(row)`` of each row. Raises LedgerError where it fails on a row."""
        for row in self._read(query, values):
            try:
                made = make(row)
            except BAD_ROW_ERRORS as error:
                raise damaged(self.path, error) from error
            yield made

    def _read_one(self, query: str, values: Sequence[str | int] = ()) -> Row | None:
        with closing(self._read(query, values)) as rows:
            return next(rows, None)

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turn SQLite's errors of writing into LedgerError."""
        try:
            yield
        except DAMAGE_ERRORS as error:
            raise _unwritable(self.path, error) from error


def _created(path: Path, info: RunInfo) -> sqlite3.Connection:
    """Turn the empty file at ``path`` into a ledger, or remove it where that fails."""
    db: sqlite3.Connection | None = None
    try:
        db = connect(path)
        db.execute("BEGIN IMMEDIATE")
        for statement in TABLES:
            db.execute(statement)
        rows = [("ledger", str(LEDGER_VERSION)), *info_rows(info)]
        db.executemany("INSERT INTO run VALUES (?, ?)", rows)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db is not None:
            db.close()
        path.unlink(missing_ok=True)
        raise
    return db


def _migrated(path: Path, version: str | None) -> str | None:
    """Migrate an older ledger and return its version then."""
    try:
        with closing(connect(path)) as db:
            migrate(db)
            return version_of(db)
    except DAMAGE_ERRORS as error:
        raise LedgerError(
            f"{path}: the ledger has version {version} and cannot be brought to version "
            f"{LEDGER_VERSION} ({error}); copy it to a folder that is writable and has free space, "
            "and name that with the ini option manifest_dir"
        ) from error


def _unreadable(path: Path, error: Exception) -> LedgerError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits hold details
    if isinstance(error, OSError) or code in _ENVIRONMENT_ERRORS:
        return LedgerError(
            f"{path}: the ledger cannot be read now ({error}); free some space, or see that the "
            "folder is in order, then try again"
        )
    return LedgerError(f"{path}: this is not a ledger that can be read ({error})")


def _unwritable(path: Path, error: Exception | str) -> LedgerError:
    return LedgerError(
        f"{path}: cannot be written ({error}); free some space, or see that the folder is "
        "writable, then go on with --manifest-resume"
    )


def _uncopied(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger cannot be copied there ({error}); name a new file in a folder that is "
        "writable and has free space"
    )
