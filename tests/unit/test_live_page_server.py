"""Who the live page's server answers, and what: 127.0.0.1, the token's owner, our own page."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise

import psutil
import pytest
from pydantic import JsonValue

from pytest_manifest.errors import PlanError
from pytest_manifest.reporting.live_page import server as served
from pytest_manifest.reporting.live_page.page import live_page
from pytest_manifest.reporting.live_page.server import LiveServer, listening, new_token
from tests.player import running
from tests.support import eventually


class Content:
    """Shows numbers that grow; remembers what it was asked to do."""

    def __init__(self, *, can_act: bool = True, size: int = 0) -> None:
        self.can_act = can_act
        self.size = size
        self.number = 0
        self.acts: list[Mapping[str, JsonValue]] = []
        self.held = threading.Event()
        self.held.set()

    def snapshot(self) -> tuple[str, bool]:
        self.number += 1
        return json.dumps({"n": self.number, "x": "x" * self.size}), False

    def close(self) -> None: ...

    def page(self) -> tuple[bytes, str]:
        text, policy = live_page()
        return text.encode(), policy

    def entries(self, query: served.Query) -> JsonValue:
        self.held.wait(30)
        if "fault" in query:
            raise PlanError("there is no such thing")
        return {"rows": [dict(query)], "total": 1}

    def entry(self, query: served.Query) -> JsonValue:
        return dict(query)

    def act(self, document: Mapping[str, JsonValue]) -> JsonValue:
        self.acts.append(document)
        return {"text": "done"}


@contextmanager
def serving(content: Content) -> Iterator[LiveServer]:
    server = LiveServer(listening(), new_token(), content)
    with running(partial(server.serve_forever, 0.01), content.held.set, server.close):
        yield server


@pytest.fixture
def content() -> Content:
    return Content()


@pytest.fixture
def server(content: Content) -> Iterator[LiveServer]:
    with serving(content) as made:
        yield made


Answer = tuple[int, Mapping[str, str], str]


def ask(
    server: LiveServer,
    path: str,
    method: str = "GET",
    body: str | None = None,
    host: str | None = None,
    **more: str,
) -> Answer:
    """What a request is answered; it has the cookie unless ``Cookie`` says otherwise."""
    headers = {"Host": host or f"127.0.0.1:{server.server_port}", "Cookie": cookie(server)}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def cookie(server: LiveServer) -> str:
    return f"manifest-watch-{server.server_port}={server.token}"


def ours(server: LiveServer) -> dict[str, str]:
    """The headers that a browser sends with a request of our own page."""
    return {
        "Origin": f"http://127.0.0.1:{server.server_port}",
        "Sec_Fetch_Site": "same-origin",
        "X_Manifest": "ctl",
        "Content_Type": "application/json",
    }


ACT = '{"action": "pause", "data": {}, "reason": ""}'


def test_it_listens_on_loopback_alone_on_a_port_of_chance(server: LiveServer) -> None:
    """Nobody else's machine reaches it, and nobody guesses where it is."""
    own = [one.laddr for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"]
    assert [one.ip for one in own if one.port == server.server_port] == ["127.0.0.1"]
    with listening() as other:
        assert other.getsockname()[1] != server.server_port


def test_the_token_has_32_bytes_and_becomes_a_cookie(server: LiveServer) -> None:
    """HttpOnly and SameSite=Strict; then the address has it no more, and 403 without."""
    padded = server.token + "=" * (-len(server.token) % 4)
    assert len(base64.urlsafe_b64decode(padded)) == 32
    assert new_token() != new_token()
    status, headers, _ = ask(server, server.address.partition("/?")[2].join(("/?", "")), Cookie="")
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].split("; ") == [
        cookie(server),
        "HttpOnly",
        "SameSite=Strict",
        "Path=/",
    ]
    assert ask(server, "/")[0] == 200


@pytest.mark.parametrize("path", ["/", "/events", "/entries", "/entry?id=a", "/nothing"])
@pytest.mark.parametrize("given", ["", "other=1", "manifest-watch-{}=wrong", "{"])
def test_without_the_token_all_is_refused(server: LiveServer, path: str, given: str) -> None:
    status, _, text = ask(server, path, Cookie=given.replace("{}", str(server.server_port)))
    assert (status, text) == (403, "open the address that was printed, with its token\n")
    assert ask(server, "/?token=wrong")[0] == 403
    assert ask(server, "/ctl", "POST", ACT, **(ours(server) | {"Cookie": given}))[0] == 403


@pytest.mark.parametrize("name", ["evil.example", "evil.example:{}", "127.0.0.1", "0.0.0.0:{}", ""])
@pytest.mark.parametrize("path", ["/", "/?token={}", "/events", "/entries"])
def test_a_foreign_host_is_misdirected(server: LiveServer, name: str, path: str) -> None:
    """A page of that name may have been rebound to this machine: 421, whatever it knows."""
    host = name.replace("{}", str(server.server_port)) or "127.0.0.1:1"
    assert ask(server, path.replace("{}", server.token), host=host)[0] == 421
    status, _, _ = ask(server, "/ctl", "POST", ACT, host=host, **ours(server))
    assert status == 421


def test_an_action_of_our_own_page_is_done(server: LiveServer, content: Content) -> None:
    assert ask(server, "/ctl", "POST", ACT, **ours(server))[::2] == (200, '{"text": "done"}')
    assert content.acts == [json.loads(ACT)]


@pytest.mark.parametrize(
    "changed",
    [
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": ""},
        {"X_Manifest": ""},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
def test_a_post_of_another_origin_is_refused(
    server: LiveServer, content: Content, changed: dict[str, str]
) -> None:
    """Origin, Sec-Fetch-Site, our header and the kind of what is sent are all needed."""
    assert ask(server, "/ctl", "POST", ACT, **(ours(server) | changed))[0] == 403
    assert content.acts == []


def test_without_control_nothing_is_done() -> None:
    content = Content(can_act=False)
    with serving(content) as server:
        assert ask(server, "/ctl", "POST", ACT, **ours(server))[0] == 404
    assert content.acts == []


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize("path", ["/", "/events", "/entries", "/entry?id=a"])
def test_another_origin_reads_nothing(server: LiveServer, site: str, path: str) -> None:
    """A page of another port of this host is of the same site, and its requests have the cookie."""
    assert ask(server, path, Sec_Fetch_Site=site)[0] == 403
    assert "Access-Control-Allow-Origin" not in ask(server, "/entries")[1]


def test_the_policy_allows_just_what_the_page_has(server: LiveServer) -> None:
    """By hashes; nothing from elsewhere, in no frame, and nothing is kept."""
    _, headers, text = ask(server, "/")
    policy = dict(
        one.strip().partition(" ")[::2] for one in headers["Content-Security-Policy"].split(";")
    )
    assert policy.keys() == {
        *("default-src", "base-uri", "form-action", "frame-ancestors"),
        *("connect-src", "style-src", "script-src"),
    }
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert policy["connect-src"] == "'self'"
    for kind in ("style", "script"):
        parts = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()) for one in parts]
        assert len(digests) == 2
        assert policy[f"{kind}-src"] == " ".join(f"'sha256-{one.decode()}'" for one in digests)
    for path in ("/entries", "/nothing"):
        assert "frame-ancestors 'none'" in ask(server, path)[1]["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_is_small_and_has_the_licence_of_its_library() -> None:
    """110 kB in all, of which half is the library of the plot."""
    text, _ = live_page()
    assert len(text.encode()) <= 110_000
    assert "Copyright (c) 2022 Leon Sorokin" in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@contextmanager
def stream(server: LiveServer, buffer: int = 0) -> Iterator[socket.socket]:
    """A reader of the stream, behind its headers."""
    with socket.socket() as reader:
        if buffer:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        reader.settimeout(20)
        reader.connect(("127.0.0.1", server.server_port))
        host = f"127.0.0.1:{server.server_port}"
        asked = f"GET /events HTTP/1.0\r\nHost: {host}\r\nCookie: {cookie(server)}\r\n\r\n"
        reader.sendall(asked.encode())
        yield reader


def head(reader: socket.socket) -> str:
    return reader.recv(100).decode().partition("\r\n")[0]


def test_there_are_eight_streams_at_most(server: LiveServer) -> None:
    """The ninth is refused; when one has left there is room again."""
    with ExitStack() as readers:
        some = [readers.enter_context(stream(server)) for _ in range(8)]
        assert {head(one) for one in some} == {"HTTP/1.0 200 OK"}
        assert ask(server, "/events")[0] == 503
        some[0].close()
        eventually(lambda: server.readers == 7, what="a reader has left")
        with stream(server) as other:
            assert head(other) == "HTTP/1.0 200 OK"


def test_requests_are_bounded(server: LiveServer, content: Content) -> None:
    """No more are answered at once than 32, and no body of more than 16 kB is read."""
    content.held.clear()
    host = f"127.0.0.1:{server.server_port}"
    text = f"GET /entries HTTP/1.0\r\nHost: {host}\r\nCookie: {cookie(server)}\r\n\r\n"
    with ExitStack() as held:
        some = []
        for _ in range(served.MOST_REQUESTS):
            one = held.enter_context(socket.create_connection(("127.0.0.1", server.server_port)))
            one.sendall(text.encode())
            some.append(one)
        eventually(lambda: server.open_requests == served.MOST_REQUESTS)
        with socket.create_connection(("127.0.0.1", server.server_port)) as further:
            further.settimeout(20)
            assert further.recv(10) == b""
        content.held.set()
        assert {head(one) for one in some} == {"HTTP/1.0 200 OK"}
    large = json.dumps({"action": "pause", "reason": "x" * 16_384})
    assert ask(server, "/ctl", "POST", large, **ours(server))[0] == 413
    for body in ("[1]", "{", ""):
        assert ask(server, "/ctl", "POST", body, **ours(server))[0] == 400
    assert content.acts == []


def test_a_slow_reader_gets_the_newest_and_no_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it does not read, no more is kept for it than fits into two small buffers."""
    monkeypatch.setattr(served, "PERIOD", 0.0)
    content = Content(size=15_000)
    with serving(content) as server, stream(server, buffer=2_048) as reader:
        eventually(lambda: content.number > 100, what="a hundred snapshots")
        before, known = content.number, b""
        while True:
            known += reader.recv(65_536)
            numbers = [int(one) for one in re.findall(rb'data: {"n": (\d+)', known)]
            if numbers and numbers[-1] >= before:
                break
        skipped = [after - one for one, after in pairwise(numbers)]
        assert max(skipped) > 50
        assert sum(one < before for one in numbers) <= 8


def test_nothing_is_read_while_nobody_looks(server: LiveServer, content: Content) -> None:
    """The figures are asked for only while somebody has the page open."""
    assert content.number == 0
    with stream(server) as reader:
        assert head(reader) == "HTTP/1.0 200 OK"
        eventually(lambda: content.number)
    eventually(lambda: server.readers == 0, what="the reader has left")


def test_a_fault_is_answered_in_a_sentence(server: LiveServer) -> None:
    _, _, text = ask(server, "/entries?fault=1")
    assert json.loads(text) == {"problem": "there is no such thing", "rows": [], "total": 0}
    assert ask(server, "/nothing")[::2] == (404, "there is no such page\n")
    assert ask(server, f"/entries?{'&'.join(f'a{n}=1' for n in range(50))}")[0] == 200


def test_it_is_read_while_a_request_is_open(server: LiveServer) -> None:
    """And for a while after the last one; before the first one it is not."""
    assert not server.is_read(1000)
    with stream(server) as reader:
        assert head(reader) == "HTTP/1.0 200 OK"
        assert server.is_read(0)
    eventually(lambda: not server.is_read(0), what="the reader has left")
    assert server.is_read(1000)
