"""Inputs that are lines of JSON, so that people can read, write and keep them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

MOST_LINES = 60
DEEPEST = 200
"""Levels down to which objects that stand for something are looked for."""


def documents(data: bytes) -> list[Any]:
    """Parse each line that is JSON, but no more than so many; the others are left out."""
    found: list[Any] = []
    for raw in data.split(b"\n")[:MOST_LINES]:
        try:
            found.append(json.loads(raw))
        except (ValueError, RecursionError):
            continue
    return found


def objects(data: bytes) -> list[dict[str, Any]]:
    """Parse the lines that are JSON objects."""
    return [one for one in documents(data) if isinstance(one, dict)]


def foreign(value: Any, deep: int = 0) -> Any:
    """Make what JSON has no words for of objects that stand for it; what is too deep stays JSON.

    ``{"$bytes": "hex"}``, ``{"$error": ["ValueError", "text"]}``, ``{"$time": seconds}``,
    ``{"$float": "nan"}``, ``{"$tuple": [...]}``.
    """
    if deep > DEEPEST:
        return value
    if isinstance(value, list):
        return [foreign(one, deep + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        made = _made(name, inner, deep + 1)
        if made is not None:
            return made
    return {key: foreign(one, deep + 1) for key, one in value.items()}


def _made(name: str, inner: Any, deep: int) -> object:
    try:
        if name == "$bytes":
            return bytes.fromhex(inner)
        if name == "$float":
            return float(inner)
        if name == "$time":
            return datetime.fromtimestamp(inner, timezone.utc)
        if name == "$tuple":
            return tuple(foreign(inner, deep))
        if name == "$error":
            return _ERRORS.get(inner[0], ValueError)(*inner[1:])
    except (TypeError, ValueError, OverflowError, OSError, LookupError):
        pass
    return None


class _UnprintableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


_ERRORS: Mapping[str, type[BaseException]] = {
    "KeyError": KeyError,
    "UnicodeDecodeError": UnicodeDecodeError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "Unprintable": _UnprintableError,
}
