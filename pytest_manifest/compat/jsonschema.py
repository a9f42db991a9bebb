"""Private parts of jsonschema."""

from __future__ import annotations

from typing import Any


def referred_by(validator: Any, reference: str) -> tuple[Any, Any]:
    """Return the validator and the schema that a reference in a validator's schema leads to.

    Relies on ``Validator._resolver`` being a ``referencing.Resolver``, and on ``evolve`` taking
    another (jsonschema 4.26).
    Test: ``test_compat_jsonschema.py::test_a_reference_leads_to_a_schema_in_its_own_place``.
    """
    found = validator._resolver.lookup(reference)
    return validator.evolve(schema=found.contents, _resolver=found.resolver), found.contents
