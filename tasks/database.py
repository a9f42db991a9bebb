"""The database behind the CRUD tasks: SQLite by default, PostgreSQL by URL.

One engine a process, opened by the first task that needs it, so never shared with a forked child.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from sqlalchemy import (
    JSON,
    URL,
    String,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import CreateTable

from tasks.settings import Settings

# Any number will do, as long as all workers agree on it: it guards the creation of the tables.
SCHEMA_LOCK = 6_208_113
RETRY_SECONDS = 0.02


class Base(DeclarativeBase):
    """The tables of the system test."""


class Record(Base):
    """The row whose life a CRUD task runs through; ids are never used twice."""

    __tablename__ = "system_test_record"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy's own form

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    fields: Mapped[dict[str, JsonValue]] = mapped_column(JSON)
    revision: Mapped[int]


class Identity(Base):
    """One row that tells one database from another, whatever URL leads to it."""

    __tablename__ = "system_test_identity"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(32))


class LifeCycleError(RuntimeError):
    """The database did not give back what was written."""


@dataclass(frozen=True, slots=True)
class LifeCycle:
    """The rows read back on the way: the row after its update, and the rows left with its id."""

    row_id: int
    title: str
    fields: dict[str, JsonValue]
    revision: int
    rows_left: int
    database: str


class Database:
    """An engine whose tables exist, and its pool; usable by all threads of one process."""

    def __init__(self, settings: Settings) -> None:
        self.engine = make_engine(settings)
        if not isinstance(self.engine.pool, QueuePool):
            raise TypeError(f"the pool must be a QueuePool, not {type(self.engine.pool).__name__}")
        self._pool = self.engine.pool
        self._limit = settings.pool_size + settings.pool_overflow
        self._peak = 0
        self._counting = threading.Lock()
        event.listen(self.engine, "checkout", self._count_checkout)
        self.identity = prepare(self.engine, settings.lock_timeout)

    def _count_checkout(self, *_: object) -> None:
        with self._counting:
            self._peak = max(self._peak, self._pool.checkedout())

    def pool_numbers(self) -> dict[str, JsonValue]:
        """Return numbers of this process's pool: ``size`` kept open, ``checked_out`` and so on.

        ``overflow`` counts those open beyond ``size``, ``peak`` the most ever checked out at once,
        ``limit`` the most that may ever be.
        """
        return {
            "size": self._pool.size(),
            "limit": self._limit,
            "checked_out": self._pool.checkedout(),
            "overflow": max(0, self._pool.overflow()),
            "peak": self._peak,
        }

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Hold a pooled connection, outside any transaction."""
        with self.engine.connect() as connection:
            yield connection

    def run_lifecycle(
        self, title: str, fields: dict[str, JsonValue], *, connection: Connection | None = None
    ) -> LifeCycle:
        """Create, read, update and delete a row in one transaction, on ``connection`` if given.

        No other connection sees the row. Raises LifeCycleError where a read differs from the write.
        """
        held = self.connection() if connection is None else nullcontext(connection)
        with held as used, used.begin():
            row_id = _create(used, title, fields)
            _read_back(used, row_id, title, fields, revision=1)
            used.execute(update(Record).where(Record.id == row_id).values(revision=2))
            read = _read_back(used, row_id, title, fields, revision=2)
            used.execute(delete(Record).where(Record.id == row_id))
            left = _rows(used, row_id)
            if left:
                raise LifeCycleError(f"row {row_id} is still there after it was deleted")
        return LifeCycle(row_id, *read, rows_left=left, database=self.identity)

    def rows(self, row_id: int | None = None) -> int:
        """Count the committed rows with this id, or all."""
        with self.connection() as connection:
            return _rows(connection, row_id)

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


def _create(connection: Connection, title: str, fields: Mapping[str, JsonValue]) -> int:
    row = insert(Record).values(title=title, fields=fields, revision=1).returning(Record.id)
    return connection.execute(row).scalar_one()


def _read_back(
    connection: Connection,
    row_id: int,
    title: str,
    fields: dict[str, JsonValue],
    *,
    revision: int,
) -> tuple[str, dict[str, JsonValue], int]:
    columns = select(Record.title, Record.fields, Record.revision)
    row = connection.execute(columns.where(Record.id == row_id)).one_or_none()
    read = None if row is None else (row.title, row.fields, row.revision)
    if read is None or read != (title, fields, revision):
        raise LifeCycleError(
            f"row {row_id}: wrote {(title, fields, revision)!r:.300}, but read {read!r:.300}"
        )
    return read


def _rows(connection: Connection, row_id: int | None) -> int:
    count = select(func.count()).select_from(Record)
    if row_id is not None:
        count = count.where(Record.id == row_id)
    return connection.execute(count).scalar_one()


def make_engine(settings: Settings) -> Engine:
    """Make an engine with a bounded pool, not connected yet; raise ValueError for a bad URL."""
    url = database_url(settings.database_url)
    pool = {
        "poolclass": QueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.pool_overflow,
        "pool_timeout": settings.pool_timeout,
    }
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, **pool)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    # The life cycle begins with its INSERT, so a busy file is waited for: a transaction that began
    # by reading would fail at once where another process wrote in between.
    engine = create_engine(url, connect_args={"timeout": settings.lock_timeout}, **pool)
    event.listen(engine, "connect", _relax_sync)
    return engine


def _relax_sync(connection: DBAPIConnection, _: object) -> None:
    """Save an fsync per transaction: with a write-ahead log the file still stays consistent."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def database_url(given: str) -> URL:
    """Parse and complete a URL: psycopg 3 for PostgreSQL, a file for SQLite. Raises ValueError."""
    url = make_url(given)
    backend = url.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ValueError(
            f"the database URL names {backend!r}; use sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    if not url.database or url.database == ":memory:":
        raise ValueError(
            "an SQLite database in memory cannot be shared by workers; use sqlite:///FILE"
        )
    return url


def prepare(engine: Engine, lock_timeout: float) -> str:
    """Create the tables where they are missing, and return the database's identity.

    Any number of processes may do this at once. ``lock_timeout`` is in seconds.
    """
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine, lock_timeout)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # CREATE TABLE IF NOT EXISTS of two sessions at once can fail on the catalogue's keys.
            connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
        name = connection.execute(select(Identity.name)).scalar_one_or_none()
        return name if name is not None else _new_identity(connection)


def _new_identity(connection: Connection) -> str:
    row = text("INSERT INTO system_test_identity VALUES (1, :name) ON CONFLICT DO NOTHING")
    connection.execute(row, {"name": uuid.uuid4().hex})
    return connection.execute(select(Identity.name)).scalar_one()


def _switch_to_wal(engine: Engine, lock_timeout: float) -> None:
    """Let readers and a writer work at once; the file remembers it.

    SQLite does not wait for other processes here, whatever the lock timeout: so we do.
    """
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


class _PerProcess:
    """The database of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: Database | None = None

    def get(self) -> Database:
        with self._lock:
            if self._database is None:
                self._database = Database(Settings())
            return self._database

    def forget(self) -> None:
        """Drop the parent's connections in a forked child, without closing them."""
        inherited, self._database = self._database, None
        self._lock = threading.Lock()
        if inherited is not None:
            inherited.engine.dispose(close=False)


_per_process = _PerProcess()
os.register_at_fork(after_in_child=_per_process.forget)


def database() -> Database:
    """Return the database that the environment names, opened once a process."""
    return _per_process.get()
