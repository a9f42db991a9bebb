"""Gemini by ``google-genai``, the maintained SDK. Importing this module loads the SDK."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from google import genai
from google.genai import errors, types
from google.genai.client import DebugConfig
from pydantic import SecretStr

from tasks.text_model.base import TextAnswer, TextRequest
from tasks.text_model.failures import (
    ConnectionFailed,
    MalformedAnswer,
    ModelFailure,
    ModelTimeout,
)
from tasks.text_model.gemini import Reply, Usage, hide, http_failure, read_reply, thinking_budget
from tasks.text_model.settings import GOOGLE_GENAI

API_VERSION: Final = "v1beta"
COUNT_SECONDS: Final = 30.0
SHORTEST_SERVER_TIMEOUT: Final = 10
"""Seconds: the service refuses a shorter deadline than this, though we may wait less."""


HTTP_LIBRARIES: Final = ("httpx2", "httpx")

for _name in HTTP_LIBRARIES:
    # They log a line for each call, which would push all else out of a receipt's last lines.
    logging.getLogger(_name).setLevel(logging.WARNING)


def _transport_errors(name: str) -> tuple[type[Exception], ...]:
    """The classes of that name in the HTTP libraries that the SDK may have chosen from."""
    libraries = [import_module(lib) for lib in HTTP_LIBRARIES if find_spec(lib)]
    return tuple(getattr(library, name) for library in libraries)


TIMEOUTS: Final = _transport_errors("TimeoutException")
BROKEN: Final = _transport_errors("TransportError")


class GoogleGenaiModel:
    """A Gemini model. The SDK retries nothing, follows no redirect, and looks up no credentials.

    ``base_url`` None is the service's own; ``stream`` asks for the answer in chunks; ``thinking``
    is how many tokens the model may think, None as few as it can.
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
        self.provider = GOOGLE_GENAI
        self.name = name
        self._key = key
        self._stream = stream
        self._thinking = thinking_budget(name, thinking)
        self._client = genai.Client(
            api_key=key.get_secret_value(),
            vertexai=False,  # else the environment may choose a service with other credentials
            debug_config=DebugConfig(client_mode=None),
            http_options=types.HttpOptions(
                api_version=API_VERSION,
                base_url=base_url,
                retry_options=types.HttpRetryOptions(attempts=1),
                # A redirect would take the key to another host.
                client_args={"follow_redirects": False},
            ),
        )

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
        config = types.CountTokensConfig(http_options=_http_options(COUNT_SECONDS))
        try:
            counted = self._client.models.count_tokens(
                model=self.name, contents=text, config=config
            )
        except Exception as error:
            failure = self._failure(error, COUNT_SECONDS)
        else:
            return counted.total_tokens or 0
        raise failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, request: TextRequest) -> Reply:
        config = _config(request, self._thinking)
        models = self._client.models
        if not self._stream:
            answer = models.generate_content(
                model=self.name, contents=request.prompt, config=config
            )
            return _joined([answer], self.name)
        deadline = time.monotonic() + request.timeout
        chunks = models.generate_content_stream(
            model=self.name, contents=request.prompt, config=config
        )
        return _joined(_until(chunks, deadline), self.name)

    def _failure(self, error: Exception, timeout: float) -> ModelFailure:
        """The failure that an exception of the SDK stands for; raises what is none."""
        if isinstance(error, ModelFailure):
            return error
        if isinstance(error, errors.APIError):
            headers = getattr(error.response, "headers", None)
            return http_failure(
                error.code, error.details, model=self.name, key=self._key, headers=headers
            )
        if isinstance(error, TIMEOUTS):
            return ModelTimeout(f"{self.name} did not answer within {timeout:g} s; ask again")
        said = hide(str(error), self._key)[:200]
        if isinstance(error, BROKEN):
            return ConnectionFailed(
                f"the connection to {self.name} broke ({type(error).__name__}: {said}); ask again"
            )
        if isinstance(error, ValueError):
            return MalformedAnswer(
                f"{self.name} sent a document that the SDK cannot read: {said!r}; ask it again"
            )
        raise error


def _until(
    chunks: Iterable[types.GenerateContentResponse], deadline: float
) -> Iterator[types.GenerateContentResponse]:
    """The chunks, as long as they come before the deadline (a time of the monotonic clock)."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise ModelTimeout("the answer's chunks came too slowly; ask again")
        yield chunk


def _config(request: TextRequest, thinking: int | None) -> types.GenerateContentConfig:
    budget = None if thinking is None else types.ThinkingConfig(thinking_budget=thinking)
    return types.GenerateContentConfig(
        system_instruction=request.instructions,
        temperature=request.temperature,
        max_output_tokens=request.max_output_tokens + (thinking or 0),
        thinking_config=budget,
        candidate_count=1,
        response_mime_type="application/json",
        response_json_schema=request.schema,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,  # a call of ours is one call, as it is counted and paid
        http_options=_http_options(request.timeout),
    )


def _http_options(timeout: float) -> types.HttpOptions:
    """Options of one call: the SDK takes milliseconds, and tells the service whole seconds."""
    seconds = max(SHORTEST_SERVER_TIMEOUT, math.ceil(timeout))
    return types.HttpOptions(
        timeout=math.ceil(timeout * 1000), headers={"X-Server-Timeout": str(seconds)}
    )


def _joined(chunks: Iterable[types.GenerateContentResponse], name: str) -> Reply:
    """One reply of all chunks: their texts joined, the last reasons and counts."""
    texts: list[str] = []
    finish, block, usage, model = "", "", Usage(), name
    for chunk in chunks:
        texts.append(_text(chunk))
        finish = _finish_reason(chunk) or finish
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason is not None:
            block = feedback.block_reason.value
        usage = _usage(chunk) or usage
        model = (chunk.model_version or model).removeprefix("models/")
    return Reply("".join(texts), finish, block, usage.prompt, usage.billed_output, model)


def _text(chunk: types.GenerateContentResponse) -> str:
    content = chunk.candidates[0].content if chunk.candidates else None
    parts = (content.parts if content is not None else None) or []
    return "".join(part.text for part in parts if part.text and not part.thought)


def _finish_reason(chunk: types.GenerateContentResponse) -> str:
    reason = chunk.candidates[0].finish_reason if chunk.candidates else None
    return "" if reason is None else reason.value


def _usage(chunk: types.GenerateContentResponse) -> Usage | None:
    counts = chunk.usage_metadata
    if counts is None:
        return None
    answer = (counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0)
    return Usage(counts.prompt_token_count or 0, answer, counts.total_token_count or 0)
