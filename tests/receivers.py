"""Servers that are told what becomes of a run: one that answers, and one that never does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Post:
    """What was posted: the path, the headers in lower case, and the body."""

    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Receiver:
    """A server on this machine; ``answers`` are the statuses of the next posts, 200 after them."""

    address: str
    posts: list[Post] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A server that takes what is posted."""
    taken: list[Receiver] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length).decode()
            status = taken[0].answers.pop(0) if taken[0].answers else 200
            if status < 300:
                taken[0].posts.append(Post(self.path, headers, body))
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken.append(Receiver(f"http://127.0.0.1:{server.server_port}"))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield taken[0]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
