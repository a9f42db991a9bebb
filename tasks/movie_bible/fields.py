"""Define the four fields that are filled in, and the digests by which values are compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

FIELDS: Final = ("summary", "themes", "characters", "mood")
LIST_FIELDS: Final = frozenset({"themes", "characters"})
"""The fields that are lists of texts; the others are texts."""

CORPUS: Final = "corpus"
"""The prompt version of values that people wrote, which came with the corpus."""

MOODS: Final = (
    "bleak",
    "comic",
    "dreamlike",
    "eerie",
    "epic",
    "hopeful",
    "melancholic",
    "nostalgic",
    "romantic",
    "satirical",
    "serene",
    "tense",
    "tragic",
    "triumphant",
    "whimsical",
)
"""The moods that a model may choose from; people may write others."""

UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""What no text may hold: NUL, which PostgreSQL cannot store, and halves of characters."""


def text_digest(text: str) -> str:
    """Return the SHA-256 of the text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def values_digest(values: Mapping[str, JsonValue]) -> str:
    """Return the SHA-256, in hex, of the four fields as canonical JSON; an absent one is null.

    Other names in ``values`` do not count.
    """
    chosen = {name: values.get(name) for name in FIELDS}
    canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text_digest(canonical)


def text_fault(value: object) -> str | None:
    """Say what keeps ``value`` from being stored as text (``is blank``, for example), or None."""
    if not isinstance(value, str):
        return f"must be text, not {kind_of(value)}"
    if not value.strip():
        return "is blank"
    bad = UNSTORABLE.search(value)
    if bad is None:
        return None
    if bad.group() == "\0":
        return "holds a NUL character, which PostgreSQL cannot store"
    return f"holds half of a surrogate pair (\\u{ord(bad.group()):04x}), which is no character"


def list_fault(value: object) -> str | None:
    """Say what keeps ``value`` from being stored as a list of texts, or return None."""
    if not isinstance(value, list | tuple):
        return f"must be a list of texts, not {kind_of(value)}"
    for number, item in enumerate(value, start=1):
        fault = text_fault(item)
        if fault is not None:
            return f"has an item {number} that {fault}"
    return None


def field_fault(name: str, value: object) -> str | None:
    """Say what keeps ``value`` from being a value of the field ``name``, or return None."""
    if name not in FIELDS:
        return f"is no field; the fields are {', '.join(FIELDS)}"
    if name not in LIST_FIELDS:
        return text_fault(value)
    return list_fault(value) if not isinstance(value, tuple) else "must be a list"


def kind_of(value: object) -> str:
    """Return the JSON name of a value's type, for sentences."""
    names = {
        type(None): "null",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
