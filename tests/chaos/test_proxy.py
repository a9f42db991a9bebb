"""The proxy that makes a network bad."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.chaos.proxy import Proxy, sliced
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
    proxy.delay, proxy.jitter = 0.01, 0.01
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_it_is_late_by_at_least_its_delay(proxy: Proxy) -> None:
    """In each direction; a jitter comes on top, in the same order."""
    proxy.delay = 0.05
    began = time.monotonic()
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    assert time.monotonic() - began >= 0.1
    proxy.delay, proxy.jitter = 0.0, 0.02
    texts = [b"%d," % number for number in range(20)]
    with connected(proxy) as client:
        for text in texts:
            client.sendall(text)
        assert received_by(client, sum(map(len, texts))) == b"".join(texts)


def test_slices_are_sent_one_by_one(
    proxy: Proxy, received: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, and nothing is lost; how many of them a read brings is the system's affair."""
    sizes: list[int] = []
    send = socket.socket.sendall

    def counted(self: socket.socket, data: bytes) -> None:
        sizes.append(len(data))
        send(self, data)

    monkeypatch.setattr(socket.socket, "sendall", counted)
    proxy.slice = 1
    text = bytes(range(250))
    with connected(proxy) as client:
        client.sendall(text)
        assert received_by(client, len(text)) == text
    assert b"".join(received) == text
    assert sizes.count(1) >= 2 * len(text)
    assert [*sliced(b"abcde", 2)] == [b"ab", b"cd", b"e"]
    assert [*sliced(b"abcde", 0)] == [b"abcde"]


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


def test_a_client_that_is_half_closed_still_speaks(proxy: Proxy, received: list[bytes]) -> None:
    """It reads an end, what it sends arrives, and no answer comes back."""
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        assert proxy.half_close("client") == 1
        assert client.recv(100) == b""
        client.sendall(b"and more")
        eventually(lambda: b"".join(received) == b"helloand more")
        assert client.recv(100) == b""


def test_a_server_that_is_half_closed_ends_unheard(proxy: Proxy, received: list[bytes]) -> None:
    """It reads an end and closes; the client may go on to send, and hears neither end nor error."""
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        assert proxy.half_close("server") == 1
        client.settimeout(0.3)
        for _ in range(3):
            client.sendall(b"is there anybody?")
            with pytest.raises(TimeoutError):
                client.recv(100)
        assert b"".join(received) == b"hello"
        proxy.heal()
        client.settimeout(10)
        assert is_closed(client)


def test_a_connection_that_is_over_is_not_half_closed(proxy: Proxy) -> None:
    """Only what is open is there to be spoilt."""
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    eventually(lambda: proxy.half_close("server") == 0)


def test_silence_accepts_and_never_answers(proxy: Proxy, received: list[bytes]) -> None:
    """What was open is reset. When it speaks again those that it has ignored stay ignored."""
    with connected(proxy) as early:
        early.sendall(b"hello")
        assert early.recv(100) == b"hello"
        proxy.fall_silent()
        assert is_closed(early)
    with connected(proxy) as ignored:
        ignored.sendall(b"is there anybody?")
        ignored.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ignored.recv(100)
        proxy.speak()
        with connected(proxy) as late:
            late.sendall(b"again")
            assert late.recv(100) == b"again"
        with pytest.raises(TimeoutError):
            ignored.recv(100)
        assert b"".join(received) == b"helloagain"
        proxy.heal()
        ignored.settimeout(10)
        assert is_closed(ignored)


def is_closed(client: socket.socket) -> bool:
    """Whether the next thing that is read is an end, orderly or not."""
    with suppress(ConnectionError):
        return client.recv(100) == b""
    return True


def received_by(client: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    text = b""
    while len(text) < count:
        some = client.recv(count - len(text))
        assert some, f"the end came after {len(text)} bytes"
        text += some
    return text


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
