"""Decide whether a JSON Schema can be applied, and find where a result violates it.

All other modules use JSON Schemas through this one. A schema that cannot be applied is refused when
the manifest is read, where its line can be named; one that fails later is reported as that schema's
flaw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final

from pydantic import JsonValue

from pytest_manifest.text import middle, number_unprintable

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

    from pytest_manifest.schema.json_schema_shape import suspects

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
