"""The tasks in a stock Celery worker with two pool children, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from pydantic import JsonValue

from tasks.database import Database
from tasks.settings import Settings
from tests.processes import child, tail, temporary_directory
from tests.support import eventually
from tests.workflows.crud_load import ROOT, run_together

pytestmark = pytest.mark.live

Job = tuple[str, dict[str, JsonValue]]


class Worker:
    """A running worker, as a client that knows nothing of our code sees it."""

    process: subprocess.Popen[bytes]

    def __init__(self, url: str) -> None:
        # A queue of its own: tests share one Valkey.
        self.queue = f"test-{secrets.token_hex(4)}"
        self.counter = f"{self.queue}:runs"
        self.node = f"{self.queue}@here"
        self._redis = redis.Redis.from_url(url)
        self._app = Celery(broker=url, backend=url, set_as_current=False)

    def answers(self) -> bool:
        """Whether it answers a ping within half a second."""
        return bool(self._app.control.ping(destination=[self.node], timeout=0.5))

    def run(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Send all jobs at once; return their results in this order."""
        sent = [self._app.send_task(name, kwargs=kwargs, queue=self.queue) for name, kwargs in jobs]
        return [result.get(timeout=60) for result in sent]

    def runs(self) -> int:
        """How many task runs the worker itself has counted."""
        return int(self._redis.get(self.counter) or 0)

    def send(self, jobs: Sequence[Job]) -> None:
        """Send all jobs at once."""
        for name, kwargs in jobs:
            self._app.send_task(name, kwargs=kwargs, queue=self.queue)

    def close(self) -> None:
        with suppress(redis.ConnectionError):  # a test may have stopped it
            self._redis.delete(self.counter)
        self._redis.close()
        self._app.close()


@contextmanager
def worker_on(url: str, database: str) -> Iterator[Worker]:
    """A worker on this broker and database, ready for jobs; ended when the block ends."""
    worker = Worker(url)
    environment = {
        **os.environ,
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url,
        "MANIFEST_DATABASE_URL": database,
        "MANIFEST_RUN_COUNTER": worker.counter,
    }
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2"]
    command += ["-Q", worker.queue, "-n", worker.node]
    with temporary_directory() as folder:
        log = folder / "worker.log"
        with child(command, log=log, cwd=ROOT, env=environment) as process:
            worker.process = process

            def ready() -> bool:
                assert process.poll() is None, tail(log)
                return worker.answers()

            eventually(ready, within=60, what="the worker is ready")
            try:
                yield worker
            finally:
                worker.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tasks.sqlite3"


@pytest.fixture(
    params=[
        pytest.param("sqlite_url", marks=pytest.mark.ring(1)),
        pytest.param("postgres_url", marks=pytest.mark.postgres),
    ]
)
def database_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of database, also set in this process's environment."""
    url: str = request.getfixturevalue(request.param)
    monkeypatch.setenv("MANIFEST_DATABASE_URL", url)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same database, seen from here."""
    opened = Database(Settings())
    yield opened
    opened.close()


@pytest.fixture
def worker(valkey: str, database_url: str) -> Iterator[Worker]:
    with worker_on(valkey, database_url) as running:
        yield running


def test_all_tasks(worker: Worker, database: Database) -> None:
    """Every task does its work there; rows are gone; the worker counted each run exactly once."""
    data: dict[str, JsonValue] = {"title": "Rashōmon", "year": 1950, "tags": ["a", None, 1.5]}
    jobs: list[Job] = []
    for number in range(10):
        jobs += [
            ("tasks.diagnostics.debug_task", {"msg": f"hello {number}"}),
            ("tasks.diagnostics.sleep_task", {"sec": 0.01}),
            ("tasks.crud.fast_crud_task", {"data": data}),
            ("tasks.crud.sleep_crud_task", {"sec": 0.01, "data": data}),
        ]
    results = worker.run(jobs)
    assert [result["echo"] for result in results[0::4]] == [f"hello {n}" for n in range(10)]
    assert all(result["slept"] >= 0.01 for result in results[1::4] + results[3::4])
    crud = results[2::4] + results[3::4]
    assert len({result["row_id"] for result in crud}) == 20
    for result in crud:
        assert result["lifecycle"] == ["created", "verified", "deleted"]
        assert result["verified"]["fields"] == {"year": 1950, "tags": ["a", None, 1.5]}
        assert result["database"] == database.identity
    assert database.rows() == 0
    assert worker.runs() == len(jobs)


def test_bad_data_fails_with_its_sentence(valkey: str, sqlite_url: str) -> None:
    """The sender gets the very exception, not a wrapper of one that could not be sent."""
    with worker_on(valkey, sqlite_url) as worker:
        bad: list[JsonValue] = [{}, ["title"], {"title": "a\0b"}, {"title": 1}]
        for data in bad:
            with pytest.raises(ValueError, match=r"data must be|data needs|data\['title'\] must"):
                worker.run([("tasks.crud.fast_crud_task", {"data": data})])


def test_several_processes_at_once(database_url: str, database: Database) -> None:
    """Six processes open the database and run their cycles: all succeed, ids are unique."""
    lines = run_together(database_url, processes=6, cycles=10)
    assert len({row_id for row_id, *_ in lines}) == len(lines) == 60
    assert {identity for _, identity, *_ in lines} == {database.identity}
    assert database.rows() == 0


@pytest.mark.postgres
def test_tables_that_several_create_at_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an empty PostgreSQL database too, where IF NOT EXISTS alone does not protect."""
    monkeypatch.setenv("MANIFEST_DATABASE_URL", postgres_url)
    opened = Database(Settings())
    for _ in range(2):
        with opened.engine.begin() as connection:
            for table in ("record", "identity"):
                connection.exec_driver_sql(f"DROP TABLE system_test_{table}")
        lines = run_together(postgres_url, processes=6, cycles=1)
        assert len({identity for _, identity, *_ in lines}) == 1
    opened.close()


def test_the_health_check_asks_the_worker_itself(valkey: str, sqlite_url: str) -> None:
    """It is content with a worker that answers, and not with one that is not there."""
    program = "import sys; from tasks import ping; ping.PATIENCE_SECONDS = 5.0; "
    program += "sys.exit(not ping.answers(sys.argv[1]))"
    environment = os.environ | {"CELERY_BROKER_URL": valkey}

    def asked(node: str) -> int:
        command = [sys.executable, "-c", program, node]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    with worker_on(valkey, sqlite_url) as worker:
        assert asked(worker.node) == 0
        assert asked("celery@nowhere") == 1
