"""The CRUD tasks on a real SQLite file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import JsonValue
from sqlalchemy.exc import OperationalError

import tasks.database
from tasks.crud import checked, fast_crud_task, sleep_crud_task
from tasks.database import Database, LifeCycleError, Record, database, database_url
from tasks.settings import Settings
from tests.workflows.crud_load import ROOT, python_path, run_together


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file of this test's own, in a folder that is not there yet, set in the environment."""
    address = f"sqlite:///{tmp_path}/new/crud.sqlite3"
    monkeypatch.setenv("MANIFEST_DATABASE_URL", address)
    monkeypatch.setattr(tasks.database, "_per_process", tasks.database._PerProcess())
    yield address
    if tasks.database._per_process._database is not None:
        tasks.database._per_process._database.close()


@pytest.fixture
def opened(url: str) -> Iterator[Database]:
    """That database, as another process would see it."""
    other = Database(Settings())
    yield other
    other.close()


def another_process(tmp_path: Path) -> closing[sqlite3.Connection]:
    """A connection to the file of ``url`` that shares nothing with our engines."""
    (tmp_path / "new").mkdir()
    return closing(sqlite3.connect(tmp_path / "new" / "crud.sqlite3", isolation_level=None))


def test_a_row_lives_and_dies(opened: Database) -> None:
    """The task reports each step and what it read back; afterwards the row is gone."""
    result = fast_crud_task({"title": "Alien", "year": 1979, "tags": ["a", {"b": None}]})
    assert result == {
        "lifecycle": ["created", "verified", "deleted"],
        "row_id": 1,
        "verified": {
            "title": "Alien",
            "fields": {"year": 1979, "tags": ["a", {"b": None}]},
            "revision": 2,
            "rows_left": 0,
        },
        "database": opened.identity,
    }
    assert opened.rows(1) == opened.rows() == 0


def test_row_ids_are_never_used_twice(url: str) -> None:
    """So that a row found by its id is that row, not a later one."""
    ids = [fast_crud_task({"title": "Alien"})["row_id"] for _ in range(3)]
    assert ids == [1, 2, 3]


def test_holding_a_connection(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sleeping task holds a connection meanwhile, and says what the pool looked like."""
    said: dict[str, JsonValue] = {}
    monkeypatch.setattr("tasks.crud.evidence", said.update)
    result = sleep_crud_task(0.01, {"title": "Alien"})
    assert result["lifecycle"] == ["created", "verified", "deleted"]
    assert isinstance(result["slept"], float)
    assert result["slept"] >= 0.01
    assert said["pool"] == {"size": 5, "limit": 10, "checked_out": 1, "overflow": 0, "peak": 1}
    assert opened.rows() == 0


def test_the_pool_keeps_its_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten threads share a pool of two: all get their turn, and never more than two at once."""
    monkeypatch.setenv("MANIFEST_DATABASE_POOL_SIZE", "1")
    monkeypatch.setenv("MANIFEST_DATABASE_POOL_OVERFLOW", "1")
    with ThreadPoolExecutor(10) as threads:
        jobs = [threads.submit(sleep_crud_task, 0.005, {"title": f"{n}"}) for n in range(10)]
        assert all(job.result(timeout=60)["row_id"] for job in jobs)
    numbers = database().pool_numbers()
    assert (numbers["limit"], numbers["peak"], numbers["checked_out"]) == (2, 2, 0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "data must be an object with a 'title', not NoneType"),
        (["title"], "data must be an object with a 'title', not list"),
        ({}, "data needs a 'title'; it has nothing"),
        ({"titel": "Alien"}, "data needs a 'title'; it has 'titel'"),
        ({"title": 7}, "data['title'] must be text of 1 to 200 characters, not 7"),
        ({"title": "  "}, "data['title'] must be text of 1 to 200 characters, not '  '"),
        ({"title": "x" * 201}, "data['title'] must be text of 1 to 200 characters, not 'xxx"),
        ({"title": "a\0b"}, "data['title'] must not hold a NUL character"),
    ],
)
def test_bad_data(data: dict[str, JsonValue], sentence: str) -> None:
    """Each is refused before any database is opened, with a sentence that shows it."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the sentence is compared below
        fast_crud_task(data)
    assert str(raised.value).startswith(sentence)


def test_data_is_left_as_it_was() -> None:
    """Taking the title out does not change what the caller holds."""
    data: dict[str, JsonValue] = {"title": "Alien", "year": 1979}
    assert checked(data) == ("Alien", {"year": 1979})
    assert data == {"title": "Alien", "year": 1979}


def test_a_failure_leaves_no_row(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step fails, the whole transaction is undone."""

    def fail(*_: object, **__: object) -> None:
        raise LifeCycleError("as if the row read back were another")

    monkeypatch.setattr(tasks.database, "_read_back", fail)
    with pytest.raises(LifeCycleError):
        fast_crud_task({"title": "Alien"})
    assert opened.rows() == 0


def test_what_was_not_stored_as_written_is_noticed(opened: Database) -> None:
    """A database that changes what it stores (here by a trigger) does not pass."""
    with opened.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TRIGGER spoil AFTER INSERT ON {Record.__tablename__} "
            f"BEGIN UPDATE {Record.__tablename__} SET title = 'Aliens'; END"
        )
    with pytest.raises(LifeCycleError, match=r"wrote \('Alien'.*but read \('Aliens'"):
        fast_crud_task({"title": "Alien"})
    assert opened.rows() == 0


def test_several_processes_at_once(url: str) -> None:
    """Six processes start on a file that does not exist yet: all succeed, ids are unique."""
    lines = run_together(url, processes=6, cycles=15)
    assert len({row_id for row_id, *_ in lines}) == len(lines) == 90
    assert len({identity for _, identity, *_ in lines}) == 1
    assert {tuple(rest) for _, _, *rest in lines} == {("created", "verified", "deleted")}


def test_a_forked_child_opens_its_own(url: str) -> None:
    """A child forked after its parent had connected works, and leaves the parent's alone."""
    program = (
        "import os\n"
        "from tasks.crud import fast_crud_task\n"
        "from tasks.database import database\n"
        "mine = database()\n"
        "fast_crud_task({'title': 'parent'})\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ok = database() is not mine and fast_crud_task({'title': 'child'})['row_id'] == 2\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert fast_crud_task({'title': 'parent'})['row_id'] == 3\n"
        "assert database() is mine\n"
        "mine.close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path()},
        timeout=60,
    )


def test_a_file_that_another_process_is_writing_to(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening waits for the writer, also where SQLite itself does not."""
    (tmp_path / "new").mkdir()
    with closing(
        sqlite3.connect(tmp_path / "new" / "crud.sqlite3", isolation_level=None)
    ) as writer:
        writer.execute("CREATE TABLE other (x)")
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda _: writer.execute("COMMIT"))
        assert fast_crud_task({"title": "Alien"})["row_id"] == 1
        assert not writer.in_transaction


def test_a_file_that_stays_locked(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait has an end, set in the environment."""
    monkeypatch.setenv("MANIFEST_DATABASE_LOCK_TIMEOUT", "0.05")
    (tmp_path / "new").mkdir()
    with closing(
        sqlite3.connect(tmp_path / "new" / "crud.sqlite3", isolation_level=None)
    ) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OperationalError, match="database is locked"):
            fast_crud_task({"title": "Alien"})


def test_the_first_identity_stays(opened: Database) -> None:
    """Of two processes that name a new database at once, both get the name that came first."""
    with opened.engine.begin() as connection:
        assert tasks.database._new_identity(connection) == opened.identity


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("mysql://host/db", "the database URL names 'mysql'; use sqlite:///FILE or postgresql"),
        ("sqlite://", "an SQLite database in memory cannot be shared by workers"),
        ("sqlite:///:memory:", "an SQLite database in memory cannot be shared by workers"),
    ],
)
def test_a_database_that_cannot_serve(given: str, sentence: str) -> None:
    """It is refused with a sentence that says what to use."""
    with pytest.raises(ValueError, match=sentence):
        database_url(given)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_postgresql_is_reached_with_psycopg_3(scheme: str) -> None:
    """Whatever driver a URL names, the one that is installed here is used."""
    assert database_url(f"{scheme}://us@host/db").drivername == "postgresql+psycopg"
