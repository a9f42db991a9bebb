"""Answer the requests of the live page, on 127.0.0.1 alone, to who has the token.

Names of other hosts are refused (they may have been rebound to this machine), and so is whatever a
page of another origin asks for. Standard library alone.
"""

from __future__ import annotations

import hmac
import json
import math
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Condition, Thread
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.errors import ManifestToolError

LOOPBACK: Final = "127.0.0.1"
TOKEN_BYTES: Final = 32
COOKIE: Final = "manifest-watch"
HEADER: Final = "X-Manifest"
"""A header that only our own script sets: another origin would have to ask for it before."""
MOST_STREAMS: Final = 8
MOST_REQUESTS: Final = 32
"""Connections that are answered at once, streams among them; what is beyond them is closed."""
MOST_BODY: Final = 16_384
REQUEST_SECONDS: Final = 10.0
"""Seconds for which a request, or a reader who does not read, is waited for."""
SEND_BUFFER: Final = 16_384
"""Bytes that the kernel keeps for a stream: a slow reader has no more of a backlog than that."""
PERIOD: Final = 1.0

Query = Mapping[str, str]


class Content(Protocol):
    """The content of a page, asked by any thread; for ``snapshot`` and ``close`` by one alone.

    ``snapshot`` returns the newest figures as JSON and whether the run is over, ``page`` a page
    with its policy, ``entries`` some entries, ``entry`` one; ``act`` does what the body of a POST
    asks for.
    """

    def snapshot(self) -> tuple[str, bool]: ...
    def close(self) -> None: ...
    def page(self) -> tuple[bytes, str]: ...
    def entries(self, query: Query) -> JsonValue: ...
    def entry(self, query: Query) -> JsonValue: ...
    def act(self, document: Mapping[str, JsonValue]) -> JsonValue: ...

    @property
    def can_act(self) -> bool: ...


def listening(port: int = 0) -> socket.socket:
    """Return a socket that listens on this port of loopback; 0: on one that is free.

    Raises OSError where another program has it.
    """
    return socket.create_server((LOOPBACK, port), backlog=MOST_REQUESTS)


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def address_of(port: int, token: str) -> str:
    """Return the address that a person opens; who has it may look, and act where that is on."""
    return f"http://{LOOPBACK}:{port}/?token={token}"


class LiveServer(ThreadingHTTPServer):
    """Serve one live page on a socket that listens, until it is closed.

    ``readers``: how many streams are open; ``open_requests``: these, and what else is answered now.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, token: str, content: Content) -> None:
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_port: int = listener.getsockname()[1]
        self.token = token
        self.content = content
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.readers = 0
        self.open_requests = 0
        self._left_at = -math.inf
        self._places = BoundedSemaphore(MOST_REQUESTS)
        self._changed = Condition()
        self._snapshot: tuple[int, str] = (0, "")
        self._closed = False
        self._ticker = Thread(target=self._tick, name="manifest-live", daemon=True)
        self._ticker.start()

    @property
    def address(self) -> str:
        return address_of(self.server_port, self.token)

    # Requests

    def is_read(self, seconds: float) -> bool:
        """Return whether a request is being answered, or the last one was so few seconds ago."""
        with self._changed:
            return bool(self.open_requests) or time.monotonic() - self._left_at < seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, where there are not too many already."""
        if self._places.acquire(blocking=False):
            with self._changed:
                self.open_requests += 1
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()
            with self._changed:
                self.open_requests -= 1
                self._left_at = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader that has gone."""

    # Streams

    def join(self) -> bool:
        """Take a place among the readers; False where there is none."""
        with self._changed:
            if self.readers >= MOST_STREAMS:
                return False
            self.readers += 1
            self._changed.notify_all()
            return True

    def leave(self) -> None:
        with self._changed:
            self.readers -= 1

    def after(self, number: int) -> tuple[int, str] | None:
        """Wait for a snapshot that is newer than this one; None where the server is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._snapshot[0] > number)
            return None if self._closed else self._snapshot

    def _tick(self) -> None:
        """Take a snapshot each second while somebody reads."""
        try:
            self._take_snapshots()
        finally:
            self.content.close()

    def _take_snapshots(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self.readers)
            if self._closed:
                return
            began = time.monotonic()
            text, _ = self.content.snapshot()
            with self._changed:
                self._snapshot = (self._snapshot[0] + 1, text)
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._closed, timeout=max(0.05, PERIOD - (time.monotonic() - began))
                )

    def close(self) -> None:
        """End all streams and the server; :meth:`serve_forever` returns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.shutdown()
        self.server_close()
        self._ticker.join(REQUEST_SECONDS)


class Handler(BaseHTTPRequestHandler):
    """Answer one request; each connection has one."""

    server: LiveServer
    server_version = "manifest"
    sys_version = ""
    timeout = REQUEST_SECONDS

    def log_message(self, *_: object) -> None:
        """Log nothing: the first request has the token in it."""

    def do_GET(self) -> None:
        """Answer with the page, its streams and lists; refuse strangers first."""
        path, query = self._asked()
        if not self._is_ours():
            return
        if path == "/" and "token" in query:
            self._take_token(query["token"])
            return
        if not (self._has_cookie() and self._is_same_site()):
            return
        with self._answering():
            if path == "/":
                page, policy = self.server.content.page()
                self._answer(HTTPStatus.OK, page, "text/html; charset=utf-8", policy)
            elif path == "/events":
                self._stream()
            elif path in ("/entries", "/entry"):
                found = getattr(self.server.content, path[1:])(query)
                self._answer_json(HTTPStatus.OK, found)
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Have an action done that our own page asks for."""
        path, _ = self._asked()
        if not (self._is_ours() and self._has_cookie()):
            return
        origin = f"http://{self.headers.get('Host', '')}"
        is_own = (
            self.headers.get("Origin") == origin
            and self.headers.get("Sec-Fetch-Site") == "same-origin"
            and self.headers.get(HEADER) == "ctl"
            and self.headers.get_content_type() == "application/json"
        )
        if not is_own:
            self._refuse(HTTPStatus.FORBIDDEN, "only the page itself may ask for that")
        elif path != "/ctl" or not self.server.content.can_act:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing can be steered here: start it with control")
        else:
            with self._answering():
                self._act()

    def _act(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BODY} bytes are read")
            return
        try:
            document = from_json(self.rfile.read(int(length)))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "that is no JSON object")
            return
        self._answer_json(HTTPStatus.OK, self.server.content.act(document))

    # Who asks

    def _asked(self) -> tuple[str, Query]:
        parts = urlsplit(self.path)
        with suppress(ValueError):
            return parts.path, {
                name: values[-1]
                for name, values in parse_qs(parts.query, max_num_fields=20).items()
            }
        return parts.path, {}

    def _is_ours(self) -> bool:
        """Refuse what was asked of another name: a page of a foreign host may lead here."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for")
            return False
        return True

    def _take_token(self, token: str) -> None:
        """Have the token become a cookie, so that the address has it no more."""
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, _UNKNOWN)
            return
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        cookie = f"{COOKIE}-{self.server.server_port}={token}; HttpOnly; SameSite=Strict; Path=/"
        self.send_header("Set-Cookie", cookie)
        self._end_headers("default-src 'none'; frame-ancestors 'none'", 0)

    def _has_cookie(self) -> bool:
        found = ""
        with suppress(CookieError):
            jar = SimpleCookie(self.headers.get("Cookie", ""))
            name = f"{COOKIE}-{self.server.server_port}"
            found = jar[name].value if name in jar else ""
        if not hmac.compare_digest(found.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, _UNKNOWN)
            return False
        return True

    def _is_same_site(self) -> bool:
        """Refuse what a page of another origin asks for: another port counts as the same site."""
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._refuse(HTTPStatus.FORBIDDEN, "a page of another origin may not read this")
            return False
        return True

    # Answers

    def _answering(self) -> _Answering:
        return _Answering(self)

    def _stream(self) -> None:
        """Send the newest snapshot, again and again; a slow reader misses those between."""
        if not self.server.join():
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE, f"there are {MOST_STREAMS} readers already"
            )
            return
        try:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self._end_headers("default-src 'none'")
            number = 0
            while (found := self.server.after(number)) is not None:
                number, text = found
                self.wfile.write(f"data: {text}\n\n".encode())
        except OSError:
            pass  # who read it has gone, or reads no more
        finally:
            self.server.leave()

    def refuse_fault(self, error: ManifestToolError) -> None:
        """Answer that a question could not be answered, in a sentence."""
        self._answer_json(HTTPStatus.OK, {"problem": str(error), "rows": [], "total": 0})

    def _answer_json(self, status: HTTPStatus, document: JsonValue) -> None:
        text = json.dumps(document, ensure_ascii=True, allow_nan=False)
        self._answer(status, text.encode(), "application/json", "default-src 'none'")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, f"{why}\n".encode(), "text/plain; charset=utf-8", "default-src 'none'")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, policy: str) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self._end_headers(policy, len(body))
            self.wfile.write(body)

    def _end_headers(self, policy: str, length: int | None = None) -> None:
        if length is not None:
            self.send_header("Content-Length", str(length))
        if "frame-ancestors" not in policy:
            policy += "; frame-ancestors 'none'"
        for name, value in (
            ("Content-Security-Policy", policy),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()


class _Answering:
    """Answer with a sentence where the ledger or the manifest cannot be read now."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if isinstance(error, ManifestToolError):
            self._handler.refuse_fault(error)
            return True
        return False


_UNKNOWN: Final = "open the address that was printed, with its token"
