"""Send traces and metrics to a collector of OpenTelemetry: OTLP over HTTP, as JSON.

What OpenTelemetry's own exporters read of the environment holds here, too: the headers, which may
hold credentials, the timeout and the certificate.
"""

from __future__ import annotations

import gzip
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, Literal, TypeAlias
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


Signal: TypeAlias = Literal["traces", "metrics"]


class Collector:
    """A collector at an address like ``http://localhost:4318``."""

    def __init__(self, endpoint: str, environment: Mapping[str, str] = os.environ) -> None:
        self.endpoint = endpoint
        self._url = urlsplit(endpoint)
        self._headers = dict(_headers(environment.get(_HEADERS, "")))
        milliseconds = environment.get(_TIMEOUT, "")
        self._timeout = int(milliseconds) / 1000 if milliseconds.isdecimal() else 10.0
        self._certificate = environment.get(_CERTIFICATE)

    def send(self, signal: Signal, document: Mapping[str, JsonValue]) -> None:
        """Send one request. Raises StackError where the collector does not take all of it."""
        body = gzip.compress(to_json(document), compresslevel=1)
        path, why = f"{self._url.path.rstrip('/')}/v1/{signal}", ""
        for number in range(_TRIES):
            try:
                status, pause, answer = self._post(path, body)
            except (OSError, HTTPException, ValueError) as error:
                why, pause, status = str(error) or type(error).__name__, "", 0
            else:
                if status < 300:
                    why = _rejected(answer)
                    if not why:
                        return
                    break
                why = f"it answered {status}: {answer[:_SHOWN].decode('utf-8', 'replace')}"
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
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            connection.request("POST", path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Retry-After", ""), answer.read(1 << 16)


def _headers(text: str) -> list[tuple[str, str]]:
    pairs = (one.partition("=") for one in text.split(",") if "=" in one)
    return [(name.strip(), unquote(value.strip())) for name, _, value in pairs]


def _rejected(answer: bytes) -> str:
    """Return what a collector says that it has left out; "" where it has taken all."""
    try:
        found = from_json(answer or b"{}").get("partialSuccess") or {}
    except (ValueError, AttributeError):
        return ""  # others answer in their own words
    number = int(found.get("rejectedSpans") or found.get("rejectedDataPoints") or 0)
    return f"it rejected {number} of them: {found.get('errorMessage', '')}" if number else ""
