"""Share among models behind a service the reading of answers, and what an HTTP status stands for.

A model of one's own is free to use these; the seam asks for their failures, not for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pydantic import SecretStr

from tasks.text_model.base import MOST_TOKENS, Billed, TextAnswer, TextRequest, Tier
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

EXCERPT: Final = 300
"""Characters that are repeated of what a service says."""
SOON: Final = 120.0
"""Seconds: a limit that the service has refill within these is one of its rate."""
SPENT: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"}
)
"""OpenAI's codes and types of errors for a limit of what is spent."""
HIDDEN: Final = "***"
FORBIDDEN: Final = 403
LIMITED: Final = 429
LONG: Final = 413

CLASSES: Final[Mapping[int, tuple[type[ModelFailure], str]]] = {
    401: (Unauthorized, "check {key} and what it may be used for"),
    402: (QuotaExhausted, "pay for more, and go on with --manifest-resume"),
    FORBIDDEN: (Unauthorized, "check {key} and what it may be used for"),
    404: (ModelNotFound, "check TEXT_MODEL_NAME and TEXT_MODEL_BASE_URL"),
    408: (ModelTimeout, "ask again"),
    LONG: (TooLong, "ask for fewer passages at once"),
    LIMITED: (RateLimited, "ask again later"),
    503: (Unavailable, "ask again later"),
}
"""By status: the class of the failure, and its remedy."""


def checked(text: str, billed: Billed, required: Sequence[str], *, reason: str = "") -> TextAnswer:
    """Return the answer that a text is, if it is a JSON object with the ``required`` members.

    ``reason`` is why the model stopped, in its service's word. Raises EmptyAnswer and
    MalformedAnswer, which hold the bill.
    """
    if not text.strip():
        raise EmptyAnswer(
            f"{_who(billed)} sent no text (finish reason {reason or 'not given'}); ask it again",
            billed=billed,
        )
    fault = _fault(text, required)
    if fault is not None:
        raise MalformedAnswer(f"{_who(billed)} answered {fault}; ask it again", billed=billed)
    return TextAnswer(
        text, billed.tokens_in, billed.tokens_out, billed.model, billed.cached, billed.tier
    )


def required_of(request: TextRequest) -> list[str]:
    """Return the names of the members that a request's schema requires of the answer."""
    required = request.schema.get("required")
    return [str(name) for name in required] if isinstance(required, list) else []


def _fault(text: str, required: Sequence[str]) -> str | None:
    """Return what is wrong with an answer's shape, in words; None where nothing is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return f"what is no JSON: {text[:80]!r}..."
    if not isinstance(value, dict):
        return "JSON without an object"
    missing = [name for name in required if name not in value]
    return f"JSON without {', '.join(missing)}" if missing else None


def unread(reason: str, billed: Billed) -> PromptBlocked:
    """Return the failure of a prompt that the service would not read."""
    return PromptBlocked(
        f"{_who(billed)} would not read the prompt ({reason}); "
        "ask for its passages one by one to find the one it minds",
        billed=billed,
    )


def withheld(reason: str, billed: Billed) -> AnswerBlocked:
    """Return the failure of an answer that the service, or the model itself, would not give."""
    return AnswerBlocked(
        f"{_who(billed)} withheld its answer ({reason}); "
        "ask for the passages one by one to find the one it minds",
        billed=billed,
    )


def cut_off(billed: Billed, limit: str) -> AnswerCutOff:
    """Return the failure of an answer that has reached its limit of output, as words tell it."""
    return AnswerCutOff(
        f"{_who(billed)} stopped at {limit}; ask for fewer passages at once", billed=billed
    )


def no_word(provider: str, tier: Tier) -> BadRequest:
    """Return the failure of a call of a tier that a model cannot ask for; nothing was asked."""
    return BadRequest(
        f"{provider} has no word for calls of the tier {tier}; set another TEXT_MODEL or "
        "TEXT_MODEL_SERVICE_TIER, and plan anew"
    )


def limit_of(request: TextRequest) -> str:
    """Return the request's limit of output in words."""
    return f"the limit of {request.max_output_tokens} output tokens"


def _who(billed: Billed) -> str:
    return billed.model or "the model"


def status_failure(
    status: int,
    said: str,
    *,
    model: str,
    key: str,
    retry_after: float | None = None,
    kind: int | None = None,
    billed: Billed | None = None,
) -> ModelFailure:
    """Return the failure that an HTTP status stands for, with its bill where there is one.

    ``said`` are the service's words, without secrets; ``key`` names the variable of the key;
    ``kind`` is the status whose class it has, where the service has used another one for it.
    """
    meant = status if kind is None else kind
    fallback = (
        (ServerFailed, "ask again")
        if meant >= 500
        else (BadRequest, "the request must be changed before it is sent again")
    )
    failure, remedy = CLASSES.get(meant, fallback)
    return failure(
        f"{place(status, model, said)}; {remedy.format(key=key)}",
        retry_after=retry_after,
        billed=billed,
    )


def is_spent(codes: Iterable[str | None], wait: float | None) -> bool:
    """Return whether an error in OpenAI's form is for a limit that does not refill soon.

    ``codes`` are the error's code and its type: gateways leave out one of them. ``wait`` are the
    seconds that it names; within ``SOON`` it is one of the rate, whatever it is called.
    """
    return not SPENT.isdisjoint(codes) and (wait is None or wait > SOON)


def spent(status: int, model: str, said: str, wait: float | None, billed: Billed) -> QuotaExhausted:
    """Return the failure of a call for which nothing is left of a quota, or of what may be spent.

    ``wait`` are the seconds that the service names, None where it names none.
    """
    return QuotaExhausted(
        f"{place(status, model, said)}; raise the limit, or wait until it is renewed, and go on "
        "with --manifest-resume",
        retry_after=wait,
        billed=billed,
    )


def place(status: int, model: str, said: str) -> str:
    """Return the beginning of a sentence on an HTTP error; of long words only the first ones."""
    return f"the service answered {status} for {model}: {said[:EXCERPT]}"


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header; None where there is none that can be read."""
    told = (value for name, value in headers.items() if name.lower() == "retry-after")
    return next((seconds for one in told if (seconds := seconds_of(one)) is not None), None)


def seconds_of(text: str) -> float | None:
    """Return a number of seconds, None for what is none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def tokens(value: object) -> int:
    """Return a count of tokens as a service tells it; 0 for what is none."""
    told = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return told if 0 <= told <= MOST_TOKENS else 0


def hide(text: str, key: SecretStr) -> str:
    """Remove the key from a text, should the service have repeated it."""
    secret = key.get_secret_value()
    return text.replace(secret, HIDDEN) if secret else text
