"""The movie bible on SQLite: what it promises everywhere, and what can be wrong with a file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.schema import CreateTable

from tasks.movie_bible import migrating, reading
from tasks.movie_bible.bible import (
    BibleError,
    BibleSettings,
    BibleUnavailableError,
    BibleUrlError,
    MovieBible,
    NewAnnotation,
    bible_settings,
)
from tasks.movie_bible.connecting import is_locked
from tasks.movie_bible.documents import Document
from tasks.movie_bible.migrating import SCRIPTS
from tasks.movie_bible.models import REVISIONS, Annotation, Base, Film, Passage
from tasks.movie_bible.per_process import close_movie_bible, movie_bible
from tests.workflows.crud_load import ROOT, python_path
from tests.workflows.movie_bible.common import bible as bible
from tests.workflows.movie_bible.common import documents
from tests.workflows.movie_bible.common import store as store
from tests.workflows.movie_bible.jobs import JobsContract
from tests.workflows.movie_bible.loading import LoadingContract
from tests.workflows.movie_bible.reading import ReadingContract
from tests.workflows.movie_bible.versions import VersionsContract
from tests.workflows.movie_bible.writing import WritingContract


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder that is not there yet, with what URLs and Alembic treat specially."""
    return tmp_path / "a new %(folder)s" / "bible.sqlite3"


@pytest.fixture
def settings(file: Path, monkeypatch: pytest.MonkeyPatch) -> BibleSettings:
    """Settings that name the file; so does the environment."""
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", f"sqlite:///{file}")
    monkeypatch.setenv("MANIFEST_DATABASE_POOL_SIZE", "2")
    return bible_settings()


class TestLoading(LoadingContract):
    """On SQLite."""


class TestWriting(WritingContract):
    """On SQLite."""


class TestJobs(JobsContract):
    """On SQLite."""


class TestReading(ReadingContract):
    """On SQLite."""


class TestVersions(VersionsContract):
    """On SQLite."""


def test_two_databases_have_two_identities(tmp_path: Path) -> None:
    """So that a verification notices when it looks at another than the worker."""
    names = set()
    for name in ("one", "two"):
        with MovieBible.open(BibleSettings(url=f"sqlite:///{tmp_path}/{name}.sqlite3")) as opened:
            names.add(opened.identity)
    assert len(names) == 2


def test_the_known_revisions_are_the_migrations() -> None:
    """In their order, so that opening a database need not load Alembic."""
    from alembic.script import ScriptDirectory

    scripts = list(ScriptDirectory(str(SCRIPTS)).walk_revisions())
    assert tuple(script.revision for script in reversed(scripts)) == REVISIONS


@pytest.mark.parametrize("table", [Film, Passage, Annotation])
def test_ids_are_collated_by_code_point(table: type[Base]) -> None:
    """In the models, too: the comparison with the migrations does not look at it."""
    statement = CreateTable(table.metadata.tables[table.__tablename__])
    dialect = make_url("postgresql+psycopg://").get_dialect()()
    assert 'VARCHAR(150) COLLATE "C" NOT NULL' in str(statement.compile(dialect=dialect))


def test_the_project_may_be_in_any_folder(
    tmp_path: Path, settings: BibleSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in one whose name means something to Alembic's configuration."""
    (tmp_path / "100%(x)s").symlink_to(SCRIPTS)
    monkeypatch.setattr(migrating, "SCRIPTS", tmp_path / "100%(x)s")
    MovieBible.open(settings).close()


def test_a_reload_does_not_wait_for_a_writer(
    bible: MovieBible, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing changes, nothing is locked: workers bring the same documents all the time."""
    bible.load(documents(3))
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        bible.add_documents(documents(3))
        assert [one.id for one in bible.scan("v1")] == ["f/00000", "f/00001", "f/00002"]


def test_opening_waits_for_a_writer(file: Path, settings: BibleSettings) -> None:
    """Also where SQLite itself does not: while the file is switched to its write-ahead log."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("CREATE TABLE other (x)")
        writer.execute("BEGIN IMMEDIATE")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(time, "sleep", lambda _: writer.execute("COMMIT"))
            MovieBible.open(settings).close()
        assert not writer.in_transaction


@pytest.mark.parametrize(
    ("words", "code", "locked"),
    [
        ("in use by another program", 5 | 1 << 8, True),  # SQLITE_BUSY_RECOVERY
        ("malformed database schema (locked)", 11, False),  # SQLITE_CORRUPT
        ("database is locked", None, True),
        ("disk I/O error", None, False),
    ],
)
def test_a_lock_is_known_by_its_code(words: str, code: int | None, locked: bool) -> None:
    """By the words only on Python 3.10, where an error has no code."""
    error = sqlite3.OperationalError(words)
    if code is not None:
        vars(error)["sqlite_errorcode"] = code
    assert is_locked(error) is locked


def test_a_file_that_stays_locked_is_a_sentence(
    file: Path, settings: BibleSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that the environment allows."""
    monkeypatch.setenv("MANIFEST_DATABASE_LOCK_TIMEOUT", "0.05")
    with MovieBible.open() as opened, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BibleUnavailableError, match=r"bible.sqlite3: database is locked; see"):
            opened.write([NewAnnotation("f/1", "v1", {})])


def test_a_file_that_is_no_database_is_a_sentence(file: Path, settings: BibleSettings) -> None:
    """It is not written over."""
    file.parent.mkdir()
    file.write_text("a letter to my aunt, which is longer than the header of a database" * 10)
    with pytest.raises(BibleUnavailableError, match=r"bible.sqlite3: file is not a database"):
        MovieBible.open(settings)
    assert file.read_text().startswith("a letter")


def test_a_place_where_no_file_can_be_is_a_sentence(tmp_path: Path) -> None:
    """Here a file stands where a folder should."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(BibleUnavailableError, match=r"name a file that can be written to"):
        MovieBible.open(BibleSettings(url=f"sqlite:///{tmp_path}/taken/x/bible.sqlite3"))


def test_what_is_no_json_is_a_sentence(bible: MovieBible, file: Path) -> None:
    """Somebody wrote to the table by hand."""
    bible.load(documents(1))
    bible.write([NewAnnotation("f/00000", "v1", {"themes": ["a"]})])
    with closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE annotation SET themes = 'love, war'")
        other.commit()
    with pytest.raises(BibleError, match="a row holds what is no JSON"):
        list(bible.scan("v1"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://us:hunter2@host/db", "names 'mysql'"),
        ("sqlite://", "in memory cannot be shared"),
        ("hunter2", "cannot be understood; use sqlite:///FILE or"),
        ("postgresql://us@host:hunter2/db", "cannot be understood"),
    ],
)
def test_a_url_that_cannot_serve_is_a_sentence(url: str, sentence: str) -> None:
    """Neither it nor what led to it shows the password, wherever it stood."""
    with pytest.raises(BibleUrlError, match=sentence) as caught:
        MovieBible.open(BibleSettings(url=url))
    error: BaseException | None = caught.value
    assert str(error).count(";") >= 1
    while error is not None:
        assert "hunter2" not in repr(error)
        error = None if error.__suppress_context__ else error.__context__


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://us:hunter2@127.0.0.1:{port}/db",
        "postgresql://127.0.0.1:{port}/db?user=us&password=hunter2",
    ],
)
def test_a_server_that_is_away_is_a_sentence(url: str) -> None:
    """It names host and database, and no password."""
    import socket

    with socket.socket() as taken:  # bound, but not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(BibleUnavailableError) as caught:
            MovieBible.open(BibleSettings(url=url.format(port=port)))
    said = str(caught.value)
    assert said.startswith(f"the movie bible in PostgreSQL database db on 127.0.0.1:{port}: ")
    assert "refused" in said
    assert "GAP_FILL_DATABASE_URL" in said
    assert "hunter2" not in said
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None, "the driver's frames hold the password"


def test_a_pool_that_is_used_up_is_a_sentence(
    settings: BibleSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variable that makes it larger."""
    for name, value in (("SIZE", "1"), ("OVERFLOW", "0"), ("TIMEOUT", "0.01")):
        monkeypatch.setenv(f"MANIFEST_DATABASE_POOL_{name}", value)
    with (
        MovieBible.open() as opened,
        opened._store.reading(),
        pytest.raises(BibleUnavailableError, match="MANIFEST_DATABASE_POOL_SIZE"),
    ):
        opened.count_passages()


def test_a_driver_of_sqlite_is_ours(tmp_path: Path) -> None:
    """Whatever a URL names: another would need what is not installed."""
    MovieBible.open(BibleSettings(url=f"sqlite+aiosqlite:///{tmp_path}/x.sqlite3")).close()


def test_the_first_variable_that_is_set_names_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own, then those of the system test; without any, a file in the project's folder."""
    for name in ("GAP_FILL_DATABASE_URL", "MANIFEST_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert BibleSettings().url == f"sqlite:///{ROOT}/.manifest/movie_bible.sqlite3"
    for name in ("DATABASE_URL", "MANIFEST_DATABASE_URL", "GAP_FILL_DATABASE_URL"):
        monkeypatch.setenv(name, f"sqlite:///{name}:hunter2")
        assert bible_settings().url == f"sqlite:///{name}:hunter2"
    assert "hunter2" not in repr(BibleSettings())
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", "")
    assert "MANIFEST_DATABASE_URL" in BibleSettings().url
    assert bible_settings("sqlite:///x").url == "sqlite:///x"


def test_a_bad_setting_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable, and not what it holds."""
    monkeypatch.setenv("MANIFEST_DATABASE_POOL_SIZE", "hunter2")
    with pytest.raises(BibleError, match="variable MANIFEST_DATABASE_POOL_SIZE") as caught:
        MovieBible.open()
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValidationError) as plain:
        BibleSettings()
    assert "hunter2" not in str(plain.value)


def test_a_scan_keeps_a_page_in_memory(settings: BibleSettings) -> None:
    """Six times the passages cost hardly more; all of them would be eight megabytes more."""
    text = "x" * 1000

    def peak(count: int) -> int:
        with MovieBible.open(settings) as opened:
            opened.load(Document(f"f/{n:05d}", text + str(n)) for n in range(count))
            sum(1 for _ in opened.scan("v1"))
            tracemalloc.start()
            try:
                assert sum(1 for _ in opened.scan("v1")) == count
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    small = peak(2 * reading.PAGE)
    assert peak(10 * reading.PAGE) < small + 1_000_000


def test_one_movie_bible_a_process(settings: BibleSettings) -> None:
    """Opened once; a forked child opens its own, and leaves the parent's connections alone."""
    program = (
        "import os, sys\n"
        "from tasks.movie_bible.per_process import close_movie_bible, movie_bible\n"
        "assert 'sqlalchemy' not in sys.modules\n"
        "from tasks.movie_bible.documents import Document\n"
        "mine = movie_bible()\n"
        "mine.add_documents([Document('f/1', 'x')])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ok = movie_bible() is not mine and movie_bible().count_passages() == 1\n"
        "    movie_bible().add_documents([Document('f/2', 'x')])\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert movie_bible() is mine and mine.count_passages() == 2\n"
        "close_movie_bible()\n"
        "assert movie_bible() is not mine\n"
        "close_movie_bible()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        timeout=60,
    )


def test_the_movie_bible_of_this_process_can_be_closed(settings: BibleSettings) -> None:
    """The next one is that which the environment names then."""
    close_movie_bible()
    try:
        assert movie_bible() is movie_bible()
    finally:
        close_movie_bible()


@pytest.mark.parametrize(
    "module", ["", ".fields", ".documents", ".records", ".errors", ".settings", ".per_process"]
)
def test_what_plans_need_is_light(module: str) -> None:
    """Documents and settings come without SQLAlchemy."""
    program = f"import sys, tasks.movie_bible{module}; sys.exit('sqlalchemy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": python_path()}
    )
    assert done.returncode == 0
