"""Check what the JSON Schema standard leaves open: references, patterns and dialects of subschemas.

A schema that meets the standard may still refer to what is no schema, does not exist, or is itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple

from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # has no types
from referencing.jsonschema import DRAFT202012

from pytest_manifest.schema.patterns import pattern_problem

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_CHECKS: Final = 10_000
"""How many schemas may be applied to one and the same value."""

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
_REFERENCES: Final = ("$ref", "$dynamicRef")
_IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"}) | {
    "dependentSchemas"
}
"""Keywords whose schemas are applied to the value itself, not to what is in it."""


class _Part(NamedTuple):
    """A schema within a schema, and the place from which its references are followed."""

    path: str
    schema: dict[str, Any]
    resolver: Any


def parts_problem(schema: dict[str, Any], malformed: Callable[[object], str]) -> str:
    """Say why subschemas of a schema that meets the standard cannot be applied; "" if they can.

    ``malformed`` returns why an object violates the standard for schemas, or "".
    """
    root = DRAFT202012.create_resource(schema)
    return _Parts(schema, malformed).problem(_Part("", schema, REGISTRY.resolver_with_root(root)))


class _Parts:
    """One look at all parts of a schema; ``_applied``: what is applied to the same value."""

    def __init__(self, schema: dict[str, Any], malformed: Callable[[object], str]) -> None:
        self._malformed = malformed
        self._own = {id(node) for node in _objects(schema)}
        self._applied: dict[int, list[int]] = {}
        self._where: dict[int, str] = {}

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
            flaw = _own_flaw(part) or self._follow(part, referred)
            if flaw:
                return flaw
            for keyword, inner in _inner(part):
                pending.append(inner)
                if keyword in _IN_PLACE:
                    self._applied[id(part.schema)].append(id(inner.schema))
        return self._endless()

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


def _own_flaw(part: _Part) -> str:
    """Say what is wrong with a subschema itself, its own subschemas apart; else ""."""
    dialect = part.schema.get("$schema", DIALECT)
    if dialect.removesuffix("#") != DIALECT:
        return f"{_at(part.path, '$schema')}: names {dialect!r}, but only {DIALECT} is known"
    patterns = [("pattern", part.schema.get("pattern", ""))]
    patterns += [("patternProperties", one) for one in part.schema.get("patternProperties", ())]
    for keyword, pattern in patterns:
        why = pattern_problem(pattern)
        if why:
            return f"{_at(part.path, keyword)}: {pattern!r} is not a regular expression: {why}"
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
