"""Write documents as JSON lines: fixed key order, defaults left out, the same bytes every time."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pytest_manifest.schema import Document, Entry, Expectations, Header

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_VERSIONS = frozenset({"manifest", "receipt"})


class _Field(NamedTuple):
    attribute: str
    key: str
    default: object
    always: bool
    verbatim: bool  # the user's own JSON, whose numbers stay as they are


def dump_entry(entry: Entry) -> bytes:
    """Return an entry as one JSON line, without its newline."""
    return dump_document(entry)


def dump_header(header: Header) -> bytes:
    """Return a header as one JSON line, without its newline."""
    return dump_document(header)


def dump_document(document: Document) -> bytes:
    """Return one JSON line, without newline: keys in the model's order, default values left out."""
    return _dumps(_lean(document)).encode()


@lru_cache(maxsize=16)
def _fields(model: type[Document]) -> tuple[_Field, ...]:
    return tuple(
        _Field(
            attribute=name,
            key=info.alias or name,
            default=None if name in _VERSIONS else info.get_default(call_default_factory=True),
            always=name in _VERSIONS,
            verbatim=any(type(mark).__name__ == "_JsonField" for mark in info.metadata),
        )
        for name, info in model.model_fields.items()
    )


def _lean(document: Document) -> dict[str, Any]:
    lean: dict[str, Any] = {}
    values = document.__dict__
    for attribute, key, default, always, verbatim in _fields(type(document)):
        value = values[attribute]
        if value is default:
            if key == "result" and _expects_null(document):
                lean[key] = None
        elif Document in type(value).__mro__:  # isinstance() asks an ABC, ten times as long
            part = _lean(value)
            if part or default is None:
                lean[key] = part
        elif always or value != default:
            lean[key] = value if verbatim else _plain(value)
    return lean


def _expects_null(document: Document) -> bool:
    """Return whether these expectations name a result of null, as opposed to naming no result."""
    return isinstance(document, Expectations) and "result" in document.model_fields_set


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Document):
        return _lean(value)
    return value
