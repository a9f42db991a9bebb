"""Connect to the movie bible: transactions that read or write, and errors worded for users."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, create_engine, event, func, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from tasks.database import database_url
from tasks.movie_bible.errors import BibleError, BibleUnavailableError, BibleUrlError
from tasks.movie_bible.settings import BibleSettings

# Any numbers will do, as long as all programs agree on them.
SCHEMA_LOCK: Final = 6_208_114
LOAD_LOCK: Final = 6_208_115

CONNECT_SECONDS: Final = 10
RETRY_SECONDS: Final = 0.02
LOCKED: Final = (5, 6)
"""SQLite's codes SQLITE_BUSY and SQLITE_LOCKED, named by the module from Python 3.11 on."""
_WRITES: Final = "movie_bible_writes"


class Store:
    """An engine, and the name under which its database goes in sentences (``place``)."""

    def __init__(self, settings: BibleSettings) -> None:
        self._url = _url(settings)
        self.place = _place(self._url)
        with self._sentences():
            self.engine = _engine(self._url, settings)
        self._writing_engine = self.engine.execution_options(**{_WRITES: True})

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads; raise BibleUnavailableError if the database fails."""
        with self._sentences(), _transaction(self.engine) as connection:
            yield connection

    @contextmanager
    def writing(self, lock: int | None = None) -> Iterator[Connection]:
        """Open a transaction that writes; those with the same ``lock`` run one at a time.

        Raises BibleUnavailableError where the database fails; the transaction is then rolled back.
        """
        with self._sentences(), _transaction(self._writing_engine) as connection:
            if lock is not None and connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(lock)))
            yield connection

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise BibleUnavailableError(
                f"{self.place}: every connection of this process was busy for too long; raise "
                "MANIFEST_DATABASE_POOL_SIZE or lower the number of calls at once"
            ) from error
        except json.JSONDecodeError as error:
            raise BibleError(
                f"{self.place}: a row holds what is no JSON ({error}); somebody else wrote to the "
                "tables film or annotation, so correct that row or delete it"
            ) from error
        except DBAPIError as error:
            raise BibleUnavailableError(
                f"{self.place}: {self._first_line(error)}; see to it that the database runs, may "
                "be written to, and is the one that GAP_FILL_DATABASE_URL should name"
            ) from None  # the driver's frames hold the password, and pytest shows arguments
        except OSError as error:
            raise BibleUnavailableError(
                f"{self.place}: {error.strerror or error}; name a file that can be written to in "
                "GAP_FILL_DATABASE_URL"
            ) from error

    def _first_line(self, error: DBAPIError) -> str:
        """Return the driver's message in one line, without the password in any of its spellings."""
        said = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
        for secret in _secrets(self._url):
            for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                said = said.replace(form, "***")
        return said


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    """Commit at the end; an error within undoes all of it, and is the one that is seen.

    A time limit of Celery's may interrupt a statement that PostgreSQL is still busy with: then
    nothing can be said to it on that connection, not even to roll back.
    """
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            yield connection
        except BaseException:
            try:
                transaction.rollback()
            except DBAPIError:
                connection.invalidate()  # closed, which undoes it too
            raise
        transaction.commit()


def _url(settings: BibleSettings) -> URL:
    # Neither sentence nor chain may show the URL: where it cannot be parsed, its password could
    # stand anywhere.
    said = (
        "the database URL cannot be understood; use sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST/NAME"
    )
    try:
        url = database_url(settings.url)
        return url.set(drivername="sqlite") if url.get_backend_name() == "sqlite" else url
    except ArgumentError:
        pass
    except ValueError as error:
        if "; use sqlite:///" in str(error):
            said = str(error)
    raise BibleUrlError(f"{said} in GAP_FILL_DATABASE_URL")


def _place(url: URL) -> str:
    """Name the database for people, without password and options, which may hold one."""
    if url.get_backend_name() == "sqlite":
        return f"the movie bible in {url.database}"
    name = url.database or url.username or "by default"
    host = f"{url.host or 'the local server'}{f':{url.port}' if url.port else ''}"
    return f"the movie bible in PostgreSQL database {name} on {host}"


def _secrets(url: URL) -> list[str]:
    given = [url.password, url.query.get("password")]
    return [str(secret) for secret in given if secret]


def _engine(url: URL, settings: BibleSettings) -> Engine:
    """Make an engine with a bounded pool, not connected yet."""
    pool = {
        "poolclass": QueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.pool_overflow,
        "pool_timeout": settings.pool_timeout,
        "hide_parameters": True,  # a traceback must not print whole passages
    }
    if url.get_backend_name() == "postgresql":
        patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
        return create_engine(url, pool_pre_ping=True, connect_args=patience, **pool)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": settings.lock_timeout}, **pool)

    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # transactions begin where we say, tables included
        _switch_to_wal(connection, settings.lock_timeout)
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once where another process
    # wrote in between; one that says so at its beginning is let in by turns.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(connection: sqlite3.Connection, lock_timeout: float) -> None:
    """Let readers and a writer work at once; the file remembers it.

    SQLite does not wait for other processes here, whatever the lock timeout: so we do.
    """
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another connection has the lock; before Python 3.11 only words say it."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return "locked" in str(error) if code is None else code & 0xFF in LOCKED
