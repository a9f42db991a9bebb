"""What is relied on of jsonschema's private parts: each test fails where jsonschema has changed."""

from __future__ import annotations

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from pytest_manifest.compat.jsonschema import referred_by, with_resolver


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


def test_references_are_followed_by_the_resolver_that_is_given() -> None:
    """And by no registry of the validator's own."""
    there = DRAFT202012.create_resource({"$defs": {"a": {"type": "string"}}})
    resolver = Registry().with_resource("", there).resolver("")
    validator = with_resolver(Draft202012Validator, {"$ref": "#/$defs/a"}, resolver)
    assert (validator.is_valid("text"), validator.is_valid(1)) == (True, False)
