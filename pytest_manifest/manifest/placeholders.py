"""Find the placeholders that ``manifest new`` writes for values that it cannot know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_START: Final = "<fill in: "
MARK: Final = b"fill in: "
"""Bytes of each line with a placeholder, however its ``<`` is written."""


def placeholder(wanted: str) -> str:
    """Return the text that stands for a value of this kind until somebody writes it."""
    return f"{_START}{wanted}>"


def placeholder_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each placeholder in the arguments and the result of an entry."""
    expect = entry.get("expect")
    parts = {
        "args": entry.get("args"),
        "kwargs": entry.get("kwargs"),
        "expect.result": expect.get("result") if isinstance(expect, dict) else None,
    }
    for place, value in parts.items():
        for where, text in _placeholders(value, place):
            yield f"entry {entry.get('id')!r}: {where} is still {text!r}; write its value"


def _placeholders(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Yield where in a value placeholders are, and each of them."""
    if isinstance(value, str):
        if value.startswith(_START) and value.endswith(">"):
            yield place, value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _placeholders(one, f"{place}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _placeholders(one, f"{place}[{number}]")
