"""The private servers of live tests: they answer, and nothing of them is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import kombu
import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import processes, services
from tests.conftest import missing
from tests.support import eventually

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys, tempfile
from tests import services
tempfile.tempdir = sys.argv[2]
with getattr(services, sys.argv[1])():
    print("up", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Kind:
    """A kind of server: the name of its context manager, and how to see whether it answers."""

    name: str
    answers: Callable[[str], bool]

    def server(self) -> AbstractContextManager[str]:
        made: AbstractContextManager[str] = getattr(services, self.name)()
        return made


def valkey_answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def rabbitmq_answers(url: str) -> bool:
    with kombu.Connection(url) as connection:  # logs in, unlike the wait for its start
        return bool(connection.connect().connected)


def postgres_answers(url: str) -> bool:
    with closing(psycopg.connect(url)) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(
    params=[
        Kind("valkey_server", valkey_answers),
        pytest.param(Kind("rabbitmq_server", rabbitmq_answers), marks=pytest.mark.rabbitmq),
        pytest.param(Kind("postgres_server", postgres_answers), marks=pytest.mark.postgres),
    ],
    ids=lambda kind: kind.name,
)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server that this machine has."""
    chosen: Kind = request.param
    try:
        {
            "rabbitmq_server": services.rabbitmq_binaries,
            "postgres_server": services.postgres_binaries,
        }.get(chosen.name, lambda: None)()
    except services.ServiceUnavailableError as unavailable:
        missing(str(unavailable))
    return chosen


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers of this test make their directories; open to any user, of two words."""
    with processes.temporary_directory() as outer:
        outer.chmod(0o755)
        directory = outer / "two words"
        directory.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(directory))
        monkeypatch.delenv(processes.TEMPORARY_VARIABLE, raising=False)
        yield directory


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that work below the folder, or were given it in their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            told = [process.cwd(), *process.environ().values()]
            if any(text.startswith(f"{folder}/") for text in told):
                found.append(process)
    return found


def test_answers_and_leaves_nothing(kind: Kind, folder: Path) -> None:
    """It answers under its URL; afterwards neither a process nor a file of it is there."""
    with kind.server() as url:
        assert kind.answers(url)
        assert processes_of(folder)
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


def test_a_failing_block_ends_its_server(kind: Kind, folder: Path) -> None:
    """Whatever goes wrong in between."""
    with pytest.raises(ZeroDivisionError), kind.server():
        raise ZeroDivisionError
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs Linux's parent-death signal")
def test_a_killed_owner_takes_its_server_along(kind: Kind, folder: Path) -> None:
    """Its process ends when the one that started it is killed, though nobody could clean up."""
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind.name, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        owner.kill()
    eventually(lambda: not processes_of(folder), within=30, what="no process is left")


@pytest.mark.ring(1)
def test_a_password_is_needed() -> None:
    """Another user of this machine who finds the port is not let in."""
    with services.valkey_server() as url:
        at_once = Retry(NoBackoff(), 0)
        stranger = redis.Redis(port=urlsplit(url).port or 0, retry=at_once)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.ring(1)
def test_a_port_that_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is tried; when none is to be had, the error shows the server's last words."""
    with services.valkey_server() as url:
        taken, free = urlsplit(url).port, processes.free_port()
        monkeypatch.setattr(services, "free_port", iter([taken, free]).__next__)
        with services.valkey_server() as second:
            assert urlsplit(second).port == free
        monkeypatch.setattr(services, "free_port", lambda: taken)
        with pytest.raises(processes.StartFailedError, match=r"(?s)Valkey ended with 1:.*in use"):
            services.valkey_server().__enter__()
    assert list(folder.iterdir()) == []
