"""Copy and check JSON values."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Final

from msgspec import MsgspecError
from msgspec.json import Decoder, Encoder
from pydantic import JsonValue
from pydantic_core import PydanticCustomError

MAX_DEPTH: Final = 100
"""How many levels of arrays and objects a JSON value may have: room for any real argument, and far
below where Python's own JSON decoder and encoder, and those of other languages, give up."""

_MAX_INT_BITS: Final = 14_000  # about 4,200 digits: Python refuses to print or parse longer ones
_INT64: Final = 1 << 63
_SMALL: Final = 1e-4
_LARGE: Final = 1e16
"""From here on, and below the small one, a float is written with an exponent."""

_LEAVES: Final = frozenset({bool, type(None)})
_LEVELS: Final = frozenset({dict, list, tuple})
_encode: Final = Encoder().encode
_decode: Final = Decoder().decode
MSGSPEC_ERRORS: Final = (ValueError, MsgspecError)
"""What msgspec raises for what it cannot read; its errors are a ValueError from 0.21 on."""


def json_value(value: object) -> JsonValue:
    """Copy ``value`` deeply into plain JSON types; tuples become arrays.

    Raises PydanticCustomError, which names the place, for what JSON cannot hold: NaN, infinities,
    other types, keys that are not text, lone surrogates, more than ``MAX_DEPTH`` levels.
    """
    with contextlib.suppress(*MSGSPEC_ERRORS):  # a lone surrogate
        if is_stock_json([value]):
            copy: JsonValue = _decode(_encode(value))
            return copy
    return _copy(value, "", 0)


def _copy(value: object, place: str, depth: int) -> JsonValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(value, place)
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise _refusal(place, "an integer of more than 4,000 digits", "send it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(place, f"{value!r}, which JSON does not have", "use null or text")
        return float(value)
    if depth >= MAX_DEPTH:
        raise _refusal("", f"more than {MAX_DEPTH} levels of nesting", "flatten it")
    if isinstance(value, dict):
        return {
            _key(key, place): _copy(item, f"{place}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_copy(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
    hint = "convert it to text, a number, a list or a dict"
    raise _refusal(place, f"a {type(value).__name__}, which JSON does not have", hint)


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise _refusal(place, f"the key {key!r}, which is not text", "make it text")
    return _encodable(key, place)


def _encodable(text: str, place: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _refusal(place, "half of a surrogate pair", "write whole characters") from None
    return str.__str__(text)  # str() of a member of an enum is its name


def _refusal(place: str, what: str, hint: str) -> PydanticCustomError:
    where = f" at {place.lstrip('.')}" if place else ""
    facts = {"what": what, "where": where, "hint": hint}
    return PydanticCustomError("json_value", "holds {what}{where}; {hint}", facts)


def is_stock_json(value: dict[str, Any] | list[Any]) -> bool:
    """Tell whether a dict or list holds JSON's own types alone, which every encoder writes alike.

    It has text for keys, integers of 64 bits, floats that are written without an exponent, at most
    ``MAX_DEPTH`` levels, and no dict or list twice: one that holds itself has no end. Lone
    surrogates are left to the encoder, which refuses them.
    """
    nodes: list[Any] = [value]
    seen: set[int] = set()
    for node in nodes:  # the loop appends to it
        if id(node) in seen:
            return False
        seen.add(id(node))
        if type(node) is dict:
            for key in node:
                if type(key) is not str:
                    return False
            node = node.values()
        for item in node:
            kind = type(item)
            if kind is str:
                continue
            if kind is dict or kind is list:
                nodes.append(item)
            elif kind is int:
                if not -_INT64 <= item < _INT64:
                    return False
            elif kind not in _LEAVES and not (
                kind is float and (_SMALL <= abs(item) < _LARGE or item == 0)
            ):
                return False
    return len(nodes) <= MAX_DEPTH or not is_deep(value)


def is_deep(value: object, most: int = MAX_DEPTH) -> bool:
    """Return whether a value has more than so many levels of arrays and objects."""
    if not value or type(value) not in _LEVELS:
        return False
    level: list[Any] = [value]
    for _ in range(most):
        if not level:
            return False
        level = [
            item
            for node in level
            for item in (node.values() if type(node) is dict else node)
            if type(item) in _LEVELS
        ]
    return bool(level)
