"""A collector of OpenTelemetry in a process of its own: OTLP over HTTP, as JSON and as protobuf.

It keeps what it is sent in a file, a JSON line a span or metric, with ids in hex. A request is
parsed into the published messages, and refused where a field of it is not known to them.

    python -m tests.otlp_receiver FILE [busy|full|hanging|protobuf|protobuf-full]

``busy``: the first request of each kind is answered by 503; ``full``: what comes is rejected, by a
partial success; ``hanging``: nothing is answered; ``protobuf``: it takes no JSON, and no metrics,
as many that show traces; ``protobuf-full``: no JSON, and it rejects the rest.
"""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf import json_format  # type: ignore[import-untyped]  # protobuf has no types
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

_IDS = ("traceId", "spanId", "parentSpanId")
Found = dict[str, Any]


def _converted(value: object, convert: Any) -> Any:
    """A document whose ids are converted; OTLP's JSON has hex where protobuf's has base64."""
    if isinstance(value, dict):
        return {
            key: convert(one) if key in _IDS else _converted(one, convert)
            for key, one in value.items()
        }
    return [_converted(one, convert) for one in value] if isinstance(value, list) else value


def _to_base64(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def _to_hex(text: str) -> str:
    return base64.b64decode(text).hex()


def parsed(path: str, body: bytes, kind: str) -> Found:
    """The request as JSON, read by the published messages. Raises where these do not have it."""
    messages: Found = {
        "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
        "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    }
    message = messages[path]()
    if kind == "application/json":
        json_format.ParseDict(_converted(json.loads(body), _to_base64), message)
    else:
        message.ParseFromString(body)
    found: Found = _converted(json_format.MessageToDict(message), _to_hex)
    return found


def _answered(answer: Found, kind: str) -> bytes:
    """An answer to traces in the form that was asked in."""
    if kind == "application/json":
        return json.dumps(answer).encode()
    message = trace_service_pb2.ExportTraceServiceResponse()
    return bytes(json_format.ParseDict(answer, message).SerializeToString())


def _attributes(of: Found) -> Found:
    return {
        one["key"]: next(iter(one.get("value", {}).values()), None)
        for one in of.get("attributes", [])
    }


def rows(document: Found) -> Iterator[Found]:
    """A row for each span and each point of a metric, with its attributes by name."""
    for resource in document.get("resourceSpans", []):
        service = _attributes(resource["resource"]).get("service.name")
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                more = {"attributes": _attributes(span), "service": service}
                yield {"signal": "span", "scope": scope["scope"]["name"], **span, **more}
    for resource in document.get("resourceMetrics", []):
        for scope in resource["scopeMetrics"]:
            for metric in scope["metrics"]:
                for point in metric.get("gauge", {}).get("dataPoints", []):
                    about = {"name": metric["name"], "unit": metric.get("unit", "")}
                    yield {"signal": "metric", **about, **_attributes(point)} | {
                        "value": point.get("asDouble", 0.0)
                    }


class Handler(BaseHTTPRequestHandler):
    """Take requests as a collector does."""

    file: Path
    manner = ""
    seen: ClassVar[set[str]] = set()
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        kind = self.headers["Content-Type"]
        if self.manner == "hanging":
            time.sleep(60)
        if self.manner.startswith("protobuf") and kind == "application/json":
            self._answer(415, b"Unsupported content type", "text/plain")
            return
        if self.manner == "protobuf" and self.path == "/v1/metrics":
            self._answer(405, b"Method Not Allowed", "text/plain")
            return
        with self.lock:
            if self.manner == "busy" and self.path not in self.seen:
                self.seen.add(self.path)
                self._answer(503, b"busy", kind, {"Retry-After": "0"})
                return
            try:
                found = [*rows(parsed(self.path, body, kind))]
            except Exception as error:
                found = [{"signal": "fault", "fault": repr(error)}]
            with self.file.open("a") as file:
                file.writelines(f"{json.dumps(one)}\n" for one in found)
        if found and found[0]["signal"] == "fault":
            self._answer(400, str(found).encode(), kind)
        elif self.manner.endswith("full"):
            answer = {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "no room"}}
            self._answer(200, _answered(answer, kind), kind)
        else:
            self._answer(200, b"{}" if kind == "application/json" else b"", kind)

    def _answer(self, status: int, body: bytes, kind: str, more: dict[str, str] = {}) -> None:  # noqa: B006 - it is read alone
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Receiver:
    """What a collector of this kind has been sent."""

    def __init__(self, endpoint: str, file: Path) -> None:
        self.endpoint, self._file = endpoint, file

    def _rows(self, signal: str) -> list[Found]:
        lines = self._file.read_text("utf-8").splitlines() if self._file.exists() else []
        found: list[Found] = [json.loads(line) for line in lines]
        assert not [one for one in found if one["signal"] == "fault"], found
        return [one for one in found if one["signal"] == signal]

    @property
    def spans(self) -> list[Found]:
        return self._rows("span")

    @property
    def metrics(self) -> list[Found]:
        return self._rows("metric")


@contextmanager
def receiver(folder: Path, manner: str = "") -> Iterator[Receiver]:
    """Run a collector, until the block is left."""
    file = folder / "otlp.jsonl"
    command = [sys.executable, "-m", "tests.otlp_receiver", str(file), manner]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Receiver(f"http://127.0.0.1:{port}", file)
        finally:
            process.kill()


def main() -> None:
    Handler.file, Handler.manner = Path(sys.argv[1]), sys.argv[2]
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
