"""The proxy that makes a network bad."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.chaos.proxy import Proxy
from tests.processes import LOOPBACK
from tests.support import eventually


@pytest.fixture
def received() -> list[bytes]:
    """What the server behind the proxy got."""
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[Proxy]:
    """A proxy before a server that sends back what it gets."""
    listener = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4096):
                received.append(data)
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener), closing(Proxy(listener.getsockname())) as made:
        yield made
        listener.shutdown(socket.SHUT_RDWR)


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection((LOOPBACK, proxy.port), timeout=10)


def test_it_passes_everything(proxy: Proxy) -> None:
    """Both ways, also late."""
    proxy.delay = 0.01
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_a_cut_ends_open_connections_only(proxy: Proxy) -> None:
    """The next one passes."""
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        proxy.cut()
        with suppress(ConnectionError):
            assert client.recv(100) == b""
    with connected(proxy) as client:
        client.sendall(b"again")
        assert client.recv(100) == b"again"


def test_it_holds_behind_a_pattern(proxy: Proxy, received: list[bytes]) -> None:
    """Up to the second one, even split over two sends; the rest follows on release."""
    proxy.hold(b"<x>", 2)
    with connected(proxy) as client:
        client.sendall(b"1<x>2<")
        assert client.recv(100) == b"1<x>2<"
        client.sendall(b"x>3<x>")
        eventually(proxy.held.is_set)
        eventually(lambda: b"".join(received) == b"1<x>2<x>")
        proxy.release()
        eventually(lambda: b"".join(received) == b"1<x>2<x>3<x>")


def test_it_holds_at_once(proxy: Proxy, received: list[bytes]) -> None:
    """Without a pattern nothing more passes."""
    proxy.hold()
    with connected(proxy) as client:
        client.sendall(b"hello")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert received == []
        proxy.release()
        client.settimeout(10)
        assert client.recv(100) == b"hello"
