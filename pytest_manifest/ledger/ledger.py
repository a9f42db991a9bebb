"""Create, open and copy a ledger, and hold the parts by which it is read and written."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from typing_extensions import Self

from pytest_manifest.errors import LedgerError
from pytest_manifest.files import private_folder
from pytest_manifest.ledger import database, files
from pytest_manifest.ledger.additions import Additions
from pytest_manifest.ledger.attempts import Attempts
from pytest_manifest.ledger.commands import Commands
from pytest_manifest.ledger.descendants import Descendants, TreeQueries
from pytest_manifest.ledger.facts import Facts, WorkerEvents
from pytest_manifest.ledger.invariants import Invariants
from pytest_manifest.ledger.jobs import Jobs
from pytest_manifest.ledger.listing import Listing
from pytest_manifest.ledger.rows import RunInfo, columns_of, damaged
from pytest_manifest.ledger.run_info import RunMetadata
from pytest_manifest.ledger.tables import LEDGER_VERSION, TABLES, VIEWS, type_queries, version_of
from pytest_manifest.ledger.verdicts import Queries, Verdicts
from pytest_manifest.manifest.writer import sync
from pytest_manifest.schema.run_facts import Segment


class Ledger:
    """A run's ledger; see :meth:`create` and :meth:`open`. Use one instance per thread.

    Its parts are ``info`` (the run's metadata), ``attempts``, ``events`` (what arrives from
    workers), ``facts`` (what only a session knew), ``jobs`` (those
    of an entry with all their facts), ``descendants`` (tasks that jobs start), ``verdicts``,
    ``queries`` (of many entries at once), ``trees`` (of many descendants at once), ``listing``
    (entries by where they are), ``commands`` (what operators ask for), ``additions`` (what is new
    since a moment) and ``invariants`` (what does not fit together). A method of a part
    that writes does so atomically: in the caller's :meth:`transaction`, or in its own. All raise
    LedgerError where the file cannot be read or written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._scratch: Path | None = None
        """The file of a ledger that is not in its place yet."""
        self._db = database.Database(path, connection)
        self.parse_errors, self.transaction = self._db.parse_errors, self._db.transaction
        self.writing, self.defer_commits = self._db.writing, self._db.defer_commits
        self.info = RunMetadata(self._db)
        self.attempts = Attempts(self._db)
        self.events = WorkerEvents(self._db)
        self.facts = Facts(self._db)
        self.jobs = Jobs(self._db, self.facts, self.info)
        self.descendants = Descendants(self._db)
        self.verdicts = Verdicts(self._db)
        self.queries = Queries(self._db)
        self.trees = TreeQueries(self._db)
        self.commands = Commands(self._db)
        self.invariants = Invariants(self._db)
        self.listing = Listing(self._db)
        self.additions = Additions(self._db)

    @classmethod
    def create(cls, path: Path, info: RunInfo, *, deferred: bool = False) -> Self:
        """Create a ledger at ``path``, which appears there whole or not at all.

        ``deferred``: not before :meth:`commit_deferred`. Raises LedgerError where the file exists
        or cannot be created.
        """
        try:
            private_folder(path.parent)
            files.refuse_network(path.parent)
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            scratch = files.RunFiles(path).unmade
            scratch.touch(mode=0o600, exist_ok=False)
            created = cls(path, _begun(scratch, info))
        except (OSError, sqlite3.Error) as error:
            raise _uncreated(path, error) from error
        created._scratch = scratch
        created._db.defer_commits(has_begun=True)
        if not deferred:
            created.commit_deferred()
        return created

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open an existing ledger, by default for reading only.

        Raises LedgerError where it is missing, of another version, or not a ledger.
        """
        try:
            with closing(files.connect(path, "ro")) as db:
                version = version_of(db)
                files.refuse_cut(path, db)
        except (OSError, *files.DAMAGE_ERRORS) as error:
            raise database.unreadable(path, error) from error
        if version != str(LEDGER_VERSION):
            raise LedgerError(
                f"{path}: the ledger has version {version}, this program reads version "
                f"{LEDGER_VERSION}; use the version of pytest-celery-manifest that wrote it"
            )
        try:
            return cls(path, files.connect(path, "rw" if write else "ro"))
        except files.DAMAGE_ERRORS as error:
            raise (database.unwritable if write else database.unreadable)(path, error) from error

    def close(self) -> None:
        self._db.connection.close()
        if self._scratch is not None:
            _remove(self._scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def check_types(self) -> None:
        """Raise LedgerError where a value is not of its column's type, whoever wrote it.

        Reads all tables, but not what is in their long texts.
        """
        for table, query in type_queries().items():
            row = self._db.read_one(query)
            if row is not None:
                raise damaged(self.path, TypeError(f"a {row[0]} of {table} is of another type"))

    def command(self, *options: str, unrecorded: Sequence[str] = ("pytest",)) -> list[str]:
        """Return pytest on the run's manifest, called as its last session was, with these options.

        Paths are as seen from this folder. ``unrecorded``: pytest's call where the run keeps none.
        """
        own = f"--manifest={os.path.relpath(self.info.read().manifest)}"
        calls = [one.arguments for one in self.facts.of_kind(Segment)]
        if not calls or not calls[-1]:
            return [*unrecorded, own, *options]
        words = (
            os.path.relpath(word) if before in ("-c", "--rootdir") else word
            for before, word in pairwise(("", *calls[-1]))
        )
        return ["pytest", own, *options, *words]

    def compact(self) -> None:
        """Move the write-ahead log into the file, so that a copy of the file is complete."""
        with self._db.write_errors():
            self._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Copy what is committed at this moment into a new file.

        Raises LedgerError where the file exists or cannot be written.
        """
        try:
            private_folder(path.parent)
            path.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise _uncopied(path, error) from error
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._db.connection.backup(copy)
        except sqlite3.Error as error:
            path.unlink(missing_ok=True)
            raise _uncopied(path, error) from error

    def disable_journal(self) -> None:
        """Write without a journal, for a ledger that is useless once this process has ended."""
        with self._db.write_errors():
            self._db.connection.execute("PRAGMA journal_mode = OFF")
            self._db.connection.execute("PRAGMA synchronous = OFF")
            self._db.connection.execute("PRAGMA cache_size = -8000")  # kB; see CACHE_KB

    @property
    def commits_deferred(self) -> bool:
        """Return whether writes since :meth:`defer_commits` are not committed yet."""
        return self._db.commits_deferred

    def commit_deferred(self) -> None:
        """Commit at once all that was written since :meth:`defer_commits`."""
        if self._scratch is None:
            self._db.commit_deferred()
            return
        try:
            self._move_into_place(self._scratch)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise _uncreated(self.path, error) from error

    def _move_into_place(self, scratch: Path) -> None:
        """Finish the file of a new ledger, and move it to where it is found."""
        with closing(self._db.connection) as db:
            db.execute("COMMIT")
            # Here: in its place a journal of the switch could be left that no reader may roll back.
            # SQLite says by the mode, not by an error, that it could not switch.
            if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise sqlite3.OperationalError("disk I/O error, it was given no write-ahead log")
        scratch.replace(self.path)
        try:
            sync(self.path.parent)
            self._db.reconnect(files.connect(self.path))
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        self._scratch = None


def _begun(scratch: Path, info: RunInfo) -> sqlite3.Connection:
    """Begin a ledger in the empty file ``scratch``, or remove it where that fails.

    Its transaction is open.
    """
    db = sqlite3.connect(scratch, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{files.CACHE_KB}")
        db.execute("BEGIN IMMEDIATE")
        for statement in (*TABLES, *VIEWS):
            db.execute(statement)
        columns = {"ledger": LEDGER_VERSION, "seq": 0, **columns_of(info)}
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        values = list(columns.values())
        db.execute(f"INSERT INTO run (n, {names}) VALUES (1, {marks})", values)  # noqa: S608 - fixed text
    except BaseException:
        db.close()
        _remove(scratch)
        raise
    return db


def _remove(scratch: Path) -> None:
    """Remove a ledger that will not be moved into its place."""
    for path in (scratch, scratch.with_name(f"{scratch.name}-journal")):
        path.unlink(missing_ok=True)


def _uncreated(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger cannot be created ({error}); free some space, or choose a writable "
        "local folder with the ini option manifest_dir"
    )


def _uncopied(path: Path, error: Exception) -> LedgerError:
    return LedgerError(
        f"{path}: the ledger cannot be copied there ({error}); name a new file in a folder that is "
        "writable and has free space"
    )
