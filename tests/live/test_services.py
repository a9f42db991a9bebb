"""The private servers of live tests: they answer, and nothing of them is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from tests import services
from tests.crud_load import ROOT
from tests.support import eventually

pytestmark = pytest.mark.live

Server = Callable[[], AbstractContextManager[str]]

HOLD_ALL = """
import sys
from contextlib import ExitStack
from tests import services
with ExitStack() as stack:
    for name in sys.argv[1:]:
        stack.enter_context(getattr(services, name)())
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers of this test make their directories; short, and open to any user."""
    with services.temporary_directory() as directory:
        directory.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(directory))
        yield directory


@contextmanager
def nothing_is_left(folder: Path) -> Iterator[None]:
    """No process of ours, no directory and no port mapper outlives the block."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    assert list(folder.iterdir()) == []


def answers_valkey(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def answers_postgres(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_valkey(folder: Path) -> None:
    """It answers with its password only, and a second one has another port."""
    with nothing_is_left(folder), services.valkey_server() as one, services.valkey_server() as two:
        assert answers_valkey(one)
        assert answers_valkey(two)
        assert urlsplit(one).port != urlsplit(two).port
        stranger = redis.Redis(port=urlsplit(one).port or 0)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.postgres
def test_postgres(folder: Path, postgres_url: str) -> None:
    """It answers, under a failing test too it ends, and leaves nothing."""
    assert answers_postgres(postgres_url)


@pytest.mark.rabbitmq
def test_rabbitmq(rabbitmq_url: str) -> None:
    """It speaks AMQP with the user that its URL names."""
    import kombu

    with kombu.Connection(rabbitmq_url) as connection:
        connection.connect()
        assert connection.connected


def test_a_failing_block_ends_its_server(folder: Path) -> None:
    """Whatever goes wrong in between."""
    with nothing_is_left(folder):
        with pytest.raises(ZeroDivisionError), services.valkey_server() as url:
            assert answers_valkey(url)
            raise ZeroDivisionError
        with pytest.raises(redis.ConnectionError):
            answers_valkey(url)


def test_a_server_that_does_not_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error shows its last log lines, after as many tries as ports may be taken."""
    ports: list[int] = []

    def always_taken() -> int:
        ports.append(services.urlsplit_port(taken))
        return ports[-1]

    with services.valkey_server() as taken, monkeypatch.context() as patched:
        patched.setattr(services, "free_port", always_taken)
        with pytest.raises(services.StartFailedError, match=r"(?s)Valkey ended with 1:.*in use"):
            services.valkey_server().__enter__()
    assert len(ports) == services.TRIES
