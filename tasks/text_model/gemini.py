"""Share between both Gemini SDKs the reading of replies, and one class for each way to fail."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue, SecretStr

from tasks.text_model.base import Billed, TextAnswer, TextRequest
from tasks.text_model.failures import (
    BadRequest,
    ModelFailure,
)
from tasks.text_model.replies import (
    FORBIDDEN,
    LIMITED,
    LONG,
    SOON,
    checked,
    cut_off,
    hide,
    limit_of,
    place,
    required_of,
    seconds_of,
    spent,
    status_failure,
    unread,
    wait_of,
    withheld,
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
INVALID_KEY: Final = re.compile(r"API[ _]key (not valid|expired|not found)|API_KEY_INVALID", re.I)
TOO_LONG: Final = re.compile(
    r"exceeds the maximum number of tokens|payload size exceeds the limit", re.I
)
LONG_QUOTA: Final = re.compile(r"Per(Day|Week|Month|Year)|Spend|Budget|Billing|Credit")
SPENDING: Final = re.compile(
    r"spend(ing)?[ -](cap|limit)|billing|prepa(id|yment)|credits?\b|budget", re.I
)
THINKING: Final = re.compile(r"thinking", re.I)
KEY: Final = "GEMINI_API_KEY"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the service, whichever SDK read it; reasons by name, empty where none is given."""

    text: str
    finish_reason: str
    block_reason: str
    billed: Billed


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
    return read_text(reply, required_of(request), limit_of(request))


def read_text(
    reply: Reply, required: Sequence[str], limit: str = "its limit of output tokens"
) -> TextAnswer:
    """Return the answer that a reply holds, a JSON object with the ``required`` members.

    Raises the ModelFailure that says why there is none; ``limit`` says where an answer is cut off.
    """
    billed, reason = reply.billed, reply.finish_reason
    if reply.block_reason:
        raise unread(reply.block_reason, billed)
    if reason in BLOCKED:
        raise withheld(reason, billed)
    if reason == CUT_OFF:
        raise cut_off(billed, limit)
    return checked(reply.text, billed, required, reason=reason)


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
    said = hide(str(error.get("message") or body or "nothing"), key)
    details = [one for one in _list(error.get("details")) if isinstance(one, dict)]
    wait = _retry_delay(details, headers or {})
    if status == LIMITED and _is_spent(said, details, wait):
        return spent(status, model, said, wait, Billed())
    kind = status
    if status == 400:
        kind = LONG if TOO_LONG.search(said) else kind
        kind = FORBIDDEN if _is_key_fault(said, details) else kind
    if kind == 400 and THINKING.search(said):
        return BadRequest(
            f"{place(status, model, said)}; what a model may think is set by "
            "TEXT_MODEL_THINKING_LEVEL from Gemini 3 on, and by TEXT_MODEL_THINKING_TOKENS before"
        )
    return status_failure(status, said, model=model, key=KEY, retry_after=wait, kind=kind)


def _is_spent(said: str, details: list[dict[str, JsonValue]], wait: float | None) -> bool:
    """Return whether a 429 is for a limit that does not refill soon.

    The quotas that it names decide: those of a day or longer, of money, or of nothing are spent,
    those of a minute are not. Where it names none, nor a wait, its words do.
    """
    quotas = [
        one
        for detail in details
        for one in _list(detail.get("violations"))
        if isinstance(one, dict) and one.get("quotaId")
    ]
    if quotas:
        return any(
            LONG_QUOTA.search(str(one["quotaId"])) or str(one.get("quotaValue")) == "0"
            for one in quotas
        )
    return (wait is None or wait > SOON) and SPENDING.search(said) is not None


def _is_key_fault(said: str, details: list[dict[str, JsonValue]]) -> bool:
    reasons = {detail.get("reason") for detail in details}
    return "API_KEY_INVALID" in reasons or INVALID_KEY.search(said) is not None


def _retry_delay(details: list[dict[str, JsonValue]], headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from RetryInfo (``"12.5s"``), else from a Retry-After header."""
    told = (seconds_of(str(one.get("retryDelay", "")).removesuffix("s")) for one in details)
    return next((seconds for seconds in told if seconds is not None), wait_of(headers))


def _error_of(body: JsonValue) -> dict[str, JsonValue]:
    """Return the ``error`` object of an error document; streams send it within a list."""
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
