"""The wire: reads requests, and answers or fails them as the desk says."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from pydantic import JsonValue

from tests.workflows.gemini_server import answers, bodies, parameters
from tests.workflows.gemini_server.answers import Asked, Json
from tests.workflows.gemini_server.batches import JobDesk
from tests.workflows.gemini_server.billing import answering, usage_of
from tests.workflows.gemini_server.desk import Call, Desk
from tests.workflows.gemini_server.script import Fault

METHOD: Final = re.compile(r"^/v1(?:beta)?/models/(?P<model>[^:/]+):(?P<method>\w+)$")
REFUSED: Final = frozenset(bodies.ERRORS) | {"rate_limited", "quota", "not_found"}
UNSENT: Final = frozenset({"timeout", "reset", "redirect"})
BROKEN_OFF: Final = frozenset({"cut_stream", "stalled_stream"})
LOOK_SECONDS: Final = 0.05


class Http(ThreadingHTTPServer):
    """Remembers its connections, so that idle ones can be cut and their threads waited for."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], desk: Desk, jobs: JobDesk, handler: type[Handler]
    ) -> None:
        self.desk = desk
        self.jobs = jobs
        self._open: set[socket.socket] = set()
        self._opening = threading.Lock()
        super().__init__(address, handler)
        self.url = f"http://{address[0]}:{self.server_address[1]}"

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._opening:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._opening:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._opening:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1, and breaks off where it is told to; a subclass has another wire format."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Http
    elsewhere = "/v1beta/models/gemini-elsewhere:generateContent"
    """Where a redirect leads."""
    _headers: dict[str, str]

    def log_message(self, *_: object) -> None:
        """Silent: ``calls`` has it all."""

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        self._headers = {}
        size = int(self.headers.get("Content-Length", "0"))
        raw = self.rfile.read(size)
        if self._serve_job(raw):
            return
        match = METHOD.match(url.path)
        if match is None:
            self._send(404, {"error": {"code": 404, "message": "Not Found", "status": "NOT_FOUND"}})
            return
        query = parse_qs(url.query)
        call, fault = self.server.desk.begin(match["method"], match["model"])
        call.headers = {name.lower(): value for name, value in self.headers.items()}
        numbers = "enum-encoding=int" in "".join(query.get("$alt", []))
        try:
            self._answer(call, fault, raw, query, numbers=numbers)
        finally:
            self.server.desk.end(call)
            call.headers.pop("x-goog-api-key", None)

    def do_GET(self) -> None:
        self._headers = {}
        if not self._serve_job(b""):
            self._send(404, {"error": {"code": 404, "message": "Not Found", "status": "NOT_FOUND"}})

    def _serve_job(self, raw: bytes) -> bool:
        """Serve what is about batch jobs and files; returns whether it was."""
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        served = self.server.jobs.serve(self.command, url.path, parse_qs(url.query), headers, raw)
        if served is None:
            return False
        self._headers = served.headers
        if served.document is None:
            self.close_connection = True
            self._reset()
        elif isinstance(served.document, bytes):
            self._send_raw(served.status, served.document)
        else:
            self._send(served.status, served.document)
        return True

    def _answer(
        self, call: Call, fault: Fault, raw: bytes, query: dict[str, list[str]], *, numbers: bool
    ) -> None:
        fault = self._key_fault(query) or fault
        if not call.model.startswith("gemini"):
            fault = Fault(kind="not_found")
        try:
            body = json.loads(raw)
            asked = answers.read_request(body)
        except (ValueError, AttributeError) as error:
            call.status, document = bodies.invalid_argument(str(error))
            self._send(call.status, document)
            return
        call.request, call.keys = body, asked.keys
        refused = parameters.refused(call.model, body)
        if refused is not None:
            call.status, document = bodies.invalid_argument(refused)
            self._send(call.status, document)
            return
        call.tier = str(body.get("serviceTier", "standard")).lower()
        turned_away = self.server.desk.script.sheds(call.number) if call.tier == "flex" else None
        if turned_away is not None:
            fault = Fault(kind=turned_away)
        fault = self.server.desk.spare(fault, asked.texts.values())
        poisoned = [(key, self._poison(asked.texts.get(key, ""))) for key in asked.keys]
        sick = [(key, one) for key, one in poisoned if one is not None]
        if fault.kind == "ok" and sick:
            fault = sick[0][1]
        call.fault = fault.kind
        latency = 0.0 if call.crowded else self.server.desk.script.latency
        self.server.desk.stopping.wait(fault.seconds + latency)
        if fault.kind in REFUSED:
            call.status, document = bodies.error_body(fault, call.model)
            self._send(call.status, document)
        elif fault.kind in UNSENT:
            self._fail(fault)
        else:
            keys = [key for key, one in sick if one.kind == fault.kind]
            self._generate(call, fault, asked, keys, query=query, numbers=numbers)

    def _key_fault(self, query: dict[str, list[str]]) -> Fault | None:
        given = self.headers.get("x-goog-api-key") or "".join(query.get("key", []))
        if not given:
            return Fault(kind="forbidden")
        return None if given == self.server.desk.key else Fault(kind="unauthorized")

    def _poison(self, text: str) -> Fault | None:
        return self.server.desk.script.poisoned(text)

    def _fail(self, fault: Fault) -> None:
        """Never answer, reset the connection, or send the client elsewhere."""
        if fault.kind == "redirect":
            self.send_response(307)
            self.send_header("Location", f"{self.server.url}{self.elsewhere}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._break_off(fault)

    def _break_off(self, fault: Fault) -> None:
        """Reset the connection, or say nothing more until the client goes."""
        self.close_connection = True
        if fault.kind in {"reset", "cut_stream"}:
            self._reset()
            return
        while not self.server.desk.stopping.is_set():
            ready, _, _ = select.select([self.connection], [], [], LOOK_SECONDS)
            if ready and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _reset(self) -> None:
        """End the connection with RST: nothing is lingered for."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def _generate(
        self,
        call: Call,
        fault: Fault,
        asked: Asked,
        sick: list[str],
        *,
        query: dict[str, list[str]],
        numbers: bool,
    ) -> None:
        text, finish = answers.written(fault, asked, sick)
        call.answered = answering(call.model, fault)
        call.tier = self.server.desk.script.served_as or call.tier
        self._headers = {"x-gemini-service-tier": call.tier}
        usage = self._usage(call, fault, asked, text)
        call.status = 200
        stream = call.method == "streamGenerateContent"
        if fault.kind == "malformed_body":
            self._send_raw(200, b'{"candidates": [{"content": ')
            return
        if fault.kind == "blocked_prompt":
            whole = [bodies.blocked_prompt(fault.reason, usage, call.answered, numbers=numbers)]
        elif fault.kind == "empty":
            whole = [{"usageMetadata": usage, "modelVersion": call.answered}]
        elif stream:
            self._send_stream(
                bodies.chunks(
                    text, usage=usage, model=call.answered, finish=finish, numbers=numbers
                ),
                sse=query.get("alt") == ["sse"],
                fault=fault,
            )
            return
        else:
            whole = [
                bodies.response(
                    text, usage=usage, model=call.answered, finish=finish, numbers=numbers
                )
            ]
        if stream:
            self._send_stream([*whole], sse=query.get("alt") == ["sse"], fault=fault)
        elif fault.kind in BROKEN_OFF:
            self._break_off(fault)
        else:
            self._send(200, whole[0])

    def _usage(self, call: Call, fault: Fault, asked: Asked, text: str | None) -> Json:
        """What is billed for the call, as the wire has it."""
        usage = usage_of(call, asked, text, self.server.desk.script)
        if fault.kind in BROKEN_OFF | {"malformed_body"}:
            call.tokens_in = call.tokens_out = call.cached = 0  # no count reaches the client
        return usage

    def _send(self, status: int, document: Json) -> None:
        self._send_raw(status, json.dumps(document, ensure_ascii=False).encode())

    def _send_raw(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self._send_headers()
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_headers(self) -> None:
        """Send what the response tells beside its document."""
        for name, value in self._headers.items():
            self.send_header(name, value)

    def _send_stream(self, documents: list[JsonValue], *, sse: bool, fault: Fault) -> None:
        """Server-sent events, or one JSON array; each document in a chunk of its own."""
        self.send_response(200)
        self._send_headers()
        kind = "text/event-stream" if sse else "application/json; charset=UTF-8"
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, document in enumerate(documents):
            text = json.dumps(document, ensure_ascii=False)
            if sse:
                self._send_chunk(f"data: {text}\r\n\r\n")
            else:
                self._send_chunk(("," if number else "[") + text)
            if fault.kind in BROKEN_OFF:
                self._break_off(fault)
                return
        if not sse:
            self._send_chunk("]")
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, text: str) -> None:
        content = text.encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()
