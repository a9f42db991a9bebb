"""JSON Schema in the words of the old SDK."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from tasks.text_model.old_schema import old_schema

Schema = dict[str, JsonValue]


@pytest.mark.parametrize(
    ("schema", "old"),
    [
        ({"type": "string", "minLength": 3, "pattern": "x"}, {"type_": 1}),
        ({"type": "integer", "format": "int32"}, {"type_": 3, "format_": "int32"}),
        ({"type": ["string", "null"]}, {"type_": 1, "nullable": True}),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, {"type_": 2, "nullable": True}),
        (
            {"type": ["string", "null"], "enum": ["a", None]},
            {"type_": 1, "nullable": True, "format_": "enum", "enum": ["a"]},
        ),
        (
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "uniqueItems": True},
            {"type_": 5, "min_items": 1, "items": {"type_": 4}},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            {"type_": 6, "properties": {"a": {"type_": 1}}, "required": ["a"]},
        ),
    ],
)
def test_a_schema_is_said_in_the_old_words(schema: Schema, old: dict[str, object]) -> None:
    """Types by number, null by a flag, and nothing that the SDK has no word for."""
    assert old_schema(schema) == old


@pytest.mark.parametrize(
    "schema", [{}, {"type": ["string", "number"]}, {"type": "null"}, {"enum": ["a"]}]
)
def test_a_schema_of_no_one_type_is_refused(schema: Schema) -> None:
    """The SDK cannot say it."""
    with pytest.raises(ValueError, match="one type"):
        old_schema(schema)
