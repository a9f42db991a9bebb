"""Copy and check JSON values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import JsonValue
    from typing_extensions import LiteralString


MAX_DEPTH: Final = 100
"""How many levels of arrays and objects a JSON value may have: room for any real argument, and far
below where Python's own JSON decoder and encoder, and those of other languages, give up."""

_TOO_LARGE: Final = 10**4300  # Python refuses to print or parse more digits


class _RefusedError(Exception):
    """A value that JSON cannot hold, a hint, and the way to it, from the inside out."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.way: list[str] = []


def json_value(value: object) -> JsonValue:
    """Copy ``value`` deeply into plain JSON types; tuples become arrays.

    Raises PydanticCustomError, which names the place, for what JSON cannot hold: NaN, infinities,
    other types, keys that are not text, lone surrogates, more than ``MAX_DEPTH`` levels.
    """
    try:
        return _copy(value, 0)
    except _RefusedError as refused:
        place = "".join(reversed(refused.way)).lstrip(".")
        where = f" at {place}" if place else ""
        facts: dict[str, object] = {"what": refused.what, "where": where, "hint": refused.hint}
        raise _error("holds {what}{where}; {hint}", facts) from None


def _error(text: LiteralString, facts: dict[str, object]) -> ValueError:
    from pydantic_core import PydanticCustomError  # which takes its time, for what hardly happens

    return PydanticCustomError("json_value", text, facts)


def _copy(value: Any, depth: int) -> JsonValue:
    kind = type(value)
    if value is None or kind is bool or (kind is str and value.isascii()):
        plain: JsonValue = value  # most are: it saves half of the time
        return plain
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, (dict, list, tuple)):
        if depth >= MAX_DEPTH:
            facts = {"what": f"more than {MAX_DEPTH} levels of nesting"}
            raise _error("holds {what}; flatten it", {**facts})
        return _object(value, depth + 1) if isinstance(value, dict) else _array(value, depth + 1)
    if isinstance(value, int):
        if not -_TOO_LARGE < value < _TOO_LARGE:
            raise _RefusedError("an integer of more than 4,300 digits", "send it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _RefusedError(f"{value!r}, which JSON does not have", "use null or text")
        return float(value)
    hint = "convert it to text, a number, a list or a dict"
    raise _RefusedError(f"a {type(value).__name__}, which JSON does not have", hint)


def _object(value: dict[Any, Any], depth: int) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _RefusedError(f"the key {key!r}, which is not text", "make it text")
        name = key if type(key) is str and key.isascii() else _encodable(key)
        try:
            made[name] = _copy(item, depth)
        except _RefusedError as refused:
            refused.way.append(f".{name}")
            raise
    return made


def _array(value: list[Any] | tuple[Any, ...], depth: int) -> list[JsonValue]:
    made: list[JsonValue] = []
    try:
        for item in value:
            made.append(_copy(item, depth))  # noqa: PERF401 - the number of those that passed counts
    except _RefusedError as refused:
        refused.way.append(f"[{len(made)}]")
        raise
    return made


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _RefusedError("half of a surrogate pair", "write whole characters") from None
    return str.__str__(text)  # str() of a member of an enum is its name
