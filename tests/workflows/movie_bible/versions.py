"""What the movie bible promises of its tables' versions, for every database."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy import inspect

from tasks.movie_bible import migrating
from tasks.movie_bible.bible import (
    BibleError,
    BibleSettings,
    BibleTooNewError,
    BibleTooOldError,
    MovieBible,
    NewAnnotation,
)
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.models import VERSION_TABLE, Base
from tests.workflows.crud_load import ROOT, python_path

OLD_ROW = (
    "INSERT INTO annotation (passage_id, prompt_version, mood, tokens_in, tokens_out, cost_nanos,"
    " revision, written_at) VALUES ('f/1', 'v1', 'epic', 1, 2, 3, 4, '2026-01-02 03:04:05')"
)

# Forked, so that they come to the empty database at one moment.
OPEN_TOGETHER = """
import os, sys, traceback
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.documents import Document

start, go = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), "rw"))
children = []
for number in range(5):
    child = os.fork()
    if child == 0:
        try:
            go.close()
            start.read()
            with MovieBible.open() as bible:
                bible.add_documents([Document(f"f/{number}", "x"), Document("f/all", "x")])
                os.write(1, (bible.identity + "\\n").encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
go.close()
start.close()
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


class VersionsContract:
    """An empty database gets the tables, an older one is migrated, another is left alone."""

    def test_the_identity_stays(self, settings: BibleSettings) -> None:
        """Whoever opens the database, and however often it is migrated."""
        with MovieBible.open(settings) as first:
            identity = first.identity
        assert MovieBible.migrate(settings) == migrating.HEAD
        with MovieBible.open(settings) as second:
            assert second.identity == identity
            assert len(identity) == 32

    def test_the_migrations_make_the_tables_of_the_models(
        self, settings: BibleSettings, store: Store
    ) -> None:
        """Nothing is missing, and nothing is of another type."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        MovieBible.open(settings).close()
        with store.reading() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
            )
            assert compare_metadata(context, Base.metadata) == []

    def test_many_processes_open_an_empty_database_at_once(self, settings: BibleSettings) -> None:
        """All get the same one, and what each brings is there."""
        done = subprocess.run(
            [sys.executable, "-c", OPEN_TOGETHER],
            env={**os.environ, "GAP_FILL_DATABASE_URL": settings.url, "PYTHONPATH": python_path()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with MovieBible.open(settings) as bible:
            assert done.stdout.split() == [bible.identity] * 5
            assert bible.count_passages() == 6

    def test_an_older_database_is_migrated_on_demand(
        self, settings: BibleSettings, store: Store
    ) -> None:
        """Opening it says how; its rows are kept, and the new column can be used."""
        with store.writing() as connection:
            migrating.upgrade(connection, "0001")
            connection.exec_driver_sql(OLD_ROW)
            found = {column["name"] for column in inspect(connection).get_columns("annotation")}
            assert "attempt" not in found
        with pytest.raises(BibleTooOldError, match=r"version 0001.*0007.*corpus migrate$"):
            MovieBible.open(settings)
        assert MovieBible.migrate(settings) == migrating.HEAD == "0007"
        with MovieBible.open(settings) as bible:
            row = bible.annotations(["f/1"], "v1")["f/1"]
            assert (row.mood, row.revision, row.attempt) == ("epic", 4, None)
            assert (row.answered_by, row.tokens_cached) == (None, None)
            change = NewAnnotation("f/1", "v1", {}, attempt=2, answered_by="m", tokens_cached=3)
            bible.write([change])
            row = bible.annotations(["f/1"], "v1")["f/1"]
            assert (row.mood, row.revision, row.attempt, row.answered_by) == ("epic", 5, 2, "m")
            (writing,) = bible.writings(["f/1"], "v1")["f/1"]
            assert (writing.revision, writing.answered_by, writing.tokens_cached) == (5, "m", 3)

    def test_a_newer_database_is_left_alone(self, settings: BibleSettings, store: Store) -> None:
        """By opening and by migrating."""
        MovieBible.open(settings).close()
        with store.writing() as connection:
            connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0099'")
        for attempt in (MovieBible.open, MovieBible.migrate):
            with pytest.raises(BibleTooNewError, match=r"version 0099.*update the program"):
                attempt(settings)

    def test_tables_of_somebody_else_are_left_alone(
        self, settings: BibleSettings, store: Store
    ) -> None:
        """A database with another table of films is no empty one."""
        with store.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE film (title TEXT)")
        with pytest.raises(BibleError, match=r"a table 'film' that is not the movie bible's"):
            MovieBible.open(settings)

    def test_a_migration_that_fails_leaves_nothing(
        self, settings: BibleSettings, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database is empty as before, and can be opened when the fault is gone."""

        def fail(_: object) -> str:
            raise BibleError("as if the power went after the last table")

        with monkeypatch.context() as patched:
            patched.setattr(migrating, "_named", fail)
            with pytest.raises(BibleError, match="as if the power"):
                MovieBible.open(settings)
        with store.reading() as connection:
            assert inspect(connection).get_table_names() == []
        MovieBible.open(settings).close()
