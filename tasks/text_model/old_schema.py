"""Convert JSON Schema to the form of the old SDK, which knows a small part of OpenAPI 3.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from pydantic import JsonValue

TYPES: Final = {"string": 1, "number": 2, "integer": 3, "boolean": 4, "array": 5, "object": 6}
"""The numbers of the SDK's ``Type``, by JSON Schema's names."""

RENAMED: Final = {"format": "format_", "minItems": "min_items", "maxItems": "max_items"}
KEPT: Final = ("description", "required")


def old_schema(schema: Mapping[str, JsonValue]) -> dict[str, object]:
    """Convert a JSON Schema to the fields of the SDK's ``Schema``.

    What the SDK has no word for (lengths, patterns, ``additionalProperties``) is left out: it only
    guides the model, and answers are checked all the same. Raises ValueError where the schema names
    no type, or several that are not one type and ``null``.
    """
    schema, nullable = _without_null(schema)
    name = schema.get("type")
    if not isinstance(name, str) or name not in TYPES:
        raise ValueError(f"the schema must say one type, not {name!r}: {dict(schema)!r:.200}")
    old: dict[str, object] = {"type_": TYPES[name]}
    if nullable:
        old["nullable"] = True
    old |= {field: schema[field] for field in KEPT if field in schema}
    old |= {ours: schema[theirs] for theirs, ours in RENAMED.items() if theirs in schema}
    choices = schema.get("enum")
    if name == "string" and isinstance(choices, list):
        old |= {"format_": "enum", "enum": [choice for choice in choices if choice is not None]}
    if isinstance(schema.get("items"), dict):
        old["items"] = old_schema(cast("dict[str, JsonValue]", schema["items"]))
    members = schema.get("properties")
    if isinstance(members, dict):
        old["properties"] = {
            member: old_schema(cast("dict[str, JsonValue]", of)) for member, of in members.items()
        }
    return old


def _without_null(schema: Mapping[str, JsonValue]) -> tuple[Mapping[str, JsonValue], bool]:
    """Return the schema with a single type, and whether it allowed null besides."""
    either = schema.get("anyOf")
    if isinstance(either, list):
        others = [one for one in either if isinstance(one, dict) and one.get("type") != "null"]
        if len(others) == 1:
            rest = {name: value for name, value in schema.items() if name != "anyOf"}
            return {**rest, **others[0]}, len(others) < len(either)
    names = schema.get("type")
    if isinstance(names, list):
        kept = [name for name in names if name != "null"]
        if len(kept) == 1:
            return {**schema, "type": kept[0]}, len(kept) < len(names)
    return schema, False
