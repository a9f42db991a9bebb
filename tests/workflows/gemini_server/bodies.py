"""Documents of the wire: errors as the service words them, and responses whole or in chunks."""

from __future__ import annotations

from typing import Final

from pydantic import JsonValue

from tests.workflows.gemini_server.answers import Json
from tests.workflows.gemini_server.script import Fault, Kind

RPC: Final = "type.googleapis.com/google.rpc."
SERVICE: Final = "generativelanguage.googleapis.com"
CHUNKS: Final = 3

FINISH_NUMBERS: Final = {
    "STOP": 1,
    "MAX_TOKENS": 2,
    "SAFETY": 3,
    "RECITATION": 4,
    "OTHER": 5,
    "LANGUAGE": 6,
    "BLOCKLIST": 7,
    "PROHIBITED_CONTENT": 8,
    "SPII": 9,
}
BLOCK_NUMBERS: Final = {"SAFETY": 1, "OTHER": 2, "BLOCKLIST": 3, "PROHIBITED_CONTENT": 4}
"""Members of enums, for a client that asks for their numbers (``enum-encoding=int``)."""

Error = tuple[int, str, str]

ERRORS: Final[dict[Kind, Error]] = {
    "unavailable": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "server_error": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "bad_gateway": (502, "INTERNAL", "Bad Gateway"),
    "deadline": (504, "DEADLINE_EXCEEDED", "The request timed out. Please try again."),
    "unauthorized": (
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
    ),
    "unauthenticated": (
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token.",
    ),
    "forbidden": (
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity).",
    ),
    "bad_request": (
        400,
        "INVALID_ARGUMENT",
        "Invalid JSON payload received. Unknown name: Cannot find field.",
    ),
    "no_thinking": (
        400,
        "INVALID_ARGUMENT",
        "thinking_budget is not supported by this model; use thinking_level instead.",
    ),
    "too_long": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
}


def error_body(fault: Fault, model: str) -> tuple[int, Json]:
    """Status and document of a refused call."""
    if fault.kind in {"rate_limited", "quota"}:
        return 429, _limited(fault, model)
    if fault.kind == "not_found":
        said = (
            f"models/{model} is not found for API version v1beta, or is not supported for "
            "generateContent. Call ListModels to see the list of available models and their "
            "supported methods."
        )
        return 404, _error(404, "NOT_FOUND", said)
    status, name, said = ERRORS[fault.kind]
    details: list[JsonValue] = []
    if fault.kind == "unauthorized":
        details = [
            {
                "@type": f"{RPC}ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": {"service": SERVICE},
            },
            {"@type": f"{RPC}LocalizedMessage", "locale": "en-US", "message": said},
        ]
    return status, _error(status, name, said, details)


def _limited(fault: Fault, model: str) -> Json:
    period = "PerDay" if fault.kind == "quota" else "PerMinute"
    metric = f"{SERVICE}/generate_content_free_tier_requests"
    said = (
        "You exceeded your current quota, please check your plan and billing details.\n"
        f"* Quota exceeded for metric: {metric}, limit: 10, model: {model}"
    )
    details: list[JsonValue] = [
        {
            "@type": f"{RPC}QuotaFailure",
            "violations": [
                {
                    "quotaMetric": metric,
                    "quotaId": f"GenerateRequests{period}PerProjectPerModel-FreeTier",
                    "quotaDimensions": {"location": "global", "model": model},
                    "quotaValue": "10",
                }
            ],
        }
    ]
    if fault.retry is not None:
        said += f"\nPlease retry in {fault.retry}."
        details.append({"@type": f"{RPC}RetryInfo", "retryDelay": fault.retry})
    return _error(429, "RESOURCE_EXHAUSTED", said, details)


def invalid_argument(said: str) -> tuple[int, Json]:
    """Status and document of a request that the service cannot read."""
    return 400, _error(400, "INVALID_ARGUMENT", said)


def _error(code: int, status: str, said: str, details: list[JsonValue] | None = None) -> Json:
    error: Json = {"code": code, "message": said, "status": status}
    if details:
        error["details"] = details
    return {"error": error}


def response(
    text: str | None,
    *,
    usage: Json,
    model: str,
    finish: str | None = "STOP",
    numbers: bool = False,
) -> Json:
    """A response, or a chunk of one; ``text`` None has no parts, ``finish`` None goes on.

    ``model`` is what answers, "" where the response is to name none.
    """
    candidate: Json = {"index": 0, "content": {"role": "model"}}
    if text is not None:
        candidate["content"] = {"role": "model", "parts": [{"text": text}]}
    if finish is not None:
        candidate["finishReason"] = FINISH_NUMBERS[finish] if numbers else finish
    whole: Json = {"candidates": [candidate], "usageMetadata": usage, "responseId": "r-1"}
    return whole | ({"modelVersion": model} if model else {})


def chunks(
    text: str | None, *, usage: Json, model: str, finish: str, numbers: bool
) -> list[JsonValue]:
    """The same in three chunks; reason and last counts come with the last one."""
    if text is None:
        return [response(None, usage=usage, model=model, finish=finish, numbers=numbers)]
    size = max(1, -(-len(text) // CHUNKS))
    pieces = [text[start : start + size] for start in range(0, len(text), size)] or [""]
    prompt: Json = {name: usage[name] for name in ("promptTokenCount",) if name in usage}
    early: list[JsonValue] = [
        response(piece, usage=prompt, model=model, finish=None) for piece in pieces[:-1]
    ]
    last = response(pieces[-1], usage=usage, model=model, finish=finish, numbers=numbers)
    return [*early, last]


def blocked_prompt(reason: str, usage: Json, model: str, *, numbers: bool) -> Json:
    """A response to a prompt that was not read."""
    return {
        "promptFeedback": {"blockReason": BLOCK_NUMBERS[reason] if numbers else reason},
        "usageMetadata": usage,
        "modelVersion": model,
    }
