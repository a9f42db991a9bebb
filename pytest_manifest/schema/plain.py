"""A short look at entries, which spares nearly all of them the long one of the models.

What is found plain here is valid to the models too. What is not may be valid all the same: then
the models decide, and find the words. A function of Python that pydantic calls takes longer than
all its own checks of a field, so there is none here, and fields that need one (``eta``,
``expect.error``) are left to the models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from pytest_manifest.schema.base import State
from pytest_manifest.schema.fields import ID_MAX_LENGTH
from pytest_manifest.schema.json_schemas import schema_problem
from pytest_manifest.schema.json_values import ANY_JSON, JSON_ARRAY, JSON_OBJECT, copied_json

_INT64: Final = 1 << 63
_SMALL: Final = 1e-4
_LARGE: Final = 1e16
"""From here on, and below the small one, a float is written with an exponent."""


class _Values(NamedTuple):
    """How the values are looked at whose types say little: JSON of any kind, and numbers."""

    json: CoreSchema
    array: CoreSchema
    object: CoreSchema
    number: Callable[[CoreSchema], CoreSchema]


def is_plain(document: dict[str, Any]) -> bool:
    """Whether a document that a careful parser made is an entry, told by a short look."""
    return _is_parsed_entry(document) and _makes_sense(document)


def plain_entry(fields: dict[str, Any]) -> dict[str, Any] | None:
    """A copy of an entry's fields in their order, where a short look finds them valid; else None.

    Seconds and costs that are whole become integers, as they are written.
    """
    try:
        entry: dict[str, Any] = _copy_entry(fields)
    except ValidationError:
        return None
    return entry if _makes_sense(entry) else None


def _makes_sense(entry: dict[str, Any]) -> bool:
    """What the types of an entry's fields do not say."""
    names: str = entry["id"] + entry["task"]
    if "after" in entry:
        names += "".join(entry["after"])
        if entry["id"] in entry["after"]:
            return False
    if "tags" in entry:
        names += "".join(entry["tags"])
    if "queue" in entry:
        names += entry["queue"] or ""
    if "expect" in entry and "schema" in entry["expect"]:
        schema = entry["expect"]["schema"]
        if schema is not None and schema_problem(schema):
            return False
    return names.isprintable()


def _fields(required: tuple[str, ...] = (), **fields: CoreSchema) -> CoreSchema:
    """An object with these fields and no others, strict about types."""
    return core_schema.typed_dict_schema(
        {
            name: core_schema.typed_dict_field(kind, required=name in required)
            for name, kind in fields.items()
        },
        extra_behavior="forbid",
        config=core_schema.CoreConfig(strict=True),
    )


def _entry(values: _Values) -> CoreSchema:
    """An entry's fields in their order."""
    name = core_schema.str_schema(min_length=1, max_length=ID_MAX_LENGTH)
    names = core_schema.list_schema(name)
    optional = core_schema.nullable_schema
    seconds = optional(values.number(core_schema.float_schema(ge=0, allow_inf_nan=False)))
    span = values.number(core_schema.float_schema(gt=0, allow_inf_nan=False))
    number = core_schema.is_instance_schema((int, float))  # a float may be made of a Decimal too
    expect = _fields(
        state=core_schema.literal_schema(list(get_args(State))),
        result=values.json,
        schema=optional(values.object),
        max_runtime=seconds,
        max_wait=seconds,
        executions=core_schema.int_schema(ge=1, lt=_INT64),
    )
    return _fields(
        ("id", "task"),
        id=name,
        task=name,
        args=values.array,
        kwargs=values.object,
        queue=optional(name),
        priority=optional(core_schema.int_schema(ge=0, le=255)),
        countdown=seconds,
        expires=optional(core_schema.chain_schema([number, seconds])),
        timeout=span,
        deadline=optional(span),
        retries=core_schema.int_schema(ge=0, lt=_INT64),
        idempotent=core_schema.bool_schema(),
        after=names,
        tags=names,
        cost=seconds,
        meta=values.object,
        expect=expect,
    )


def _parsed() -> CoreSchema:
    """An entry that a parser made of JSON, so that its JSON values need no look."""
    values = _Values(
        json=core_schema.any_schema(),
        array=core_schema.is_instance_schema(list),
        object=core_schema.is_instance_schema(dict),
        number=lambda number: number,
    )
    return _entry(values)


def _given() -> CoreSchema:
    """An entry of Python values, which are copied with all that is in them.

    Some that are valid and rare are left to the models: integers of many digits, and floats with
    an exponent, which everybody writes in another way.
    """
    floats: list[CoreSchema | tuple[CoreSchema, str]] = [
        core_schema.float_schema(ge=_SMALL, lt=_LARGE),
        core_schema.float_schema(ge=0, le=0),
        core_schema.float_schema(gt=-_LARGE, le=-_SMALL),
    ]
    number = core_schema.union_schema(floats, mode="left_to_right")
    tuple_ = core_schema.tuple_schema([ANY_JSON], variadic_item_index=0, min_length=1, strict=True)
    array = core_schema.union_schema([JSON_ARRAY, tuple_], mode="left_to_right")
    values = _Values(json=ANY_JSON, array=array, object=JSON_OBJECT, number=_as_written)
    return core_schema.definitions_schema(_entry(values), [copied_json(number, tuple_)])


def _as_written(number: CoreSchema) -> CoreSchema:
    """Whole numbers as integers, up to where a float's digits end, and others as they are."""
    choices: list[CoreSchema | tuple[CoreSchema, str]] = [
        core_schema.int_schema(strict=False, lt=10**15),
        core_schema.float_schema(ge=_SMALL, lt=_LARGE),
    ]
    either = core_schema.union_schema(choices, mode="left_to_right")
    return core_schema.chain_schema([number, either])


_is_parsed_entry: Final = SchemaValidator(_parsed()).isinstance_python
_copy_entry: Final = SchemaValidator(_given()).validate_python
