"""A ledger's file: made, opened, migrated, copied, and written in whole transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.places import DAMAGE_ERRORS, connect, refuse_network
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, Row, RunInfo, damaged, info_rows
from pytest_manifest.ledger.versions import LEDGER_VERSION, TABLES, is_older, migrate, version_of
from pytest_manifest.schema import Receipt

Built = TypeVar("Built")
_ENVIRONMENT_ERRORS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
)
"""Errors that say nothing of the file's content."""
_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_SAVEPOINT = ("SAVEPOINT part", "RELEASE part", "ROLLBACK TO part")
"""How a transaction begins, ends and is taken back, by itself and within one that is held."""
CHUNK = 500
"""Values that one statement is given: far fewer than SQLite of any age takes."""


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in parts for one statement each."""
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))


def placeholders(values: Sequence[str]) -> str:
    """Places for these values in a statement."""
    return ",".join("?" * len(values))


class Database:
    """The file and its connection; see :class:`~pytest_manifest.ledger.store.Ledger`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._in_transaction = False
        self._deferred = False
        self._texts: dict[int, tuple[Receipt, str]] = {}

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> Self:
        """Begin a new ledger at ``path``.

        Raises LedgerError where the file exists or cannot be made.
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

        One of an older version is brought to the present one first. Raises LedgerError where it is
        missing, of another version, or not a ledger.
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
        """Bring everything into the one file, so that a copy of it is whole."""
        with self._write_errors():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Make an exact copy in a new file, of what is committed at this moment.

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
        """Write without a journal, for a ledger that nobody needs when this process is gone."""
        with self._write_errors():
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("PRAGMA cache_size = -8000")  # kB; receipts come in no order

    def defer_commits(self) -> None:
        """From here on nothing that is written counts, before :meth:`let_stand` says so.

        Closed without that, the ledger is what it was. Only this connection sees what is held.
        """
        with self._write_errors():
            self._db.execute("BEGIN IMMEDIATE")
        self._deferred = True

    @property
    def commits_deferred(self) -> bool:
        """Whether what is written does not count yet."""
        return self._deferred

    def commit_deferred(self) -> None:
        """Commit at once all that was written since :meth:`hold`."""
        with self._write_errors():
            self._db.execute("COMMIT")
        self._deferred = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside is committed together, or not at all.

        Raises LedgerError where that fails; then nothing of it was written.
        """
        if self._deferred and not self._db.in_transaction:  # or this would begin one that counts
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
            with suppress(sqlite3.Error):  # a full disk has taken it back already
                self._db.execute(roll_back)
            raise
        finally:
            self._in_transaction = False
            self._texts.clear()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """For a method that writes: within the caller's transaction, or in one of its own."""
        if not self._in_transaction:
            with self.transaction(), self._write_errors():
                yield self._db
        elif self._db.in_transaction:
            with self._write_errors():
                yield self._db
        else:
            raise _unwritable(self.path, "an earlier record of the transaction failed")

    def _receipt_text(self, receipt: Receipt) -> str:
        """A receipt as JSON, made once a transaction, which may keep it twice."""
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
        """What ``make`` makes of each row. Raises LedgerError where a row holds what it cannot."""
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
        """Errors of writing in a sentence for the user."""
        try:
            yield
        except DAMAGE_ERRORS as error:
            raise _unwritable(self.path, error) from error


def _created(path: Path, info: RunInfo) -> sqlite3.Connection:
    """The empty file at ``path`` turned into a ledger, and removed where that fails."""
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
    """The version of an older ledger after it was migrated."""
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
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of it tells the details
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
