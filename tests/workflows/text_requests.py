"""Requests of the text model, as tests make them."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from tasks.text_model.base import KeyedText, TextRequest
from tasks.text_model.failures import LimitsUnreachable
from tasks.text_model.limits import Limiter
from tasks.text_model.offline import ExtractiveModel
from tasks.text_model.retrying import CallCounts, RetryPolicy, call

FIELDS = ("summary", "themes", "mood")
SHAPES: dict[str, dict[str, JsonValue]] = {
    "summary": {"type": "string", "description": "two sentences"},
    "themes": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    "mood": {"type": "string", "enum": ["bleak", "comic", "tense"]},
}


def text_request(texts: Mapping[str, str], *, timeout: float = 20.0) -> TextRequest:
    """A request for ``FIELDS`` of the texts, by key; ``timeout`` is in seconds."""
    key: dict[str, JsonValue] = {"type": "string", "enum": list(texts)}
    item: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"key": key, **SHAPES},
        "required": ["key", *FIELDS],
    }
    return TextRequest(
        instructions="Fill in the fields.",
        prompt="\n\n".join(
            f"=== passage {key} ===\n{text}\n=== end {key} ===" for key, text in texts.items()
        ),
        schema={
            "type": "object",
            "properties": {"items": {"type": "array", "items": item}},
            "required": ["items"],
        },
        texts=tuple(KeyedText(key, text) for key, text in texts.items()),
        fields=FIELDS,
        max_output_tokens=2000,
        timeout=timeout,
    )


def refuses_calls(limiter: Limiter, url: str) -> None:
    """No call is made while its server is away: that is named, retried, told without a password."""
    counts, password = CallCounts(), url.split(":")[2].split("@")[0]
    with pytest.raises(LimitsUnreachable, match="TEXT_MODEL_LIMITS_URL") as caught:
        call(
            ExtractiveModel(),
            text_request({"k": "A text."}),
            policy=RetryPolicy(attempts=3, first_wait=0.0),
            limiter=limiter,
            counts=counts,
            stop=threading.Event(),
        )
    limiter.close()
    assert (counts.calls, counts.failures) == (0, {"limits_unreachable": 3})
    assert password not in str(caught.value) + repr(limiter)
