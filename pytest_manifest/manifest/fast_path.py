"""Check and write entries by msgspec, several times as fast as by the pydantic models.

The models stay the contract. What passes here is valid to them too, and is written as they write
it, to the byte. What does not pass may be valid all the same (``eta`` and ``expect.error`` are left
out): then the models decide, and word the fault. tests/unit/test_manifest_fast_path.py compares the
two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, convert
from msgspec.json import Decoder, Encoder
from msgspec.json import format as reformat

from pytest_manifest.schema import ID_MAX_LENGTH, MAX_DEPTH, Document, Entry, Expectations
from pytest_manifest.schema.fields import (
    HEADER_LENGTH,
    KEY_NAME,
    MOST_HEADERS,
    MOST_SECONDS,
    is_taken_header,
)
from pytest_manifest.schema.json_schemas import schema_problem
from pytest_manifest.schema.json_values import MSGSPEC_ERRORS, is_deep, is_stock_json
from pytest_manifest.schema.statuses import State
from pytest_manifest.schema.wire import MOST

_WHOLE: Final = 10**15
"""Below this the models write a whole number of seconds as an integer."""

Name = Annotated[str, Meta(min_length=1, max_length=ID_MAX_LENGTH)]
KeyName = Annotated[str, Meta(pattern=rf"^{KEY_NAME}\Z")]
HeaderValue = (
    Annotated[str, Meta(max_length=HEADER_LENGTH)] | Annotated[int, Meta(ge=-MOST, le=MOST)] | bool
)
Number = Annotated[int, Meta(ge=0, lt=_WHOLE)] | Annotated[float, Meta(ge=0)]
Duration = (
    Annotated[int, Meta(ge=0, le=MOST_SECONDS)] | Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
)
Positive = (
    Annotated[int, Meta(gt=0, le=MOST_SECONDS)] | Annotated[float, Meta(gt=0, le=MOST_SECONDS)]
)


class ExpectLine(Struct, forbid_unknown_fields=True, gc=False):
    """``Expectations`` as a line has them: UNSET where the line does not name the field."""

    state: State | UnsetType = UNSET
    result: Any = UNSET
    schema: dict[str, Any] | UnsetType | None = UNSET
    max_runtime: Duration | UnsetType | None = UNSET
    max_wait: Duration | UnsetType | None = UNSET
    executions: Annotated[int, Meta(ge=1, le=MOST)] | UnsetType = UNSET


class EntryLine(Struct, forbid_unknown_fields=True, gc=False):
    """``Entry`` as a line has it: UNSET where the line does not name the field."""

    id: Name
    task: Name
    args: list[Any] | UnsetType = UNSET
    kwargs: dict[str, Any] | UnsetType = UNSET
    queue: Name | UnsetType | None = UNSET
    priority: Annotated[int, Meta(ge=0, le=255)] | UnsetType | None = UNSET
    countdown: Duration | UnsetType | None = UNSET
    expires: Duration | UnsetType | None = UNSET
    headers: dict[KeyName, HeaderValue] | UnsetType = UNSET
    timeout: Positive | UnsetType = UNSET
    deadline: Positive | UnsetType | None = UNSET
    retries: Annotated[int, Meta(ge=0, le=MOST)] | UnsetType = UNSET
    idempotent: bool | UnsetType = UNSET
    reuse: bool | UnsetType = UNSET
    after: list[Name] | UnsetType = UNSET
    key: dict[KeyName, Name] | UnsetType = UNSET
    tags: list[Name] | UnsetType = UNSET
    cost: Number | UnsetType | None = UNSET
    meta: dict[str, Any] | UnsetType = UNSET
    expect: ExpectLine | UnsetType = UNSET


class _SchemaOnly(Struct, gc=False):
    """The JSON Schema of an ``expect``, as it is written."""

    schema: Raw = Raw()


class _ExpectOnly(Struct, gc=False):
    """The part of an entry's line under ``expect``, as it is written."""

    expect: Raw | UnsetType = UNSET


_encoder: Final = Encoder()
_decode_document: Final = Decoder().decode
_decode_line: Final = Decoder(EntryLine).decode
_decode_expect: Final = Decoder(_ExpectOnly).decode
_decode_schema: Final = Decoder(_SchemaOnly).decode


def parse_quickly(raw: bytes) -> dict[str, Any] | None:
    """Parse one line; None where it is no JSON object, or needs the careful parser."""
    try:
        document = _decode_document(raw)
    except (*MSGSPEC_ERRORS, RecursionError):
        return None
    if type(document) is not dict or not _all_keys(raw, _encoder.encode(document)):
        return None
    return None if may_be_deep(raw) and is_deep(document) else document


def check_lines(lines: Sequence[bytes]) -> list[EntryLine] | None:
    """Parse and check lines with their newlines, all at once; None where one does not pass."""
    try:
        entries = [_decode_line(raw) for raw in lines]
    except (*MSGSPEC_ERRORS, RecursionError):
        return None
    if not lines[-1].endswith(b"\n"):
        return None
    if not _all_keys(b"".join(lines), _encoder.encode_lines(entries)) or not _make_sense(entries):
        return None
    deep = any(may_be_deep(raw) and is_deep(_decode_document(raw)) for raw in lines)
    return None if deep else entries


def expects_nothing(raw: bytes) -> bool:
    """Tell whether a checked line expects no more than one without ``expect`` does.

    Nothing is made into objects but an ``expect`` without a result: half a microsecond a line.
    Raises one of MSGSPEC_ERRORS for a line that is no entry.
    """
    written = _decode_expect(raw).expect
    if written is UNSET:
        return True
    if bytes(written).startswith(b'{"result"'):  # what expectations mostly begin with
        return False
    expect: dict[str, Any] = _decode_document(written)
    return all(key in _EXPECT and value == _EXPECT[key] for key, value in expect.items())


def entry_line(fields: dict[str, Any]) -> bytes | None:
    """Write an entry's fields as ``dump_entry`` does; None where only the models can tell."""
    if type(fields.get("args")) is tuple:
        fields["args"] = list(fields["args"])
    try:
        if not is_stock_json(fields):
            return None
        entry = convert(fields, EntryLine)
        if not _make_sense([entry]):
            return None
        _as_written(fields, entry, _ENTRY)
        if entry.expect:
            _as_written(fields["expect"], entry.expect, _EXPECT)
            if entry.expect == _NOTHING:
                entry.expect = UNSET
        return reformat(_encoder.encode(entry), indent=0)
    except (*MSGSPEC_ERRORS, TypeError, RecursionError):
        return None


def _all_keys(raw: bytes, encoded: bytes) -> bool:
    """Tell whether no key came twice: each key has a colon, and a replaced one lost its own."""
    if b"\\" in raw and (b"\\u003a" in raw or b"\\u003A" in raw):  # a colon in disguise
        return False
    return count_byte(b":", raw) == count_byte(b":", encoded)


def may_be_deep(raw: bytes, most: int = MAX_DEPTH) -> bool:
    """Tell whether a line has brackets enough for more than so many levels."""
    return len(raw) > 2 * most and count_byte(b"[", raw) + count_byte(b"{", raw) > most


def schema_size(raw: bytes) -> int:
    """Return the bytes of the JSON Schema in the ``expect`` of a line that was checked."""
    expect = _decode_expect(raw).expect
    return 0 if expect is UNSET else len(_decode_schema(expect).schema)


def count_byte(byte: bytes, raw: bytes) -> int:
    """Count as ``raw.count(byte)``, which takes three times as long, more where there are few."""
    return len(raw) - len(raw.replace(byte, b""))


def _make_sense(entries: Iterable[EntryLine]) -> bool:
    """Check what types do not say: printable names, no waiting for oneself, sound schemas."""
    names: list[str] = []
    for entry in entries:
        names += entry.id, entry.task
        if entry.queue:
            names.append(entry.queue)
        if entry.tags:
            names += entry.tags
        if entry.key:
            names += entry.key.values()
        if entry.headers:
            if len(entry.headers) > MOST_HEADERS or any(map(is_taken_header, entry.headers)):
                return False
            names += (one for one in entry.headers.values() if isinstance(one, str))
        if entry.after:
            if entry.id in entry.after:
                return False
            names += entry.after
        if entry.expect and entry.expect.schema and schema_problem(entry.expect.schema):
            return False
    return "".join(names).isprintable()


def _as_written(given: dict[str, Any], line: Struct, defaults: Mapping[str, object]) -> None:
    """Make whole seconds integers, and leave out what is as the default."""
    for name, value in given.items():
        if name in _SECONDS:
            if type(value) is float and value < _WHOLE and value.is_integer():
                setattr(line, name, int(value))
        elif value and name not in _WORDS:
            continue
        if value == defaults.get(name, UNSET):
            setattr(line, name, UNSET)


def _defaults(model: type[Document], *always: str) -> dict[str, object]:
    """Return a model's defaults by key, without those of ``always``, which are always written."""
    return {
        key: info.get_default(call_default_factory=True)
        for name, info in model.model_fields.items()
        if (key := info.alias or name) not in always
    }


_ENTRY: Final = _defaults(Entry, "id", "task", "timeout", "expect")
_EXPECT: Final = _defaults(Expectations, "result")
_SECONDS: Final = frozenset(
    ("countdown", "expires", "timeout", "deadline", "cost", "max_runtime", "max_wait")
)
_WORDS: Final = frozenset(("state", "executions"))  # the other defaults are empty, or false
_NOTHING: Final = ExpectLine()
