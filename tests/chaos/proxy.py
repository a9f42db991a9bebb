"""A TCP proxy that makes a network bad: it cuts, delays, and holds connections back."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from tests.processes import LOOPBACK

CHUNK = 4096


class Proxy:
    """Leads to ``target`` (host, port) until it is closed; see :attr:`port` for where it listens.

    ``delay``: seconds that every chunk is late, in both directions; it may be set at any time.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = 0.0
        self.cuts = 0
        self.held = threading.Event()
        self._target = target
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
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
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._sockets.clear()

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

    def close(self) -> None:
        """Accept no more, and cut what is open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.release()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._sockets += [client, server]
                for source, sink, sends in ((client, server, True), (server, client, False)):
                    pump = threading.Thread(
                        target=self._pump, args=(source, sink, sends), daemon=True
                    )
                    pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, sends: bool) -> None:
        seen = b""
        with suppress(OSError, ValueError):
            while data := source.recv(CHUNK):
                if self.delay:
                    time.sleep(self.delay)
                if sends:
                    seen, passing, rest = self._split(seen, data)
                    sink.sendall(passing)
                    self._open.wait()
                    data = rest
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

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
