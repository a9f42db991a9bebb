"""The movie bible on PostgreSQL: the same promises as on SQLite."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import func, make_url, select, text

from tasks.movie_bible.bible import BibleSettings, BibleUnavailableError, MovieBible, NewAnnotation
from tasks.movie_bible.connecting import Store
from tests.support import eventually
from tests.workflows.movie_bible.common import bible as bible
from tests.workflows.movie_bible.common import store as store
from tests.workflows.movie_bible.jobs import JobsContract
from tests.workflows.movie_bible.loading import LoadingContract
from tests.workflows.movie_bible.reading import ReadingContract
from tests.workflows.movie_bible.versions import VersionsContract
from tests.workflows.movie_bible.writing import WritingContract

pytestmark = [pytest.mark.live, pytest.mark.postgres]

# Not "C", so that the order of ids is seen to be ours and not the server's.
COLLATED = sql.SQL(
    "CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ENCODING 'UTF8'"
)


@pytest.fixture
def settings(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BibleSettings]:
    """An empty database of this test's own, which sorts as Germans do."""
    name = sql.Identifier(f"bible_{secrets.token_hex(6)}")
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(COLLATED.format(name))
        # Nor UTC, so that moments are seen to come back in it all the same.
        server.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'Asia/Tokyo'").format(name))
        url = make_url(postgres_url).set(database=name.as_string().strip('"'))
        monkeypatch.setenv("MANIFEST_DATABASE_POOL_SIZE", "2")
        yield BibleSettings(url=url.render_as_string(hide_password=False))
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


class TestLoading(LoadingContract):
    """On PostgreSQL."""


class TestWriting(WritingContract):
    """On PostgreSQL."""


class TestJobs(JobsContract):
    """On PostgreSQL."""


class TestReading(ReadingContract):
    """On PostgreSQL."""


class TestVersions(VersionsContract):
    """On PostgreSQL."""


def test_a_wrong_password_is_a_sentence(settings: BibleSettings) -> None:
    """It says that the server refused it, and shows it nowhere."""
    url = make_url(settings.url).set(password="hunter2")
    with pytest.raises(BibleUnavailableError, match="password authentication failed") as caught:
        MovieBible.open(BibleSettings(url=url.render_as_string(hide_password=False)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None, "the driver's frames hold the password"


def test_a_connection_that_broke_is_opened_again(
    bible: MovieBible, settings: BibleSettings
) -> None:
    """As after a restart of the server: the next question is answered."""
    assert bible.count_passages() == 0
    with psycopg.connect(settings.url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert bible.count_passages() == 0


class TimeLimitError(Exception):
    """As Celery raises it in the midst of anything."""


def test_a_time_limit_within_a_statement_passes(
    bible: MovieBible, store: Store, settings: BibleSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not taken for a fault of the database, nothing is written, and the next call works."""

    def interrupt() -> None:
        with psycopg.connect(settings.url, autocommit=True) as other:
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            eventually(lambda: other.execute(asleep).fetchone() == (1,), within=30)
        signal.raise_signal(signal.SIGUSR1)

    def out_of_time(*_: object) -> None:
        raise TimeLimitError

    def busy() -> None:
        with store.writing() as connection:
            connection.execute(text("UPDATE movie_bible_identity SET name = 'x'"))
            thread.start()
            connection.execute(select(func.pg_sleep(60)))

    before = signal.signal(signal.SIGUSR1, out_of_time)
    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(TimeLimitError):
            busy()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    with store.reading() as connection:
        name = connection.execute(text("SELECT name FROM movie_bible_identity")).scalar_one()
    assert name == bible.identity
    assert bible.write([NewAnnotation("f/1", "v1", {})])["f/1"].revision == 1
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []
