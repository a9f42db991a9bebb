"""Whether an existing stack answers is known within a bounded time, in a sentence."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_manifest.broker.client import load_app
from pytest_manifest.errors import StackError
from pytest_manifest.stack.health import check_stack
from pytest_manifest.urls import StackAddress
from tests.conftest import missing
from tests.services import ServiceUnavailableError
from tests.stacks.servers import redis_tls

# Not an assertion on time: a hang must end the test, not the test run.
pytestmark = [pytest.mark.timeout(30), pytest.mark.ring(1)]


@pytest.fixture
def blackhole() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def failure(broker: str, backend: str = "rpc://", timeout: float = 5.0) -> str:
    """The one sentence that says why this stack cannot be used."""
    with pytest.raises(StackError) as caught:
        check_stack(StackAddress(broker, backend, None, is_private=False), timeout)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "s3cret" not in sentence
    return sentence


def test_a_stack_that_answers(valkey: str, tmp_path: Path) -> None:
    """Redis as broker, with Redis, the broker itself, a database or nothing as result store."""
    for backend in (valkey, "rpc://", "disabled://", "", f"db+sqlite:///{tmp_path}/results.db"):
        check_stack(StackAddress(valkey, backend, None, is_private=False))


def test_a_store_is_reached_by_the_apps_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS that settings alone ask for, as workers have it; the URL does not say so."""
    monkeypatch.syspath_prepend(tmp_path)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(redis_tls(by_settings=True))
        except ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        settings = {**server.broker_settings, **server.store_settings}
        (tmp_path / "tls_shop.py").write_text(
            "from celery import Celery\napp = Celery('tls_shop', set_as_current=False)\n"
            f"app.conf.update({settings!r})\n"
        )
        store = server.store.replace("rediss://", "redis://")
        address = StackAddress(server.broker, store, "tls_shop:app", is_private=False)
        check_stack(address, app=load_app(address))


def test_rabbitmq_answers(rabbitmq_url: str) -> None:
    """RabbitMQ is reached with the same call."""
    check_stack(StackAddress(rabbitmq_url, "rpc://", None, is_private=False))


def test_postgresql_answers(valkey: str, postgres_url: str) -> None:
    """PostgreSQL as result store is reached, and no table is made in it."""
    backend = "db+" + postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    check_stack(StackAddress(valkey, backend, None, is_private=False))


def test_a_wrong_password_of_rabbitmq(rabbitmq_url: str) -> None:
    """RabbitMQ's refusal is told."""
    scheme, _, rest = rabbitmq_url.partition("://")
    host = rest.rpartition("@")[2]
    sentence = failure(f"{scheme}://nobody:s3cret@{host}")

    assert "ACCESS_REFUSED" in sentence


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_closed_port(scheme: str, nobody: int) -> None:
    """A broker that is not running is named, without its password, and with what to check."""
    sentence = failure(f"{scheme}://user:s3cret@127.0.0.1:{nobody}//")

    assert f"broker {scheme}://user:***@127.0.0.1:{nobody}//" in sentence
    assert "refused" in sentence
    assert "--manifest-broker" in sentence


@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp"])
def test_a_silent_broker(scheme: str, blackhole: int) -> None:
    """A server that never answers is given up."""
    assert "did not answer" in failure(f"{scheme}://127.0.0.1:{blackhole}/0", timeout=0.5)


@pytest.mark.parametrize(
    "url", ["redis://:s3cret@127.0.0.1:{}/0", "db+postgresql+psycopg://u:s3cret@127.0.0.1:{}/x"]
)
def test_a_silent_result_store(url: str, valkey: str, blackhole: int) -> None:
    """The result store is checked, too, within the same time, and named as what it is."""
    sentence = failure(valkey, url.format(blackhole), timeout=0.5)

    assert sentence.startswith("result store ")
    assert "did not answer" in sentence
    assert "--manifest-backend" in sentence


def test_a_wrong_password(valkey: str) -> None:
    """The server's own refusal is told, and the password is not."""
    host = valkey.rpartition("@")[2]
    sentence = failure(f"redis://:s3cret@{host}")

    assert "redis://:***@" in sentence
    assert "username-password" in sentence


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://no-such-host.invalid:1/0", "no-such-host.invalid"),
        ("gopher://h", "No such transport: gopher"),
        ("redis://h:port/0", "port"),
    ],
)
def test_a_nonsense_broker(url: str, said: str) -> None:
    """A URL that cannot be right is an answer at once."""
    assert said in failure(url)


def test_a_database_that_cannot_be_opened(valkey: str, tmp_path: Path) -> None:
    """A database's own reason is told."""
    assert "unable to open database file" in failure(valkey, f"db+sqlite:///{tmp_path}/no/x.db")


def test_a_server_without_tls_is_thought_of(valkey: str) -> None:
    """It waits for more of what it does not understand, so nothing but its silence is seen."""
    assert "which a server without TLS never does to rediss://" in failure(
        valkey.replace("redis://", "rediss://") + "?ssl_cert_reqs=none", timeout=0.5
    )


def test_one_of_several_brokers_is_enough(valkey: str, nobody: int) -> None:
    """As for Celery, which takes the next one; where none answers, the reason is told."""
    gone = f"redis://:s3cret@127.0.0.1:{nobody}/0"
    check_stack(StackAddress(f"{gone};{valkey}", "rpc://", None, is_private=False))
    assert "refused" in failure(f"{gone};{gone}")


CHECKING = """
from uuid import UUID
from celery.backends.redis import RedisBackend

class Checking(RedisBackend):
    def get_key_for_task(self, task_id, key=""):
        UUID(task_id)
        return super().get_key_for_task(task_id, key)
"""


def test_a_store_may_refuse_ids_that_are_no_uuids(
    valkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's are, and so is the one of a result that is asked for to see whether it answers."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "checking_store.py").write_text(CHECKING, "utf-8")
    backend = f"checking_store:Checking+{valkey}"
    check_stack(StackAddress(valkey, backend, None, is_private=False), 30)
