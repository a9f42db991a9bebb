"""What is relied on of jsonschema's private parts: each test fails where jsonschema has changed."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from pytest_manifest.compat.jsonschema import referred_by


def test_a_reference_leads_to_a_schema_in_its_own_place() -> None:
    """From there a further reference is looked up among the schema's own parts."""
    schema = {
        "$defs": {
            "inner": {
                "$id": "inner",
                "$ref": "#/$defs/deep",
                "$defs": {"deep": {"type": "string"}},
            }
        }
    }
    validator = Draft202012Validator(schema)
    place, found = referred_by(validator, "#/$defs/inner")
    assert found == schema["$defs"]["inner"]
    inner, deep = referred_by(place, found["$ref"])
    assert deep == {"type": "string"}
    assert (inner.is_valid("text"), inner.is_valid(1)) == (True, False)
