"""Word validation errors for users: the field, what it must be, what it is instead."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pytest_manifest.schema.fields import WHOLE, Document, told
from pytest_manifest.text import beginning, number_unprintable

M = TypeVar("M", bound=BaseModel)
_MUST_BE: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "an array",
    "finite_number": "a finite number",
    "string_unicode": "text of whole characters, without halves of surrogate pairs",
}
_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda ctx: f"must be greater than {ctx['gt']:g}",
    "greater_than_equal": lambda ctx: f"must be {_figure(ctx['ge'])} or more",
    "less_than_equal": lambda ctx: f"must be {_figure(ctx['le'])} or less",
    "string_too_short": lambda _: "must not be empty",
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "literal_error": lambda ctx: f"must be one of {ctx['expected'].replace(chr(39), chr(34))}",
    "string_pattern_mismatch": lambda _: "must be 64 lower-case hex digits",
}
_LONGEST = 200
"""Characters of a field's name that are looked at."""
_FORMS = "(short)", "(long)", WHOLE
_OWN = (
    "json_value",
    "empty_range",
    "unprintable",
    "json_schema",
    "regex",
    "time_naive",
    "error_without_failure",
)
"""Our own errors whose sentence already says what is wrong with the value."""


_OF_SEVERAL = ("error_without_failure", "countdown_and_eta", "after_itself")
"""Errors of fields that exclude each other, whose sentence names both."""


def _figure(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else f"{limit:g}"


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one phrase for each problem in ``error``, raised by ``model``, in the order found."""
    return [_phrase(details, model) for details in told(error)]


def _phrase(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind = details["type"]
    # Where a field has a short and a long form, pydantic names the form, too.
    loc = tuple(part for part in details["loc"] if part not in _FORMS)
    if loc[-1:] == ("[key]",):  # it is a name that is wrong, and what has it is the object
        loc = loc[:-2]
    if kind in _OF_SEVERAL:
        loc = loc[:-1]
    if kind == "extra_forbidden":
        return _unknown_field(loc, model)
    if kind == "missing":
        return f"{_field(loc)} is missing; add it"
    if kind in _MUST_BE:
        sentence = f"must be {_MUST_BE[kind]}"
    elif kind in _SENTENCES:
        sentence = _SENTENCES[kind](details.get("ctx", {}))
    else:
        sentence = details["msg"]
    if not loc:
        subject = "a field's name" if kind == "string_unicode" else "it"
        return f"{subject} {sentence}{_instead(details)}" if kind in _MUST_BE else sentence
    return f"{_field(loc)} {sentence}{_instead(details)}"


def _instead(details: ErrorDetails) -> str:
    """Return the phrase that shows the value found, or "" where the message shows it already."""
    kind, value = details["type"], details["input"]
    if kind in _OWN:
        return ""
    if kind in ("string_too_short", "string_too_long"):
        return "" if not value else f", not {len(value)}"
    hint = "; write it without quotes" if _is_quoted_number(kind, value) else ""
    return f", not {in_json(value)}{hint}"


def _is_quoted_number(kind: str, value: object) -> bool:
    if kind not in ("int_type", "float_type", "bool_type") or not isinstance(value, str):
        return False
    return value in ("true", "false") or value.replace(".", "", 1).isdecimal()


def in_json(value: object, limit: int = 60) -> str:
    """Return ``value`` as JSON, shortened; a value that JSON cannot hold is named by its type."""
    if isinstance(value, (dict, list, tuple)) and len(value) > 20:
        return "an array" if not isinstance(value, dict) else "an object"
    if isinstance(value, str):
        value = value[: limit + 1]
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return beginning(number_unprintable(text), limit)


def _unknown_field(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    # A name may have megabytes, of which an index would be made.
    name, known = str(loc[-1])[:_LONGEST], _known_fields(loc[:-1], model)
    where = f" in {_field(loc[:-1])}" if loc[:-1] else ""
    start = f"unknown field {_quoted(name)}{where}; "
    near = get_close_matches(name, known, n=1, cutoff=0.6) or get_close_matches(
        name.lower(), known, n=1, cutoff=0.6
    )
    if near:
        return f"{start}did you mean '{near[0]}'?"
    return f"{start}the known ones are {', '.join(known)}"


def _known_fields(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Return the JSON names of the fields of the model at ``loc`` within ``model``."""
    for part in loc:
        by_alias = {info.alias or name: info for name, info in model.model_fields.items()}
        info = by_alias.get(str(part))
        if info is not None:
            model = model_in(info.annotation) or model
    return [info.alias or name for name, info in model.model_fields.items()]


def model_in(annotation: object) -> type[Document] | None:
    """Return the model that a field, or each item of its list, is of, by its annotation."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated, list):
        return next(filter(None, map(model_in, get_args(annotation))), None)
    return annotation if is_model(annotation, Document) else None


def is_model(hint: object, kind: type[M]) -> TypeGuard[type[M]]:
    """Return whether a type is a model of this kind.

    In Python 3.10 ``list[str]`` is a type, too, and yet nothing that ``issubclass`` takes.
    """
    return get_origin(hint) is None and isinstance(hint, type) and issubclass(hint, kind)


def _field(loc: tuple[int | str, ...]) -> str:
    """Return a place in a document as a reader writes it: ``'expect.schema'``, ``'after[2]'``."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return _quoted(path.removeprefix("."))


def _quoted(name: str) -> str:
    return f"'{beginning(number_unprintable(name[:_LONGEST]), 80)}'"
