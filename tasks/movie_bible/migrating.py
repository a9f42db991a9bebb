"""Create and migrate tables: an empty database gets the newest version, an older one on demand."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Final

from sqlalchemy import insert, inspect, select, text
from sqlalchemy.engine import Connection

from tasks.movie_bible.connecting import SCHEMA_LOCK, Store
from tasks.movie_bible.errors import BibleError, BibleTooNewError, BibleTooOldError
from tasks.movie_bible.models import REVISIONS, VERSION_TABLE, Base, Identity

HEAD: Final = REVISIONS[-1]
MIGRATE_COMMAND: Final = "python -m workflows.gap_fill.corpus migrate"
SCRIPTS: Final = Path(__file__).resolve().parent / "migrations"

# Alembic keeps the migration that runs in module globals.
_one_at_a_time = threading.Lock()


def prepare(store: Store) -> str:
    """Bring the tables to the newest version, and return the database's identity.

    An empty database gets them; any number of processes may do this at once. Raises
    BibleTooOldError, BibleTooNewError, or BibleError for tables that are not the movie bible's.
    """
    with store.reading() as connection:
        name = _name(connection) if _revision(connection) == HEAD else None
    if name is not None:
        return name
    with store.writing(SCHEMA_LOCK) as connection:
        found = _known_revision(connection, store.place)
        if found is None:
            upgrade(connection)
        elif found != HEAD:
            raise BibleTooOldError(
                f"{store.place} has tables of version {found}, and this program needs {HEAD}; "
                f"make a copy and run: {MIGRATE_COMMAND}"
            )
        return _named(connection)


def migrate(store: Store) -> str:
    """Bring the tables to the newest version in one transaction, and return that version."""
    with store.writing(SCHEMA_LOCK) as connection:
        if _known_revision(connection, store.place) != HEAD:
            upgrade(connection)
        _named(connection)
    return HEAD


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Run the migrations up to ``revision`` within the connection's transaction."""
    from alembic import command  # only a new or an old database needs it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, revision)


def _revision(connection: Connection) -> str | None:
    """Return the version that the database records, or None where it records none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    return ", ".join(found.scalars()) or None


def _known_revision(connection: Connection, place: str) -> str | None:
    """Return the version if this program knows it, or None for a database without these tables.

    Raises BibleTooNewError for another version, and BibleError for tables of another program.
    """
    revision = _revision(connection)
    if revision in REVISIONS:
        return revision
    if revision is not None:
        raise BibleTooNewError(
            f"{place} has tables of version {revision}, which this program does not know (it knows "
            f"{', '.join(REVISIONS)}); update the program, or name another database"
        )
    there = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if there:
        raise BibleError(
            f"{place} has a table {min(there)!r} that is not the movie bible's; give the movie "
            "bible a database of its own in GAP_FILL_DATABASE_URL"
        )
    return None


def _name(connection: Connection) -> str | None:
    return connection.execute(select(Identity.name)).scalar_one_or_none()


def _named(connection: Connection) -> str:
    name = _name(connection)
    if name is None:
        name = uuid.uuid4().hex
        connection.execute(insert(Identity).values(id=1, name=name))
    return name
