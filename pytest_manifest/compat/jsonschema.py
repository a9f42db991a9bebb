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


def with_resolver(kind: Any, schema: Any, resolver: Any) -> Any:
    """Return a validator of this class for a schema, whose references this resolver follows.

    Made of a registry alone, a validator looks through the whole schema at each reference to a
    name; and without either it would fetch from the network.
    Relies on the argument ``_resolver``, a ``referencing.Resolver`` (jsonschema 4.26).
    Test: ``test_compat_jsonschema.py::test_references_are_followed_by_the_resolver_that_is_given``.
    """
    return kind(schema, _resolver=resolver)
