"""Find in one pass what keeps an object from being a JSON Schema (2020-12), by types alone.

The standard describes schemas by a schema of its own. To apply that one takes half a millisecond
for each part of a schema, 25 s for a megabyte of them; nearly all parts are sound, and that is
told by a table. What is not sound is left to the standard's schema, which has the words for it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_ID: Final = re.compile("[^#]*#?")
_ANCHOR: Final = re.compile("[A-Za-z_][-A-Za-z0-9._]*")
_SHOWN: Final = 100
"""Items of an array or object, at most, that are handed on to be told about."""

Check = Callable[[Any], bool]


class Suspect(NamedTuple):
    """A part that is no schema, with the names and numbers that lead to it.

    ``part``: itself or, of a schema, the one keyword that is wrong.
    """

    place: tuple[str | int, ...]
    part: Any


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _array(value: Any) -> bool:
    return isinstance(value, list)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _divisor(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    whole = isinstance(value, float) and value.is_integer()
    return (whole or (isinstance(value, int) and not isinstance(value, bool))) and value >= 0


def _names(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return False
    return len(set(value)) == len(value)


def _type(value: Any) -> bool:
    if isinstance(value, str):
        return value in _TYPES
    return _names(value) and bool(value) and _TYPES.issuperset(value)


def _vocabulary(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, bool) for one in value.values())


_PLAIN: Final[Mapping[str, Check]] = {
    **dict.fromkeys(
        (
            *("$schema", "$ref", "$dynamicRef", "$comment", "$recursiveRef", "pattern", "format"),
            *("title", "description", "contentEncoding", "contentMediaType"),
        ),
        _text,
    ),
    "$id": lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
    **dict.fromkeys(
        ("$anchor", "$dynamicAnchor", "$recursiveAnchor"),
        lambda value: isinstance(value, str) and _ANCHOR.fullmatch(value) is not None,
    ),
    "$vocabulary": _vocabulary,
    "type": _type,
    "enum": _array,
    "examples": _array,
    "required": _names,
    "multipleOf": _divisor,
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _number),
    **dict.fromkeys(
        (
            *("maxLength", "minLength", "maxItems", "minItems", "maxContains", "minContains"),
            *("maxProperties", "minProperties"),
        ),
        _count,
    ),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _flag),
}
"""Keywords without schemas in them, and what their values must be."""
_ONE: Final = frozenset(
    (
        *("items", "contains", "additionalProperties", "propertyNames", "if", "then", "else"),
        *("not", "unevaluatedItems", "unevaluatedProperties", "contentSchema"),
    )
)
"""Keywords whose value is a schema."""
_SEVERAL: Final = frozenset(("prefixItems", "allOf", "anyOf", "oneOf"))
"""Keywords whose value is an array of schemas, at least one."""
_NAMED: Final[Mapping[str, Check | None]] = {
    **dict.fromkeys(("$defs", "definitions", "properties", "patternProperties")),
    "dependentSchemas": None,
    "dependentRequired": _names,
    "dependencies": _names,
}
"""Keywords whose value is an object, and what its values must be: schemas, where that is None."""
_SCHEMA_OR_NAMES: Final = "dependencies"


def suspects(schema: object, known: set[int]) -> Iterator[Suspect]:
    """Yield what is no schema of a value that is to be one, and of all schemas within it.

    ``known``: identities of objects that have been looked at as schemas; they are added to.
    """
    pending = deque([Suspect((), schema)])
    while pending:
        place, part = pending.popleft()
        if not isinstance(part, dict):
            if not isinstance(part, bool):
                yield Suspect(place, _shown(part))
            continue
        if id(part) in known:
            continue
        known.add(id(part))
        for keyword, value in part.items():
            plain = _PLAIN.get(keyword)
            if plain is not None:
                if not plain(value):
                    yield Suspect(place, {keyword: _shown(value)})
            elif keyword in _ONE:
                pending.append(Suspect((*place, keyword), value))
            elif keyword in _SEVERAL:
                if not isinstance(value, list) or not value:
                    yield Suspect(place, {keyword: _shown(value)})
                else:
                    pending += (
                        Suspect((*place, keyword, number), one) for number, one in enumerate(value)
                    )
            elif keyword in _NAMED:
                yield from _of_names(place, keyword, value, pending)


def _of_names(
    place: tuple[str | int, ...], keyword: str, value: Any, pending: deque[Suspect]
) -> Iterator[Suspect]:
    """Yield what is wrong with a keyword's object; add the schemas in it to ``pending``."""
    if not isinstance(value, dict):
        yield Suspect(place, {keyword: _shown(value)})
        return
    check = _NAMED[keyword]
    for name, one in value.items():
        is_schema = check is None or (keyword == _SCHEMA_OR_NAMES and isinstance(one, (dict, bool)))
        if is_schema:
            pending.append(Suspect((*place, keyword, name), one))
        elif check is not None and not check(one):
            yield Suspect(place, {keyword: {name: _shown(one)}})


def _shown(value: Any) -> Any:
    """Return a value that is wrong without the most of it, and wrong for the same reason."""
    if isinstance(value, dict) and len(value) > _SHOWN:
        # Of vocabularies what is no flag; anything else is wrong for being an object.
        return dict(
            islice(((name, one) for name, one in value.items() if not isinstance(one, bool)), 1)
        )
    if not isinstance(value, list) or len(value) <= _SHOWN:
        return value
    seen: set[str] = set()
    for one in value:
        if not isinstance(one, str):
            return [one]
        if one in seen:
            return [one, one]
        seen.add(one)
    return value[:_SHOWN]  # of a type: there are less of them than that
