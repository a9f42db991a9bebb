"""Check JSON Schema's keywords exactly, and in a limited number of steps.

The jsonschema package searches patterns with Python's engine, which may never return, compares each
item of an array with each other one, and divides in floats, which overflow. Schemas that refer to
themselves can also ask for unlimited work, so every step is counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import attrs
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from pytest_manifest.compat.jsonschema import referred_by
from pytest_manifest.schema.patterns import found_in

STEPS: Final = 100_000
STEPS_A_VALUE: Final = 50
"""Steps for each value in what is checked; an ordinary schema takes a handful."""

_left: ContextVar[list[int]] = ContextVar("steps_left")

Errors = Iterator[ValidationError]


class TooManyStepsError(Exception):
    """To check this value by this schema would take out of all proportion."""


@contextmanager
def counted(values: int) -> Iterator[None]:
    """Let a check of so many values take its proper number of steps, and no more."""
    token = _left.set([STEPS + STEPS_A_VALUE * values])
    try:
        yield
    finally:
        _left.reset(token)


def _step() -> None:
    left = _left.get()
    left[0] -= 1
    if left[0] < 0:
        raise TooManyStepsError


def _found(pattern: str, text: str) -> bool:
    _step()
    return found_in(pattern, text)


def _pattern(validator: Any, wanted: str, instance: Any, _schema: object) -> Errors:
    if validator.is_type(instance, "string") and not _found(wanted, instance):
        yield ValidationError(f"{instance!r} does not match {wanted!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: object
) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, wanted: Any, instance: Any, schema: Mapping[str, Any]
) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    patterns = schema.get("patternProperties", {})
    known = schema.get("properties", {})
    more = [
        name
        for name in instance
        if name not in known and not any(_found(pattern, name) for pattern in patterns)
    ]
    if validator.is_type(wanted, "object"):
        for name in more:
            yield from validator.descend(instance[name], wanted, path=name)
    elif wanted is False and more:
        yield ValidationError(f"Additional properties are not allowed: {_listed(more)}")


def _unevaluated_properties(
    validator: Any, wanted: Any, instance: Any, schema: Mapping[str, Any]
) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    known = _evaluated(validator, instance, schema)
    bad = [
        name
        for name, value in instance.items()
        if name not in known and not _holds(validator, value, wanted)
    ]
    if bad:
        yield ValidationError(f"Unevaluated properties are not allowed: {_listed(bad)}")


def _evaluated(validator: Any, instance: Mapping[str, Any], schema: Any) -> set[str]:
    """Return the names of the properties that the other keywords of this schema evaluate."""
    if not isinstance(schema, dict):
        return set()
    names = set(schema.get("properties", {})) & set(instance)
    for pattern in schema.get("patternProperties", {}):
        names |= {name for name in instance if _found(pattern, name)}
    if "additionalProperties" in schema:
        names |= set(instance)
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in schema:
            place, found = referred_by(validator, schema[keyword])
            names |= _evaluated(place, instance, found)
    for part in _applied(validator, instance, schema):
        names |= _evaluated(validator, instance, part)
        if isinstance(part, dict) and "unevaluatedProperties" in part:
            names |= set(instance)
    return names


def _applied(validator: Any, instance: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Any]:
    """Return the subschemas that apply to this whole object and are valid for it."""
    parts = [part for name, part in schema.get("dependentSchemas", {}).items() if name in instance]
    for keyword in ("allOf", "anyOf", "oneOf"):
        parts += [part for part in schema.get(keyword, ()) if _holds(validator, instance, part)]
    if "if" in schema:
        holds = _holds(validator, instance, schema["if"])
        parts += [schema["if"]] if holds else []
        parts += [schema[name] for name in ("then" if holds else "else",) if name in schema]
    return parts


def _holds(validator: Any, instance: object, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _multiple_of(validator: Any, divisor: Any, instance: Any, _schema: object) -> Errors:
    if validator.is_type(instance, "number") and _exact(instance) % _exact(divisor) != 0:
        yield ValidationError(f"{instance!r} is not a multiple of {divisor!r}")


def _exact(number: float) -> Fraction:
    """Convert a number to the fraction that its decimal digits say: 1.1 is a multiple of 0.1."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _unique_items(validator: Any, wanted: object, instance: Any, _schema: object) -> Errors:
    if not wanted or not validator.is_type(instance, "array"):
        return
    seen: set[Hashable] = set()
    for item in instance:
        key = _key(item)
        if key in seen:
            yield ValidationError(f"{instance!r} has non-unique elements")
            return
        seen.add(key)


def _key(value: Any) -> Hashable:
    """Equal for equal JSON values alone: 1 is 1.0, and true is not 1."""
    if isinstance(value, dict):
        return frozenset((name, _key(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(_key(item) for item in value)
    return (type(value).__name__, value) if isinstance(value, (bool, str)) else (value,)


def _listed(names: list[str]) -> str:
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in sorted(names)[:20])


_KEYWORDS: Final[Mapping[str, Callable[..., Errors]]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "unevaluatedProperties": _unevaluated_properties,
    "multipleOf": _multiple_of,
    "uniqueItems": _unique_items,
}


@lru_cache(maxsize=1)
def checker() -> Callable[..., Any]:
    """Make the validator class of JSON Schema 2020-12 with these keywords, for ``counted``."""
    made: Any = extend(Draft202012Validator, _KEYWORDS)  # type: ignore[no-untyped-call]  # no types

    def counted_evolve(self: Any, **changes: Any) -> Any:
        _step()
        # A part that names its dialect would be checked by the package's own class.
        return attrs.evolve(self, **changes)

    made.evolve = counted_evolve
    return made  # type: ignore[no-any-return]  # the package makes its classes untyped
