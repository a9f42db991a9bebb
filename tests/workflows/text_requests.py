"""Requests of the text model, as tests make them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from tasks.text_model.base import KeyedText, TextRequest

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
