"""TLS to an external stack, by a local authority: a sentence says which certificate is refused."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import pytest
import trustme
from celery import Celery

from pytest_manifest.errors import StackError
from pytest_manifest.stack.health import check_stack
from pytest_manifest.urls import StackAddress
from tests.conftest import missing
from tests.processes import LOOPBACK
from tests.services import ServiceUnavailableError, rabbitmq_tls_server
from tests.stacks.servers import redis_tls

pytestmark = [pytest.mark.live, pytest.mark.timeout(170), pytest.mark.ring(1)]

Kind = Literal["redis", "rabbitmq"]
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority that nobody else knows, and the file of its certificate."""
    made = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, path


@contextmanager
def greeter(certificate: trustme.LeafCert) -> Iterator[int]:
    """Run a server that has this certificate and says nothing; yield its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with suppress(OSError):  # which a refused handshake is, too
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(10)
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def app_for(kind: Kind, port: int, ca: Path | None) -> tuple[str, Celery]:
    """A broker's URL, and an app whose settings say by which authority it is checked."""
    app = Celery("tls", set_as_current=False)
    if kind == "redis":
        url = f"rediss://:s3cret@{LOOPBACK}:{port}/0"
        app.conf.broker_use_ssl = {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_ca_certs": ca and str(ca),
            "ssl_check_hostname": True,
        }
    else:
        url = f"amqps://user:s3cret@{LOOPBACK}:{port}//"
        app.conf.broker_use_ssl = {
            "cert_reqs": ssl.CERT_REQUIRED,
            "ca_certs": ca and str(ca),
            "server_hostname": LOOPBACK,
        }
    return url, app


def failure(url: str, app: Celery | None) -> str:
    """The one sentence that says why this broker cannot be used."""
    with pytest.raises(StackError) as caught:
        check_stack(StackAddress(url, "rpc://", None, is_private=False), 10, app=app)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "s3cret" not in sentence
    return sentence


@pytest.mark.ring(1)
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stranger", "no authority that is known here vouches for it ("),
        ("expired", "certificate has expired"),
        ("name", f"IP address mismatch, certificate is not valid for '{LOOPBACK}'"),
        ("nobody named", "no authority that is known here vouches for it ("),
    ],
)
def test_a_certificate_that_is_not_accepted(
    kind: Kind, fault: str, said: str, authority: tuple[trustme.CA, Path]
) -> None:
    """Of another authority, too old, of another host, or by no authority that is named."""
    ours, path = authority
    of = trustme.CA() if fault == "stranger" else ours
    until = NOW - timedelta(days=1) if fault == "expired" else None
    names = ["elsewhere.example"] if fault == "name" else [LOOPBACK]
    certificate = of.issue_cert(*names, not_before=NOW - timedelta(days=2), not_after=until)
    with greeter(certificate) as port:
        url, app = app_for(kind, port, None if fault == "nobody named" else path)
        sentence = failure(url, app)
    scheme = url.partition("://")[0]
    assert sentence.startswith(f"broker {scheme}://")
    assert f"its certificate is refused: {said}" in sentence
    assert sentence.endswith("(check --manifest-broker)")


def test_a_certificate_of_the_right_authority(authority: tuple[trustme.CA, Path]) -> None:
    """The fault is then that the greeter is no broker: the tests above see what they ask for."""
    ours, path = authority
    for kind in ("redis", "rabbitmq"):
        with greeter(ours.issue_cert(LOOPBACK)) as port:
            assert "certificate" not in failure(*app_for(kind, port, path))


def test_redis_by_tls_as_its_url_says(tmp_path: Path) -> None:
    """With its authority it answers; with another one it is refused, by broker and result store."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with ExitStack() as stack:
        try:
            server = stack.enter_context(redis_tls())
        except ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        check_stack(StackAddress(server.broker, server.store, None, is_private=False), 10)
        query = urlencode({"ssl_cert_reqs": "required", "ssl_ca_certs": str(other)})
        wrong = f"{server.broker.partition('?')[0]}?{query}"
        assert "its certificate is refused: no authority" in failure(wrong, None)
        with pytest.raises(StackError, match=r"result store .* its certificate is refused"):
            check_stack(StackAddress(server.broker, wrong, None, is_private=False), 10)


@pytest.mark.ring(2)
def test_rabbitmq_by_tls(authority: tuple[trustme.CA, Path], tmp_path: Path) -> None:
    """A real one, by the app's settings: it answers, and is refused where another one vouches."""
    ours, path = authority
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with ExitStack() as stack:
        try:
            url = stack.enter_context(rabbitmq_tls_server(ours.issue_cert(LOOPBACK), path))
        except ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        _, app = app_for("rabbitmq", 0, path)
        check_stack(StackAddress(url, "rpc://", None, is_private=False), 10, app=app)
        _, app = app_for("rabbitmq", 0, other)
        assert "its certificate is refused: no authority" in failure(url, app)
