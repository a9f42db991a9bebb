"""Call Gemini by ``google-genai``, the maintained SDK. Importing this module loads the SDK."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from google import genai
from google.genai import errors, types
from google.genai.client import DebugConfig
from pydantic import SecretStr

from tasks.text_model.base import FLEX, STANDARD, TextRequest, Tier
from tasks.text_model.failures import ModelFailure
from tasks.text_model.gemini import Usage, http_failure
from tasks.text_model.gemini_model import Chunk, GeminiModel, tier_of
from tasks.text_model.parameters import Parameters, Thinking
from tasks.text_model.settings import GOOGLE_GENAI, TextModelSettings

API_VERSION: Final = "v1beta"
TIER_HEADER: Final = "x-gemini-service-tier"
"""The header by which the service tells the tier that it has served a call at."""

SHORTEST_SERVER_TIMEOUT: Final = 10
"""Seconds: the service refuses a shorter deadline than this, though we may wait less."""

HTTP_LIBRARIES: Final = ("httpx2", "httpx")

for _name in HTTP_LIBRARIES:
    # They log a line for each call, which would push all else out of a receipt's last lines.
    logging.getLogger(_name).setLevel(logging.WARNING)


def _transport_errors(name: str) -> tuple[type[Exception], ...]:
    """Return the error classes of that name from the HTTP libraries that the SDK may use."""
    libraries = [import_module(lib) for lib in HTTP_LIBRARIES if find_spec(lib)]
    return tuple(getattr(library, name) for library in libraries)


TIMEOUTS: Final = _transport_errors("TimeoutException")
BROKEN: Final = _transport_errors("TransportError")


class GoogleGenaiModel(GeminiModel):
    """A Gemini model. The SDK retries nothing, follows no redirect, and looks up no credentials."""

    provider = GOOGLE_GENAI
    tiers = frozenset({STANDARD, FLEX})

    def __init__(self, settings: TextModelSettings, key: SecretStr) -> None:
        super().__init__(settings, key)
        self._client = genai.Client(
            api_key=key.get_secret_value(),
            vertexai=False,  # else the environment may choose a service with other credentials
            debug_config=DebugConfig(client_mode=None),
            http_options=types.HttpOptions(
                api_version=API_VERSION,
                base_url=settings.base_url,
                retry_options=types.HttpRetryOptions(attempts=1),
                # A redirect would take the key to another host.
                client_args={"follow_redirects": False},
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _chunks(self, request: TextRequest) -> Generator[Chunk]:
        models, config = self._client.models, call_config(request, self._parameters)
        if not self._stream:
            yield chunk_of(
                models.generate_content(model=self.name, contents=request.prompt, config=config)
            )
            return
        for answer in models.generate_content_stream(
            model=self.name, contents=request.prompt, config=config
        ):
            yield chunk_of(answer)

    def _failure(self, error: Exception, timeout: float) -> ModelFailure | None:
        if isinstance(error, errors.APIError):
            headers = getattr(error.response, "headers", None)
            return http_failure(
                error.code, error.details, model=self.name, key=self._key, headers=headers
            )
        if isinstance(error, TIMEOUTS):
            return self._timed_out(timeout)
        if isinstance(error, BROKEN):
            return self._broken(error)
        return self._unreadable(error) if isinstance(error, ValueError) else None


def call_config(request: TextRequest, takes: Parameters) -> types.GenerateContentConfig:
    """Return what a request is to the model, beside its prompt."""
    # The SDK takes milliseconds, and tells the service whole seconds.
    seconds = max(SHORTEST_SERVER_TIMEOUT, math.ceil(request.timeout))
    return types.GenerateContentConfig(
        system_instruction=request.instructions,
        temperature=request.temperature if takes.sampling else None,
        max_output_tokens=request.max_output_tokens + takes.thinking.room,
        thinking_config=_thinking_config(takes.thinking),
        candidate_count=1 if takes.candidates else None,
        response_mime_type="application/json",
        response_json_schema=request.schema,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        service_tier=types.ServiceTier.FLEX if request.tier == FLEX else None,
        automatic_continuation=False,  # a call of ours is one call, as it is counted and paid
        http_options=types.HttpOptions(
            timeout=math.ceil(request.timeout * 1000), headers={"X-Server-Timeout": str(seconds)}
        ),
    )


def _thinking_config(thinking: Thinking) -> types.ThinkingConfig | None:
    if thinking.level is not None:
        return types.ThinkingConfig(thinking_level=types.ThinkingLevel(thinking.level.upper()))
    if thinking.tokens is not None:
        return types.ThinkingConfig(thinking_budget=thinking.tokens)
    return None


def chunk_of(answer: types.GenerateContentResponse) -> Chunk:
    """Read a response, or a part of one."""
    candidate = answer.candidates[0] if answer.candidates else None
    content = candidate.content if candidate is not None else None
    parts = (content.parts if content is not None else None) or []
    finish = candidate.finish_reason if candidate is not None else None
    feedback = answer.prompt_feedback
    block = feedback.block_reason if feedback is not None else None
    return Chunk(
        text="".join(part.text for part in parts if part.text and not part.thought),
        finish_reason="" if finish is None else finish.value,
        block_reason="" if block is None else block.value,
        usage=_usage(answer),
        model=answer.model_version or "",
        tier=_tier(answer),
    )


def _tier(answer: types.GenerateContentResponse) -> Tier | None:
    response = answer.sdk_http_response
    headers = (response.headers if response is not None else None) or {}
    return tier_of(next((v for name, v in headers.items() if name.lower() == TIER_HEADER), None))


def _usage(answer: types.GenerateContentResponse) -> Usage | None:
    counts = answer.usage_metadata
    if counts is None:
        return None
    billed = (counts.candidates_token_count or 0) + (counts.thoughts_token_count or 0)
    return Usage(
        counts.prompt_token_count or 0,
        billed,
        counts.total_token_count or 0,
        counts.cached_content_token_count or 0,
    )
