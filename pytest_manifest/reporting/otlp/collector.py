"""Send traces and metrics to a collector of OpenTelemetry: OTLP over HTTP, as JSON.

Where that is refused, as protobuf, by the messages that OpenTelemetry publishes (extra ``otel``).
What OpenTelemetry's own exporters read of the environment holds here, too: the headers, which may
hold credentials, the timeout and the certificate.
"""

from __future__ import annotations

import base64
import gzip
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact_url

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
_TIMEOUT: Final = "OTEL_EXPORTER_OTLP_TIMEOUT"
_CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"
_RETRIED: Final = (429, 502, 503, 504)
"""Answers after which the protocol asks to send again."""
_TRIES: Final = 3
_LONGEST_WAIT: Final = 5.0
"""Seconds that a collector may ask to be left alone for."""
_SHOWN: Final = 200
_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_UNSUPPORTED: Final = 415
_NOWHERE: Final = (404, 405, 501)
"""Answers of what takes traces alone to metrics."""
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
"""Fields that OTLP has in hex in its JSON, and protobuf in base64."""
_EXTRA: Final = "it takes protobuf alone: pip install 'pytest-celery-manifest[otel]'"


Signal: TypeAlias = Literal["traces", "metrics"]


class Collector:
    """A collector at an address like ``http://localhost:4318``.

    ``takes_metrics``: whether it has a place for them; many that show traces have none.
    """

    def __init__(self, endpoint: str, environment: Mapping[str, str] = os.environ) -> None:
        """Read an address; raises StackError where it is none of HTTP."""
        self.endpoint = endpoint
        try:
            self._url = urlsplit(endpoint)
            is_http = self._url.scheme in ("http", "https") and self._url.port != 0
            is_one = is_http and bool(self._url.hostname)
        except ValueError:
            is_one = False
        if not is_one:
            raise StackError(
                f"{redact_url(endpoint)!r} is no address of a collector; give a URL like "
                "http://localhost:4318"
            )
        self._headers = dict(_headers(environment.get(_HEADERS, "")))
        milliseconds = environment.get(_TIMEOUT, "")
        self._timeout = int(milliseconds) / 1000 if milliseconds.isdecimal() else 10.0
        self._certificate = environment.get(_CERTIFICATE)
        self._kind = _JSON
        self.takes_metrics = True

    def send(self, signal: Signal, document: Mapping[str, JsonValue]) -> None:
        """Send one request. Raises StackError where the collector does not take all of it."""
        if signal == "metrics" and not self.takes_metrics:
            return
        body = self._body(signal, document)
        path, why = f"{self._url.path.rstrip('/')}/v1/{signal}", ""
        for number in range(_TRIES):
            try:
                status, pause, answer = self._post(path, body)
            except (OSError, HTTPException, ValueError) as error:
                why, pause, status = str(error) or type(error).__name__, "", 0
            else:
                if status < 300:
                    why = _rejected(self._read(signal, answer))
                    if not why:
                        return
                    break
                if signal == "metrics" and status in _NOWHERE:
                    self.takes_metrics = False
                    return
                why = f"it answered {status}: {answer[:_SHOWN].decode('utf-8', 'replace')}"
                if status == _UNSUPPORTED and self._kind == _JSON:
                    self._kind = _PROTOBUF
                    try:
                        body = self._body(signal, document)
                        continue
                    except ImportError:
                        self._kind, why = _JSON, _EXTRA
                if status not in _RETRIED:
                    break
            if number + 1 < _TRIES:
                asked = float(pause) if pause.isdecimal() else 0.3 * 2**number
                time.sleep(min(asked, _LONGEST_WAIT))
        raise StackError(
            f"{redact_url(self.endpoint)}: {signal} were not taken ({why}); see whether a "
            "collector listens there for OTLP over HTTP, mostly on port 4318"
        )

    def _post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        host = self._url.hostname or ""
        if self._url.scheme == "https":
            context = ssl.create_default_context(cafile=self._certificate)
            connection: HTTPConnection = HTTPSConnection(
                host, self._url.port, timeout=self._timeout, context=context
            )
        else:
            connection = HTTPConnection(host, self._url.port, timeout=self._timeout)
        with closing(connection):
            headers = {"Content-Type": self._kind, "Content-Encoding": "gzip"}
            connection.request("POST", path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Retry-After", ""), answer.read(1 << 16)

    def _body(self, signal: Signal, document: Mapping[str, JsonValue]) -> bytes:
        """Return a request as it is sent. Raises ImportError where protobuf is not installed."""
        if self._kind == _JSON:
            return gzip.compress(to_json(document), compresslevel=1)
        from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]  # no types

        request = ParseDict(_with_ids_in_base64(document), _messages(signal)[0]())
        return gzip.compress(request.SerializeToString(), compresslevel=1)

    def _read(self, signal: Signal, answer: bytes) -> JsonValue:
        """Return an answer as a document; null where it is none: others have their own words."""
        found: JsonValue = None
        if self._kind == _JSON:
            with suppress(ValueError):
                found = from_json(answer or b"{}")
            return found
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no types

        with suppress(DecodeError):
            found = MessageToDict(_messages(signal)[1].FromString(answer))
        return found


def _messages(signal: Signal) -> tuple[Any, Any]:  # protobuf has no types
    """Return the published messages of a request and of its answer."""
    if signal == "traces":
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        return traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

    return metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse


def _with_ids_in_base64(value: object) -> object:
    """Return a document as protobuf's own JSON has it."""
    if isinstance(value, Mapping):
        return {
            name: base64.b64encode(bytes.fromhex(one)).decode()
            if name in _IDS
            else _with_ids_in_base64(one)
            for name, one in value.items()
        }
    return [_with_ids_in_base64(one) for one in value] if isinstance(value, list) else value


def _headers(text: str) -> list[tuple[str, str]]:
    pairs = (one.partition("=") for one in text.split(",") if "=" in one)
    return [(name.strip(), unquote(value.strip())) for name, _, value in pairs]


def _rejected(answer: JsonValue) -> str:
    """Return what a collector says that it has left out; "" where it has taken all."""
    found = answer.get("partialSuccess") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return ""
    number = str(found.get("rejectedSpans") or found.get("rejectedDataPoints") or "")
    return (
        f"it rejected {number} of them: {found.get('errorMessage', '')}"
        if number.strip("0")
        else ""
    )
