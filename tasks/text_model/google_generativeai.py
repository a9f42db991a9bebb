"""Gemini by ``google-generativeai``, whose support has ended. Importing this loads the SDK.

Its ``GenerativeModel`` has one configuration for the whole process, and cannot join a stream whose
chunks are empty. So its message types are used with the client that it is built on: any number of
models, with keys and addresses of their own, live side by side.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Iterator
from typing import Final, Protocol, cast

import requests
import urllib3
from google.ai.generativelanguage import GenerativeServiceClient
from google.api_core import exceptions as api_errors
from google.api_core.client_options import ClientOptions
from google.auth import api_key as api_key_credentials
from google.protobuf import json_format  # type: ignore[import-untyped]  # protobuf has no types
from loguru import logger
from pydantic import JsonValue, SecretStr

from tasks.text_model.base import TextRequest
from tasks.text_model.failures import ModelFailure, Unauthorized
from tasks.text_model.gemini import Usage, http_failure
from tasks.text_model.gemini_model import Chunk, GeminiModel
from tasks.text_model.old_schema import old_schema
from tasks.text_model.parameters import Parameters, thinks
from tasks.text_model.settings import GOOGLE_GENERATIVEAI, TextModelSettings

with warnings.catch_warnings():
    # Logged once instead: where warnings are errors, this one would fail the import.
    warnings.simplefilter("ignore", FutureWarning)
    from google.generativeai import protos

ROOM_FOR_THOUGHTS: Final = 8192
"""Output tokens left for the thoughts of a model that thinks, as it cannot be told not to."""


class _Session(Protocol):
    """The attribute of the SDK's HTTP session that is changed here."""

    max_redirects: int

    def close(self) -> None: ...


class _Rest(Protocol):
    """The SDK's REST transport."""

    _session: _Session


class _Stream(Protocol):
    """A stream of chunks, as the REST transport gives it."""

    def __iter__(self) -> Iterator[protos.GenerateContentResponse]: ...

    def cancel(self) -> None: ...


class _RefusedError(Exception):
    """The service refused the key with 401."""


class _Key(api_key_credentials.Credentials):
    """The key as credentials, which cannot be refreshed.

    The SDK's own would "refresh" to the same key, and send a refused request twice again.
    """

    def refresh(self, request: object) -> None:
        raise _RefusedError


class GoogleGenerativeaiModel(GeminiModel):
    """A Gemini model by the old SDK over REST; it retries nothing and follows no redirect.

    The SDK has no word to limit a model's thoughts: so much as ``thinking_tokens`` of the settings
    are left for them.
    """

    provider = GOOGLE_GENERATIVEAI

    def __init__(self, settings: TextModelSettings, key: SecretStr) -> None:
        super().__init__(settings, key)
        room = ROOM_FOR_THOUGHTS if thinks(self.name) else 0
        self._room = settings.thinking_tokens or room
        endpoint = None if settings.base_url is None else settings.base_url.rstrip("/")
        self._client = GenerativeServiceClient(
            credentials=_Key(key.get_secret_value()),  # type: ignore[no-untyped-call]  # Google's
            transport="rest",
            client_options=ClientOptions(api_endpoint=endpoint),
        )
        # A redirect would take the key to another host; the SDK has no option for it.
        self._session().max_redirects = 0
        _say_once()

    def close(self) -> None:
        """Close the connections."""
        self._session().close()

    def _session(self) -> _Session:
        return cast("_Rest", self._client.transport)._session

    def _chunks(self, request: TextRequest) -> Generator[Chunk]:
        asked = _request(request, self.name, self._room, self._parameters)
        if not self._stream:
            yield _chunk(self._client.generate_content(asked, retry=None, timeout=request.timeout))
            return
        stream = cast(
            "_Stream",
            self._client.stream_generate_content(asked, retry=None, timeout=request.timeout),
        )
        try:
            for answer in stream:
                yield _chunk(answer)
        finally:
            stream.cancel()  # gives the connection back

    def _failure(self, error: Exception, timeout: float) -> ModelFailure | None:
        if isinstance(error, api_errors.GoogleAPICallError):
            headers = getattr(error.response, "headers", None)
            return http_failure(
                int(error.code or 500),
                {"message": _message(error), "details": list(error.details)},
                model=self.name,
                key=self._key,
                headers=headers,
            )
        if isinstance(error, _RefusedError):
            return Unauthorized(
                f"the service answered 401 for {self.name}; "
                "check GEMINI_API_KEY and what it may be used for"
            )
        if _is_timeout(error):
            return self._timed_out(timeout)
        if isinstance(error, requests.TooManyRedirects):
            return http_failure(302, self._said(error), model=self.name, key=self._key)
        if isinstance(error, requests.RequestException):
            return self._broken(error)
        unreadable = isinstance(error, json_format.ParseError | ValueError)
        return self._unreadable(error) if unreadable else None


def _message(error: api_errors.GoogleAPICallError) -> JsonValue:
    """Return the service's message, without the address that the SDK puts before it."""
    try:
        document: JsonValue = error.response.json()
    except (AttributeError, ValueError):
        return str(error.message)
    if isinstance(document, list) and document:
        document = document[0]
    told = document.get("error") if isinstance(document, dict) else None
    return told.get("message") if isinstance(told, dict) else str(error.message)


def _is_timeout(error: Exception) -> bool:
    """Return whether a timeout caused the error; requests reports one in a stream differently.

    There it is a ConnectionError made of urllib3's ReadTimeoutError.
    """
    if isinstance(error, requests.Timeout):
        return True
    causes = error.args if isinstance(error, requests.ConnectionError) else ()
    return any(isinstance(cause, urllib3.exceptions.ReadTimeoutError) for cause in causes)


def _content(text: str) -> protos.Content:
    return protos.Content(role="user", parts=[protos.Part(text=text)])


def _request(
    request: TextRequest, name: str, room: int, takes: Parameters
) -> protos.GenerateContentRequest:
    return protos.GenerateContentRequest(
        model=f"models/{name}",
        system_instruction=protos.Content(parts=[protos.Part(text=request.instructions)]),
        contents=[_content(request.prompt)],
        generation_config=protos.GenerationConfig(
            candidate_count=1 if takes.candidates else None,
            temperature=request.temperature if takes.sampling else None,
            max_output_tokens=request.max_output_tokens + room,
            response_mime_type="application/json",
            response_schema=protos.Schema(old_schema(request.schema)),
        ),
    )


def _chunk(answer: protos.GenerateContentResponse) -> Chunk:
    candidate = answer.candidates[0] if answer.candidates else None
    usage = None
    if "usage_metadata" in answer:
        counts = answer.usage_metadata
        usage = Usage(
            counts.prompt_token_count,
            counts.candidates_token_count,
            counts.total_token_count,
            counts.cached_content_token_count,
        )
    return Chunk(
        text="".join(part.text for part in candidate.content.parts) if candidate else "",
        finish_reason=_name(candidate.finish_reason) if candidate else "",
        block_reason=_name(answer.prompt_feedback.block_reason),
        usage=usage,
        model=answer.model_version,
    )


def _name(reason: object) -> str:
    """Return an enum member's name, "" for the unspecified one, or a number unknown to the SDK."""
    number = int(cast("int", reason))
    return "" if number == 0 else str(getattr(reason, "name", number))


_said = threading.Event()


def _say_once() -> None:
    """Tell the log, once a process, that this SDK should be left."""
    if not _said.is_set():
        _said.set()
        logger.warning(
            "support for the SDK google-generativeai has ended: set TEXT_MODEL=google-genai, "
            "which reaches the same models by the SDK that is maintained"
        )
