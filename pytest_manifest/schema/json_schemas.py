"""Decide whether a JSON Schema can be applied, and find where a result violates it.

All other modules use JSON Schemas through this one. A schema that cannot be applied is refused when
the manifest is read, where its line can be named; one that fails later is reported as that schema's
flaw.

Find in one pass what keeps an object from being a JSON Schema (2020-12), by types alone.

The standard describes schemas by a schema of its own. To apply that one takes half a millisecond
for each part of a schema, 25 s for a megabyte of them; nearly all parts are sound, and that is
told by a table. What is not sound is left to the standard's schema, which has the words for it.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final, NamedTuple

from pydantic import JsonValue

from pytest_manifest.text import middle, number_unprintable

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


_LONGEST: Final = 400
"""Characters in which a flaw of a schema is told."""


class SchemaFlawError(ValueError):
    """A schema that cannot be applied; its text goes on after "it"."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a result that is against a schema: ``path`` begins with "" or ``.name``;
    ``keyword`` and ``wanted`` are the rule, ``message`` says it in a sentence."""

    path: str
    keyword: str
    wanted: object
    message: str
    found: object


def schema_problem(schema: dict[str, JsonValue]) -> str:
    """Say why this object is no JSON Schema (2020-12) that can be applied; "" if it is one.

    It may quote the schema, so what is long loses its middle, and what cannot be printed is
    numbered.
    """
    return _schema_problem(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)  # a planner gives the same schema to thousands of entries
def _schema_problem(text: str) -> str:
    from pytest_manifest.schema.json_schema_rules import parts_problem

    schema, known = json.loads(text), set[int]()
    try:
        said = _malformed(schema, known) or parts_problem(schema, partial(_malformed, known=known))
    except ValueError as error:  # an $id that is no address
        said = f"it names an address that is none ({error})"
    return number_unprintable(middle(said, _LONGEST))


def _malformed(schema: object, known: set[int]) -> str:
    """Say where an object violates the standard for schemas; "" if it does not.

    ``known``: identities of schemas that were looked at before; they are added to.
    """
    from jsonschema import Draft202012Validator, ValidationError

    try:
        for place, part in suspects(schema, known):
            for one in _errors(Draft202012Validator.META_SCHEMA, part):
                path = f"{ValidationError('', path=place).json_path}{one.path}"
                return f"{path.removeprefix('$').removeprefix('.') or 'it'}: {one.message}"
    except SchemaFlawError as flaw:
        return f"it {flaw}"
    return ""


def violations(schema: dict[str, JsonValue], result: JsonValue, limit: int) -> list[Violation]:
    """Return the first ``limit`` places of the result that violate the schema.

    Raises SchemaFlawError where the schema cannot be applied.
    """
    return list(islice(_errors(schema, result), limit))


def _errors(schema: Any, value: object) -> Iterator[Violation]:
    from referencing.exceptions import Unresolvable

    from pytest_manifest.compat.jsonschema import with_resolver
    from pytest_manifest.schema.json_schema_rules import (
        TooManyStepsError,
        checker,
        counted,
        resolver_of,
    )

    try:
        with counted(_size(value)):
            validator = with_resolver(checker(), schema, resolver_of(schema))
            for error in validator.iter_errors(value):
                path = error.json_path.removeprefix("$")
                yield Violation(
                    path, error.validator, error.validator_value, error.message, error.instance
                )
    except Unresolvable as error:
        raise SchemaFlawError(f"refers to {str(error.ref)!r}, which is not part of it") from None
    except TooManyStepsError:
        raise SchemaFlawError("asks for more steps than a value of this size can need") from None
    except RecursionError:
        raise SchemaFlawError("refers to itself without end, or is nested too deeply") from None
    except Exception as error:  # jsonschema may raise anything for an unusual schema
        raise SchemaFlawError(f"cannot be applied ({type(error).__name__}: {error})") from error


def _size(value: object) -> int:
    """Count the values within a value, itself included."""
    nodes: list[Any] = [value]
    for node in nodes:  # the loop appends to it
        if isinstance(node, dict):
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
    return len(nodes)
