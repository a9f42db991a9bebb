"""Apply JSON Schema's keywords in limited steps, and check what its standard leaves open.

The jsonschema package searches patterns with Python's engine, which may never return, compares each
item of an array with each other one, and divides in floats, which overflow. Schemas that refer to
themselves can also ask for unlimited work, so every step is counted. A schema that meets the
standard may still refer to what is no schema, does not exist, or is itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple

import attrs
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # has no types
from referencing.jsonschema import DRAFT202012

from pytest_manifest.compat.jsonschema import referred_by
from pytest_manifest.schema.patterns import found_in, pattern_problem, pattern_size

STEPS: Final = 100_000
STEPS_A_VALUE: Final = 50
"""Steps for each value in what is checked; an ordinary schema takes a handful."""

_left: ContextVar[list[int]] = ContextVar("steps_left")

Errors = Iterator[ValidationError]


class TooManyStepsError(Exception):
    """Raised where checking a value by a schema takes more steps than its size allows."""


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


DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_CHECKS: Final = 10_000
"""How many schemas may be applied to one and the same value."""
MAX_PATTERNS: Final = 500_000
"""Instructions of all patterns of a schema, compiled: an ordinary one has some dozens."""

_OBJECTS: Final = ("$defs", "properties", "patternProperties", "dependentSchemas")
_ARRAYS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE: Final = (
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef"})
_IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}) | {
    "dependentSchemas"
}
"""Keywords whose schemas are applied to the value itself, not to what is in it."""


class _Part(NamedTuple):
    """A schema within a schema, and the place from which its references are followed."""

    path: str
    schema: dict[str, Any]
    resolver: Any


def resolver_of(schema: Any) -> Any:
    """Return what follows the references of a schema, within it and to the standard's own.

    All names and addresses in it are found at once, where there is a reference: else the whole
    schema would be gone through for each of them.
    """
    root = DRAFT202012.create_resource(schema)
    if not _refers(schema):
        return REGISTRY.resolver_with_root(root)
    uri = root.id() or ""
    registry = REGISTRY.with_resource(uri, root)
    # A part of another dialect, or an address that is none, may raise anything. What has a name is
    # not found then, and so refused.
    with suppress(Exception):
        registry = registry.crawl()
    return registry.resolver(uri)


def _refers(schema: Any) -> bool:
    parts = (node for node in _objects(schema) if isinstance(node, dict))
    return any(not _REFERENCES.isdisjoint(part) for part in parts)


def parts_problem(schema: dict[str, Any], malformed: Callable[[object], str]) -> str:
    """Say why subschemas of a schema that meets the standard cannot be applied; "" if they can.

    ``malformed`` returns why an object violates the standard for schemas, or "".
    """
    return _Parts(schema, malformed).problem(_Part("", schema, resolver_of(schema)))


class _Parts:
    """One look at all parts of a schema; ``_applied``: what is applied to the same value."""

    def __init__(self, schema: dict[str, Any], malformed: Callable[[object], str]) -> None:
        self._malformed = malformed
        self._own = {id(node) for node in _objects(schema)}
        self._applied: dict[int, list[int]] = {}
        self._where: dict[int, str] = {}
        self._patterns = 0

    def problem(self, root: _Part) -> str:
        """Return the first flaw, or an empty string."""
        # Targets of references come last: they may lie where the standard expects no schema.
        pending, referred = [root], list[tuple[str, _Part]]()
        while pending or referred:
            place, part = ("", pending.pop()) if pending else referred.pop()
            if id(part.schema) in self._applied:
                continue
            flaw = self._malformed(part.schema) if place else ""
            if flaw:
                return f"{place} leads to what is no schema ({flaw})"
            self._applied[id(part.schema)] = []
            self._where[id(part.schema)] = part.path or "it"
            flaw = self._own_flaw(part) or self._follow(part, referred)
            if flaw:
                return flaw
            for keyword, inner in _inner(part):
                pending.append(inner)
                if keyword in _IN_PLACE:
                    self._applied[id(part.schema)].append(id(inner.schema))
        return self._endless()

    def _own_flaw(self, part: _Part) -> str:
        """Say what is wrong with a subschema itself, its own subschemas apart; else ""."""
        dialect = part.schema.get("$schema", DIALECT)
        if dialect.removesuffix("#") != DIALECT:
            named = _at(part.path, "$schema")
            return f"{named}: names {dialect!r}, but only {DIALECT} is known"
        patterns = [("pattern", part.schema["pattern"])] if "pattern" in part.schema else []
        patterns += [("patternProperties", one) for one in part.schema.get("patternProperties", ())]
        for keyword, pattern in patterns:
            if why := pattern_problem(pattern):
                place = _at(part.path, keyword)
                return f"{place}: {pattern!r} is not a regular expression: {why}"
            self._patterns += pattern_size(pattern)
            if self._patterns > MAX_PATTERNS:
                return f"{_at(part.path, keyword)}: its patterns are too large, all in all"
        return ""

    def _follow(self, part: _Part, referred: list[tuple[str, _Part]]) -> str:
        """Note where the references of a part lead to; or why they lead nowhere."""
        for keyword in _REFERENCES:
            if keyword not in part.schema:
                continue
            place, wanted = _at(part.path, keyword), part.schema[keyword]
            try:
                found = part.resolver.lookup(wanted)
            except Exception:  # the resolver raises anything for an invalid address
                return f"{place}: refers to {wanted!r}, which is not part of it"
            if id(found.contents) in self._own:
                target = _Part(f"{place} ({wanted})", found.contents, found.resolver)
                referred.append((place, target))
                self._applied[id(part.schema)].append(id(found.contents))
            elif not isinstance(found.contents, (bool, dict)):
                return f"{place}: refers to {wanted!r}, which is no schema"
        return ""

    def _endless(self) -> str:
        """Say where schemas apply to one value endlessly or over ``MAX_CHECKS`` times; else "".

        A schema that refers to itself for what is inside the value ends where the value does.
        """
        cost: dict[int, int] = {}
        try:
            for node in TopologicalSorter(self._applied).static_order():
                cost[node] = 1 + sum(cost[part] for part in self._applied.get(node, ()))
                if cost[node] > MAX_CHECKS:
                    return (
                        f"{self._where[node]}: has more than {MAX_CHECKS} checks made of one value"
                    )
        except CycleError as error:
            node = error.args[1][0]
            return f"{self._where[node]}: refers to itself without end"
        return ""


def _inner(part: _Part) -> Iterator[tuple[str, _Part]]:
    """Yield the direct subschemas of a schema with their keywords, without true and false."""
    for keyword in _OBJECTS:
        for name, schema in part.schema.get(keyword, {}).items():
            yield from _one(part, keyword, _at(_at(part.path, keyword), name), schema)
    for keyword in _ARRAYS:
        for i, schema in enumerate(part.schema.get(keyword, ())):
            yield from _one(part, keyword, f"{_at(part.path, keyword)}[{i}]", schema)
    for keyword in _SINGLE:
        if keyword in part.schema:
            yield from _one(part, keyword, _at(part.path, keyword), part.schema[keyword])


def _one(part: _Part, keyword: str, path: str, schema: Any) -> Iterator[tuple[str, _Part]]:
    if isinstance(schema, dict):
        resolver = part.resolver.in_subresource(DRAFT202012.create_resource(schema))
        yield keyword, _Part(path, schema, resolver)


def _objects(value: Any) -> Iterator[Any]:
    """Yield all arrays and objects within a value, itself included."""
    nodes = [value]
    for node in nodes:  # the loop appends to it
        if isinstance(node, (dict, list)):
            yield node
            nodes.extend(node.values() if isinstance(node, dict) else node)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
