"""A TCP proxy that makes a network bad: it cuts, delays, slices, half-closes, and falls silent."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.processes import LOOPBACK

CHUNK = 4096
End: TypeAlias = Literal["client", "server"]


@dataclass(eq=False)
class _Connection:
    """A client's connection and ours to the server; ``told``: ends that were told a false end;
    ``over``: directions in which nothing comes any more."""

    client: socket.socket
    server: socket.socket
    told: set[socket.socket] = field(default_factory=set)
    over: int = 0

    def half_close(self, end: End) -> None:
        """Tell one end that the other has nothing more to say, which is not so."""
        peer = self.client if end == "client" else self.server
        self.told.add(peer)
        with suppress(OSError):
            peer.shutdown(socket.SHUT_WR)

    def pass_end(self, sink: socket.socket) -> None:
        """Tell an end that the other has closed; of a server that was misled no client hears."""
        if sink is self.client and self.server in self.told:
            return
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in (self.client, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Proxy:
    """Leads to ``target`` (host, port) until it is closed; see :attr:`port` for where it listens.

    ``delay``: seconds that every chunk is late, in both directions, and ``jitter``: up to so many
    more, at random; ``slice``: how many bytes are passed at once (0: all that came). They may be
    set at any time.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = self.jitter = 0.0
        self.slice = 0
        self.cuts = 0
        self.held = threading.Event()
        self._target = target
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._ignored: list[socket.socket] = []
        self._is_silent = False
        self._pattern: bytes | None = None
        self._left = 0
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every open connection; new ones pass."""
        with self._lock:
            self.cuts += 1
            for one in self._connections:
                one.close()
            self._connections.clear()

    def half_close(self, end: End) -> int:
        """Let this end of every open connection see a FIN; how many there were.

        A client still sends, and the server hears it; what that answers is dropped. A server takes
        its client for gone and closes, and the client never hears of it, nor of anything else.
        """
        with self._lock:
            for one in self._connections:
                one.half_close(end)
            return len(self._connections)

    def fall_silent(self) -> None:
        """Reset what is open, and accept new connections without a word, until :meth:`speak`."""
        with self._lock:
            self._is_silent = True
        self.cut()

    def speak(self) -> None:
        """Pass new connections again. Those that were met with silence never hear anything."""
        with self._lock:
            self._is_silent = False

    def hold(self, pattern: bytes = b"", count: int = 1) -> None:
        """Stop all that clients send right behind the ``count``-th ``pattern`` (b"": at once).

        :attr:`held` is set when it has happened; :meth:`release` ends it.
        """
        with self._lock:
            self._pattern, self._left = pattern, count
            if not pattern:
                self._open.clear()
                self.held.set()

    def release(self) -> None:
        """Let everything pass again, also what was held back."""
        with self._lock:
            self._pattern = None
            self.held.clear()
            self._open.set()

    def heal(self) -> None:
        """Be a good network again: what it has spoilt is reset, so that each client sees it."""
        self.delay = self.jitter = 0.0
        self.slice = 0
        self.speak()
        self.release()
        with self._lock:
            spoilt = [one for one in self._connections if one.told]
            self._connections = [one for one in self._connections if not one.told]
            ignored, self._ignored = self._ignored, []
        for connection in spoilt:
            connection.close()
        for client in ignored:
            client.close()

    def close(self) -> None:
        """Accept no more, and cut what is open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.heal()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if self._is_silent:
                        self._ignored.append(client)
                        continue
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client, server)
        with self._lock:
            if self._is_silent:  # since it was accepted
                connection.close()
                return
            self._connections.append(connection)
        for source, sink in ((client, server), (server, client)):
            pump = threading.Thread(target=self._pump, args=(connection, source, sink), daemon=True)
            pump.start()

    def _pump(self, connection: _Connection, source: socket.socket, sink: socket.socket) -> None:
        seen = b""
        with suppress(OSError, ValueError):
            while data := source.recv(CHUNK):
                if self.delay or self.jitter:
                    time.sleep(self.delay + random.uniform(0.0, self.jitter))
                if source is connection.client:
                    seen, passing, rest = self._split(seen, data)
                    self._send(connection, sink, passing)
                    self._open.wait()
                    data = rest
                self._send(connection, sink, data)
        connection.pass_end(sink)
        with self._lock:
            connection.over += 1
            if connection.over == 2 and connection in self._connections:
                self._connections.remove(connection)
                connection.close()

    def _send(self, connection: _Connection, sink: socket.socket, data: bytes) -> None:
        """Pass something on; to an end that was told that nothing comes, nothing does."""
        for some in sliced(data, self.slice):
            if sink in connection.told:
                return
            try:
                sink.sendall(some)
            except OSError:
                if sink not in connection.told:
                    raise

    def _split(self, seen: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
        """What is kept in mind, what passes, and what waits until the proxy is open."""
        with self._lock:
            pattern = self._pattern
            if not pattern or not self._open.is_set():
                return b"", b"", data
            text, position = seen + data, 0
            while self._left:
                found = text.find(pattern, position)
                if found < 0:
                    return text[max(position, len(text) - len(pattern) + 1) :], data, b""
                position = found + len(pattern)
                self._left -= 1
            self._open.clear()
            self.held.set()
            passes = position - len(seen)
            return b"", data[:passes], data[passes:]


def sliced(data: bytes, size: int) -> Iterator[bytes]:
    """Take data apart into pieces of this size; 0: not at all."""
    step = size or len(data) or 1
    return (data[start : start + step] for start in range(0, len(data), step))
