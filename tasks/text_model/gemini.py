"""Share between both Gemini SDKs the reading of replies, and one class for each way to fail."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue, SecretStr

from tasks.text_model.base import Billed, TextAnswer, TextRequest
from tasks.text_model.failures import (
    AnswerBlocked,
    AnswerCutOff,
    BadRequest,
    EmptyAnswer,
    MalformedAnswer,
    ModelFailure,
    ModelNotFound,
    ModelTimeout,
    PromptBlocked,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    TooLong,
    Unauthorized,
    Unavailable,
)

BLOCKED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
        "MODEL_ARMOR",
    }
)
"""Finish reasons for which an answer is withheld, whatever there was of it."""

CUT_OFF: Final = "MAX_TOKENS"
EXCERPT: Final = 300
HIDDEN: Final = "***"
INVALID_KEY: Final = re.compile(r"API[ _]key (not valid|expired|not found)|API_KEY_INVALID", re.I)
TOO_LONG: Final = re.compile(
    r"exceeds the maximum number of tokens|payload size exceeds the limit", re.I
)
THINKING: Final = re.compile(r"thinking", re.I)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the service, whichever SDK read it; reasons by name, empty where none is given."""

    text: str
    finish_reason: str
    block_reason: str
    billed: Billed

    @property
    def model(self) -> str:
        """Return what answered, for sentences."""
        return self.billed.model or "the model"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the service counts them.

    What is billed as output is all that is not prompt: a model's thoughts are in ``total`` alone
    for an SDK that does not know of them. ``cached`` is the part of the prompt that was cached.
    """

    prompt: int = 0
    answer: int = 0
    total: int = 0
    cached: int = 0

    @property
    def billed_output(self) -> int:
        """Return the tokens billed as output."""
        return max(self.answer, self.total - self.prompt)


def read_reply(reply: Reply, request: TextRequest) -> TextAnswer:
    """Return the answer that a reply holds; raise the ModelFailure that says why there is none."""
    required = request.schema.get("required")
    names = required if isinstance(required, list) else []
    limit = f"the limit of {request.max_output_tokens} output tokens"
    return read_text(reply, [*map(str, names)], limit=limit)


def read_text(
    reply: Reply, required: Sequence[str], *, limit: str = "its limit of output tokens"
) -> TextAnswer:
    """Return the answer that a reply holds, a JSON object with the ``required`` members.

    Raises the ModelFailure that says why there is none; ``limit`` says where an answer is cut off.
    """
    billed, reason = reply.billed, reply.finish_reason
    if reply.block_reason:
        raise PromptBlocked(
            f"{reply.model} would not read the prompt ({reply.block_reason}); "
            "ask for its passages one by one to find the one it minds",
            billed=billed,
        )
    if reason in BLOCKED:
        raise AnswerBlocked(
            f"{reply.model} withheld its answer ({reason}); "
            "ask for the passages one by one to find the one it minds",
            billed=billed,
        )
    if reason == CUT_OFF:
        raise AnswerCutOff(
            f"{reply.model} stopped at {limit}; ask for fewer passages at once",
            billed=billed,
        )
    if not reply.text.strip():
        raise EmptyAnswer(
            f"{reply.model} sent no text (finish reason {reason or 'not given'}); ask it again",
            billed=billed,
        )
    _check_shape(reply, required)
    return TextAnswer(
        reply.text, billed.tokens_in, billed.tokens_out, billed.model, billed.cached, billed.tier
    )


def _check_shape(reply: Reply, required: Sequence[str]) -> None:
    """Refuse what is no JSON object with the required members."""
    try:
        value = json.loads(reply.text)
    except (ValueError, RecursionError):
        raise MalformedAnswer(
            f"{reply.model} answered what is no JSON: {reply.text[:80]!r}...; ask it again",
            billed=reply.billed,
        ) from None
    missing = [name for name in required if not isinstance(value, dict) or name not in value]
    if not isinstance(value, dict) or missing:
        raise MalformedAnswer(
            f"{reply.model} answered JSON without {', '.join(missing) or 'an object'}; "
            "ask it again",
            billed=reply.billed,
        )


def http_failure(
    status: int,
    body: JsonValue,
    *,
    model: str,
    key: SecretStr,
    headers: Mapping[str, str] | None = None,
) -> ModelFailure:
    """Return the failure that an HTTP error of the service stands for.

    ``body`` is the decoded error document (or its text), ``headers`` those of the response.
    """
    error = _error_of(body)
    said = hide(str(error.get("message") or body or "nothing"), key)[:EXCERPT]
    place = f"the service answered {status} for {model}"
    details = [one for one in _list(error.get("details")) if isinstance(one, dict)]
    wait = _retry_delay(details, headers or {})
    if status == 429:
        return _limited(place, said, details, wait)
    if status in {401, 403} or (status == 400 and _is_key_fault(said, details)):
        return Unauthorized(f"{place}: {said}; check GEMINI_API_KEY and what it may be used for")
    if status == 404:
        return ModelNotFound(f"{place}: {said}; check TEXT_MODEL_NAME and TEXT_MODEL_BASE_URL")
    if status == 413 or (status == 400 and TOO_LONG.search(said)):
        return TooLong(f"{place}: {said}; ask for fewer passages at once")
    if status == 408:
        return ModelTimeout(f"{place}: {said}; ask again", retry_after=wait)
    if status == 503:
        return Unavailable(f"{place}: {said}; ask again later", retry_after=wait)
    if status >= 500:
        return ServerFailed(f"{place}: {said}; ask again", retry_after=wait)
    return BadRequest(f"{place}: {said}; {_what_to_change(said)}")


def _what_to_change(said: str) -> str:
    if THINKING.search(said):
        return (
            "what a model may think is set by TEXT_MODEL_THINKING_LEVEL from Gemini 3 on, and by "
            "TEXT_MODEL_THINKING_TOKENS before"
        )
    return "the request must be changed before it is sent again"


def _limited(
    place: str, said: str, details: list[dict[str, JsonValue]], wait: float | None
) -> ModelFailure:
    violations = [
        violation
        for detail in details
        for violation in _list(detail.get("violations"))
        if isinstance(violation, dict)
    ]
    for violation in violations:
        quota = str(violation.get("quotaId", ""))
        if "PerDay" in quota or str(violation.get("quotaValue")) == "0":
            return QuotaExhausted(
                f"{place}: {said} (quota {quota}); wait for the next day, or raise the quota",
                retry_after=wait,
            )
    return RateLimited(f"{place}: {said}; ask again later", retry_after=wait)


def _is_key_fault(said: str, details: list[dict[str, JsonValue]]) -> bool:
    reasons = {detail.get("reason") for detail in details}
    return "API_KEY_INVALID" in reasons or INVALID_KEY.search(said) is not None


def _retry_delay(details: list[dict[str, JsonValue]], headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from RetryInfo (``"12.5s"``), else from a Retry-After header."""
    delays = [str(detail.get("retryDelay", "")) for detail in details]
    delays += [value for name, value in headers.items() if name.lower() == "retry-after"]
    for delay in delays:
        try:
            seconds = float(delay.removesuffix("s"))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _error_of(body: JsonValue) -> dict[str, JsonValue]:
    """Return the ``error`` object of an error document; streams send it within a list."""
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def hide(text: str, key: SecretStr) -> str:
    """Remove the key from a text, should the service have repeated it."""
    secret = key.get_secret_value()
    return text.replace(secret, HIDDEN) if secret else text
