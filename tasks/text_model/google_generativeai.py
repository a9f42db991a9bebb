"""Gemini by ``google-generativeai``, whose support has ended. Importing this loads the SDK.

Its ``GenerativeModel`` has one configuration for the whole process, and cannot join a stream whose
chunks are empty. So its message types are used with the client that it is built on: any number of
models, with keys and addresses of their own, live side by side.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Final, Protocol, cast

import requests
import urllib3
from google.ai.generativelanguage import GenerativeServiceClient
from google.api_core import exceptions as api_errors
from google.api_core.client_options import ClientOptions
from google.auth import api_key as api_key_credentials
from google.protobuf import json_format  # type: ignore[import-untyped]
from loguru import logger
from pydantic import JsonValue, SecretStr

from tasks.text_model.base import TextAnswer, TextRequest
from tasks.text_model.failures import (
    ConnectionFailed,
    MalformedAnswer,
    ModelFailure,
    ModelTimeout,
    Unauthorized,
)
from tasks.text_model.gemini import Reply, Usage, hide, http_failure, read_reply, thinking_budget
from tasks.text_model.old_schema import old_schema
from tasks.text_model.settings import GOOGLE_GENERATIVEAI

with warnings.catch_warnings():
    # Said once in our log instead: a warning can be an error, and would then be one here.
    warnings.simplefilter("ignore", FutureWarning)
    from google.generativeai import protos

COUNT_SECONDS: Final = 30.0
ROOM_FOR_THOUGHTS: Final = 8192
"""Output tokens left for the thoughts of a model that thinks, as it cannot be told not to."""


class _Session(Protocol):
    """What of the SDK's HTTP session is changed here."""

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


class GoogleGenerativeaiModel:
    """A Gemini model by the old SDK over REST; it retries nothing and follows no redirect.

    ``base_url`` None is the service's own; ``stream`` asks for the answer in chunks. The SDK has
    no word to limit a model's thoughts: so much as ``thinking`` tokens are left for them.
    """

    def __init__(
        self,
        *,
        name: str,
        key: SecretStr,
        base_url: str | None = None,
        stream: bool = False,
        thinking: int | None = None,
    ) -> None:
        self.provider = GOOGLE_GENERATIVEAI
        self.name = name
        self._key = key
        self._stream = stream
        thinks = thinking_budget(name, None) is not None
        self._room = thinking or (ROOM_FOR_THOUGHTS if thinks else 0)
        endpoint = None if base_url is None else base_url.rstrip("/")
        self._client = GenerativeServiceClient(
            credentials=_Key(key.get_secret_value()),  # type: ignore[no-untyped-call]
            transport="rest",
            client_options=ClientOptions(api_endpoint=endpoint),
        )
        # A redirect would take the key to another host; the SDK has no option for it.
        self._session().max_redirects = 0
        _say_once()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def generate(self, request: TextRequest) -> TextAnswer:
        """Answer one request, once. Raises ModelFailure."""
        try:
            reply = self._ask(request)
        except Exception as error:
            failure = self._failure(error, request.timeout)
        else:
            return read_reply(reply, request)
        # Outside the handler: the SDK's exception holds the request, and that the key.
        raise failure

    def count_tokens(self, text: str) -> int:
        """The tokens of a text, as the service counts. Raises ModelFailure."""
        asked = protos.CountTokensRequest(model=f"models/{self.name}", contents=[_content(text)])
        try:
            counted = self._client.count_tokens(asked, retry=None, timeout=COUNT_SECONDS)
        except Exception as error:
            failure = self._failure(error, COUNT_SECONDS)
        else:
            return int(counted.total_tokens)
        raise failure

    def close(self) -> None:
        """Close the connections."""
        self._session().close()

    def _session(self) -> _Session:
        return cast("_Rest", self._client.transport)._session

    def _ask(self, request: TextRequest) -> Reply:
        asked = _request(request, self.name, self._room)
        if not self._stream:
            answer = self._client.generate_content(asked, retry=None, timeout=request.timeout)
            return _joined([answer], self.name)
        deadline = time.monotonic() + request.timeout
        stream = cast(
            "_Stream",
            self._client.stream_generate_content(asked, retry=None, timeout=request.timeout),
        )
        try:
            return _joined(_until(stream, deadline), self.name)
        finally:
            stream.cancel()  # gives the connection back

    def _failure(self, error: Exception, timeout: float) -> ModelFailure:
        """The failure that an exception of the SDK stands for; raises what is none."""
        if isinstance(error, ModelFailure):
            return error
        said = hide(str(error), self._key)[:200]
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
            return ModelTimeout(f"{self.name} did not answer within {timeout:g} s; ask again")
        if isinstance(error, requests.TooManyRedirects):
            return http_failure(302, said, model=self.name, key=self._key)
        if isinstance(error, requests.RequestException):
            return ConnectionFailed(
                f"the connection to {self.name} broke ({type(error).__name__}: {said}); ask again"
            )
        if isinstance(error, json_format.ParseError | ValueError):
            return MalformedAnswer(
                f"{self.name} sent a document that the SDK cannot read: {said!r}; ask it again"
            )
        raise error


def _message(error: api_errors.GoogleAPICallError) -> JsonValue:
    """What the service said, without the address that the SDK puts before it."""
    try:
        document: JsonValue = error.response.json()
    except (AttributeError, ValueError):
        return str(error.message)
    if isinstance(document, list) and document:
        document = document[0]
    told = document.get("error") if isinstance(document, dict) else None
    return told.get("message") if isinstance(told, dict) else str(error.message)


def _is_timeout(error: Exception) -> bool:
    """Whether nothing came in time; within a stream, requests calls that a broken connection."""
    if isinstance(error, requests.Timeout):
        return True
    causes = error.args if isinstance(error, requests.ConnectionError) else ()
    return any(isinstance(cause, urllib3.exceptions.ReadTimeoutError) for cause in causes)


def _until(
    chunks: Iterable[protos.GenerateContentResponse], deadline: float
) -> Iterator[protos.GenerateContentResponse]:
    """The chunks, as long as they come before the deadline (a time of the monotonic clock)."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise ModelTimeout("the answer's chunks came too slowly; ask again")
        yield chunk


def _content(text: str) -> protos.Content:
    return protos.Content(role="user", parts=[protos.Part(text=text)])


def _request(request: TextRequest, name: str, room: int) -> protos.GenerateContentRequest:
    return protos.GenerateContentRequest(
        model=f"models/{name}",
        system_instruction=protos.Content(parts=[protos.Part(text=request.instructions)]),
        contents=[_content(request.prompt)],
        generation_config=protos.GenerationConfig(
            candidate_count=1,
            temperature=request.temperature,
            max_output_tokens=request.max_output_tokens + room,
            response_mime_type="application/json",
            response_schema=protos.Schema(old_schema(request.schema)),
        ),
    )


def _joined(chunks: Iterable[protos.GenerateContentResponse], name: str) -> Reply:
    """One reply of all chunks: their texts joined, the last reasons and counts."""
    texts: list[str] = []
    finish, block, usage, model = "", "", Usage(), name
    for chunk in chunks:
        if chunk.candidates:
            candidate = chunk.candidates[0]
            texts += [part.text for part in candidate.content.parts]
            finish = _name(candidate.finish_reason) or finish
        block = _name(chunk.prompt_feedback.block_reason) or block
        if "usage_metadata" in chunk:
            counts = chunk.usage_metadata
            usage = Usage(
                counts.prompt_token_count,
                counts.candidates_token_count,
                counts.total_token_count,
            )
        model = (chunk.model_version or model).removeprefix("models/")
    return Reply("".join(texts), finish, block, usage.prompt, usage.billed_output, model)


def _name(reason: object) -> str:
    """An enum member's name, empty for the unspecified one; a number that the SDK knows not."""
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
