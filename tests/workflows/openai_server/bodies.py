"""Documents of the wire: chat completions, and errors as OpenAI and servers like it word them."""

from __future__ import annotations

import re
from typing import Final

from pydantic import JsonValue

from tests.workflows.gemini_server.answers import FENCED, Asked, Json, item_fields
from tests.workflows.gemini_server.script import Fault, Kind

THINKS: Final = re.compile(r"^(o\d|gpt-5)")
KNOWN: Final = frozenset(
    {
        "model",
        "messages",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "reasoning_effort",
    }
)
"""What this server takes of a request; it refuses all else, as OpenAI does."""

ERRORS: Final[dict[Kind, tuple[int, str | None, str]]] = {
    "rate_limited": (429, "rate_limit_exceeded", "Rate limit reached for requests per min (RPM)."),
    "quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "unavailable": (503, None, "That model is currently overloaded with other requests."),
    "server_error": (500, None, "The server had an error while processing your request."),
    "bad_gateway": (502, None, "Bad gateway."),
    "deadline": (504, None, "Gateway timeout."),
    "unauthorized": (401, "invalid_api_key", "Incorrect API key provided: {key}."),
    "unauthenticated": (401, None, "You didn't provide an API key."),
    "forbidden": (403, None, "{key} does not have access to the model."),
    "not_found": (404, "model_not_found", "The model does not exist."),
    "bad_request": (400, "invalid_value", "Invalid value: 'x'."),
    "too_long": (400, "context_length_exceeded", "This model's maximum context length is 8192."),
    "blocked_prompt": (400, "content_filter", "The prompt triggered the content policy."),
}


def read_request(body: Json) -> Asked:
    """Read the body of a chat completion. Raises ValueError with a sentence."""
    messages = body.get("messages")
    texts = [
        str(one.get("content"))
        for one in (messages if isinstance(messages, list) else [])
        if isinstance(one, dict)
    ]
    if not texts:
        raise ValueError("Missing required parameter: 'messages'.")
    place: JsonValue = body
    for step in ("response_format", "json_schema", "schema"):
        place = place.get(step) if isinstance(place, dict) else None
    fields = item_fields(place)
    choices = fields.pop("key", {}).get("enum")
    passages = {match["key"]: match["text"] for match in FENCED.finditer(texts[-1])}
    keys = tuple(map(str, choices)) if isinstance(choices, list) else tuple(passages)
    return Asked(keys, passages, fields, "".join(texts))


def refused(body: Json) -> str | None:
    """Why the service would not take this request; None where it does."""
    unknown = sorted(set(body) - KNOWN)
    if unknown:
        return f"Unrecognized request argument supplied: {unknown[0]}"
    unsupported = (
        {"max_tokens", "temperature"} if THINKS.match(str(body["model"])) else {"reasoning_effort"}
    )
    found = sorted(unsupported & set(body))
    return (
        f"Unsupported parameter: '{found[0]}' is not supported with this model." if found else None
    )


def error(fault: Fault, key: str) -> tuple[int, Json]:
    """Status and document of a refused call; the service repeats the key that it was given."""
    status, code, said = ERRORS[fault.kind]
    return status, error_body(said.format(key=key), code)


def error_body(said: str, code: str | None) -> Json:
    """An error document."""
    return {"error": {"message": said, "type": "api_error", "param": None, "code": code}}


def completion(text: str | None, finish: str, *, usage: Json, model: str, fault: Fault) -> Json:
    """A completion; ``text`` None has no content, ``model`` "" is one that gives no name."""
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    if fault.kind == "blocked_answer" and fault.reason == "REFUSAL":
        message["refusal"], finish = "I can't help with that.", "STOP"
    reasons = {"STOP": "stop", "MAX_TOKENS": "length"}
    choice: Json = {
        "index": 0,
        "message": message,
        "finish_reason": reasons.get(finish, "content_filter"),
    }
    whole: Json = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "choices": [] if fault.kind == "empty" else [choice],
        "usage": usage,
    }
    return whole | ({"model": model} if model else {})
