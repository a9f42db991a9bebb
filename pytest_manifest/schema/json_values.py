"""JSON values: copied and checked, and what a short look at them tells."""

from __future__ import annotations

import math
from typing import Any, Final

from pydantic import JsonValue, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

MAX_DEPTH: Final = 100
"""How many levels of arrays and objects a JSON value may have: room for any real argument, and far
below where Python's own JSON decoder and encoder, and those of other languages, give up."""

_MAX_INT_BITS: Final = 14_000  # about 4,200 digits: Python refuses to print or parse longer ones
_INT64: Final = 1 << 63
_LEAVES: Final = frozenset({bool, int, type(None)})
_LEVELS: Final = frozenset({dict, list, tuple})


def json_value(value: object) -> JsonValue:
    """A deep copy of ``value`` in plain JSON types; tuples become arrays.

    Raises PydanticCustomError, which names the place, for what JSON cannot hold: NaN, infinities,
    other types, keys that are not text, lone surrogates, more than ``MAX_DEPTH`` levels.
    """
    try:
        copy: JsonValue = _copy_quickly(value)
    except ValidationError:
        return _copy(value, "", 0)
    return _copy(value, "", 0) if is_deep(copy) else copy


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


def count_keys(document: dict[str, Any]) -> int | None:
    """How many keys a parsed document has, at all depths.

    None where it holds what needs a closer look: infinities (of ``1e999``) or deep nesting.
    """
    keys = 0
    nodes: list[Any] = [document]
    for node in nodes:  # which grows meanwhile
        if type(node) is dict:
            keys += len(node)
            node = node.values()
        for item in node:
            kind = type(item)
            if kind is str:
                continue
            if kind is dict or kind is list:
                nodes.append(item)
            elif kind not in _LEAVES and not math.isfinite(item):
                return None
    return keys if len(nodes) <= MAX_DEPTH or not is_deep(document) else None


def is_deep(value: object) -> bool:
    """Whether there are more than ``MAX_DEPTH`` levels of arrays and objects."""
    if not value or type(value) not in _LEVELS:
        return False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            item
            for node in level
            for item in (node.values() if type(node) is dict else node)
            if type(item) in _LEVELS
        ]
    return bool(level)


# A length has pydantic look at all characters, and so find halves of surrogate pairs.
_TEXT: Final = core_schema.str_schema(strict=True, min_length=0)
ANY_JSON: Final = core_schema.definition_reference_schema("json")
"""A copy of a JSON value, in a schema that has ``copied_json()`` among its definitions."""
JSON_ARRAY: Final = core_schema.list_schema(ANY_JSON, strict=True)
JSON_OBJECT: Final = core_schema.dict_schema(_TEXT, ANY_JSON, strict=True)


def copied_json(number: CoreSchema, *more: CoreSchema) -> CoreSchema:
    """The definition of ``ANY_JSON``, of any depth, and without integers of more than 64 bits.

    ``number`` is what floats must be, and ``more`` what else there may be.
    """
    # Pydantic makes a float of a Decimal too, and of all else that can be one.
    exact = core_schema.chain_schema([core_schema.is_instance_schema(float), number])
    choices: list[CoreSchema | tuple[CoreSchema, str]] = [  # the most frequent first
        _TEXT,
        JSON_OBJECT,
        JSON_ARRAY,
        core_schema.int_schema(strict=True, ge=-_INT64, lt=_INT64),
        core_schema.bool_schema(strict=True),
        core_schema.none_schema(),
        exact,
        *more,
    ]
    return core_schema.union_schema(choices, mode="left_to_right", ref="json")


def _copying() -> SchemaValidator:
    finite = core_schema.float_schema(allow_inf_nan=False)
    return SchemaValidator(core_schema.definitions_schema(ANY_JSON, [copied_json(finite)]))


_copy_quickly: Final = _copying().validate_python
