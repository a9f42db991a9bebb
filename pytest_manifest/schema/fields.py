"""Define the base of all documents, and their field types: names, times, seconds, JSON, text.

Define the headers that an entry's message carries besides Celery's and ours.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from pytest_manifest.schema.json_values import json_value as json_value
from pytest_manifest.schema.wire import MOST, YEARS, parse_moment, utc
from pytest_manifest.text import JOINERS, whole_text

ID_MAX_LENGTH = 200
MOST_SECONDS: Final = 36_525 * 86_400
"""A hundred years in seconds: from now on that is still a date, for Celery and for brokers."""
_MOST_FIGURE: Final = 1e12
"""Seconds that a clock which was set may have shown between two moments: 30,000 years."""
USUAL: Final = "(usual)"
"""Where in an error's place it names the quick way of a field; see ``usually``."""
WHOLE: Final = "(whole)"
"""Where it names the other one."""

# JSON Schema knows no character categories, so what str.isprintable() refuses is spelled out;
# without surrogates, which other languages' JSON cannot hold and their regexes cannot name.
UNPRINTABLE = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff0-\ufffb"
)
_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII
)


_OF_NAMES = UNPRINTABLE.replace(r"\u2000-\u200f", r"\u2000-\u200b\u200e\u200f")
"""The same without joiners, which words and pictures of a name may need within them."""


_WITHOUT_JOINERS: Final = dict.fromkeys(map(ord, JOINERS))


def printable_text(value: str) -> str:
    if not value.isprintable():
        bad = next(char for char in value if not char.isprintable())
        raise PydanticCustomError(
            "unprintable",
            "must be printable text, but has the character U+{code}; take it out",
            {"code": f"{ord(bad):04X}"},
        )
    return value


def _printable_name(value: str) -> str:
    """Return a name that is printable but for joiners within it."""
    if not value.isprintable():
        printable_text(value[:1] + value[1:-1].translate(_WITHOUT_JOINERS) + value[-1:])
    return value


def _utc(value: object) -> object:
    """Convert ``value``, a datetime or RFC 3339 text, to UTC; raise PydanticCustomError."""
    if isinstance(value, str):
        value = _parse_time(value)
    if not isinstance(value, datetime):
        raise PydanticCustomError("time_type", 'must be a time like "2026-11-24T15:00:00Z"')
    if value.utcoffset() is None:
        raise PydanticCustomError(
            "time_naive", 'must say its time zone: append "Z" for UTC or an offset like "+01:00"'
        )
    if (moment := utc(value)) is None:
        raise PydanticCustomError(
            "time_range",
            "must be a time of the years {first} to {last}",
            {"first": YEARS[0], "last": YEARS[-1]},
        )
    return moment


def _parse_time(text: str) -> datetime:
    try:
        if _RFC3339.fullmatch(text):
            return parse_moment(text.upper())
    except ValueError:
        pass
    raise PydanticCustomError("time_format", 'must be a time like "2026-11-24T15:00:00Z"')


def _expiry(value: object) -> object:
    if isinstance(value, (str, datetime)):
        return _utc(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise PydanticCustomError(
            "expiry_type", "must be seconds from the sending (a number), or a time with its zone"
        )
    if value < 0:
        raise PydanticCustomError("expiry_negative", "must not be negative")
    if value > MOST_SECONDS:
        raise PydanticCustomError("expiry_late", "must be {most} or less", {"most": MOST_SECONDS})
    return value


def _key_name(name: str) -> str:
    if not re.fullmatch(KEY_NAME, name):
        raise PydanticCustomError(
            "key_name", "must have names of 1 to 60 ASCII letters, digits, '_', '-' and '.'"
        )
    return name


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond all floats
        return False


def _version(value: object) -> object:
    if type(value) is not int or value != 1:
        raise PydanticCustomError(
            "schema_version",
            "names a version of the format that this release does not know (it knows 1): "
            "upgrade pytest-celery-manifest, or write version 1; it must be 1",
        )
    return value


def usually(usual: core_schema.CoreSchema) -> GetPydanticSchema:
    """Mark a field whose usual values pydantic's core takes without a call of Python.

    Whatever it does not take goes the field's whole way, whose faults alone are told: so those that
    have ``USUAL`` in their place are left out. Who makes a model in Python gets pydantic's own
    error, so there is no other way for values of that.
    """
    return GetPydanticSchema(
        lambda source, handler: core_schema.json_or_python_schema(
            json_schema=core_schema.union_schema(
                [(usual, USUAL), (handler(source), WHOLE)], mode="left_to_right"
            ),
            python_schema=handler(source),
        ),
        lambda _, handler: handler(core_schema.str_schema()),
    )


_NAME_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": ID_MAX_LENGTH}
# Not one pattern to its end: in Python a trailing newline would pass it.
_NAME_SCHEMA["not"] = {"pattern": rf"[{_OF_NAMES}]|^[\u200c\u200d]|[\u200c\u200d]$"}
_TIME_SCHEMA: dict[str, Any] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$",
}
_EXPIRY_SCHEMA: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": MOST_SECONDS}

Name = Annotated[
    str,
    Field(min_length=1, max_length=ID_MAX_LENGTH),
    AfterValidator(_printable_name),
    usually(core_schema.str_schema(min_length=1, max_length=ID_MAX_LENGTH, pattern="^[ -~]+$")),
    WithJsonSchema(_NAME_SCHEMA),
]
"""Printable text of 1 to 200 characters: ids, task names, queues, tags."""

# With a bound pydantic looks at the characters, and refuses halves of surrogate pairs.
Text = Annotated[
    str, AfterValidator(whole_text), usually(core_schema.str_schema(max_length=1 << 40))
]
"""Free text from a worker: always storable as UTF-8."""

TIME_AS_WRITTEN: Final = core_schema.chain_schema(
    [
        core_schema.str_schema(
            pattern=r"^(19[7-9]|2[0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}"
            r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?(Z|\+00:00)$"
        ),
        core_schema.no_info_plain_validator_function(datetime.fromisoformat),
    ]
)
"""A time of this age as this package writes it, which is in UTC."""
Time = Annotated[
    datetime, BeforeValidator(_utc), usually(TIME_AS_WRITTEN), WithJsonSchema(_TIME_SCHEMA)
]
"""An aware time, normalised to UTC; RFC 3339 text in JSON."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Figure = Annotated[float, Field(ge=-_MOST_FIGURE, le=_MOST_FIGURE, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Whole = Annotated[int, Field(ge=-MOST, le=MOST)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KEY_NAME: Final = r"[A-Za-z0-9_.-]{1,60}"
"""A key's name: it stands before the ``=`` of a limit."""
_KEY_NAME_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 60}
_KEY_NAME_SCHEMA["not"] = {"pattern": "[^A-Za-z0-9_.-]"}
Keys = Annotated[
    dict[Annotated[str, AfterValidator(_key_name)], Name],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": _KEY_NAME_SCHEMA,
            "additionalProperties": _NAME_SCHEMA,
        }
    ),
]
"""Names and values: whose job it is, or what it uses."""
Version = Annotated[
    Literal[1],
    BeforeValidator(_version),
    usually(core_schema.int_schema(ge=1, le=1, strict=True)),
    WithJsonSchema({"type": "integer", "const": 1}),
]
Expiry = Annotated[
    float | datetime,
    BeforeValidator(_expiry),
    WithJsonSchema({"anyOf": [_EXPIRY_SCHEMA, _TIME_SCHEMA]}),
]


def told(error: ValidationError) -> list[ErrorDetails]:
    """Return the errors that are of a field's whole way."""
    found = error.errors(include_url=False)
    # All of them are of ways not taken where a field that nobody knows has such a name.
    return [one for one in found if USUAL not in one["loc"]] or found


# Not pydantic's FailFast, which is not hashable, as what stands in a union has to be.
FirstFault: Final = GetPydanticSchema(
    lambda source, handler: {**handler(source), "fail_fast": True}
)
"""The mark of an array whose first fault alone is told: there may be millions."""


class _JsonField:
    """The mark of a field that is a JSON value of one shape, checked and copied on the way in.

    Pydantic's own JsonValue calls a Python function for every node and lets NaN and lone
    surrogates pass. What comes as JSON text is taken as it is parsed: only lines that were checked
    before are, and receipts that this package has stored.
    """

    def __init__(self, shape: type[dict[str, Any]] | type[list[Any]] | None = None) -> None:
        self.shape = shape

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        parsed = {dict: core_schema.dict_schema(), list: core_schema.list_schema()}
        return core_schema.json_or_python_schema(
            json_schema=core_schema.any_schema() if self.shape is None else parsed[self.shape],
            python_schema=core_schema.no_info_plain_validator_function(self._check),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        if self.shape is None:
            return {}
        return {"type": "object"} if self.shape is dict else {"type": "array"}

    def _check(self, value: object) -> JsonValue:
        result = json_value(value)
        if self.shape is not None and type(result) is not self.shape:
            word = "an object" if self.shape is dict else "an array"
            raise PydanticCustomError("json_shape", "must be {word}", {"word": word})
        return result


Json = Annotated[JsonValue, _JsonField()]
JsonObject = Annotated[dict[str, JsonValue], _JsonField(dict)]
JsonArray = Annotated[list[JsonValue], _JsonField(list)]


Source = Literal["worker", "backend", "harness"]


class Document(BaseModel):
    """A frozen model, strict about types (``true`` is not 1, ``"30"`` is not 30) and its fields."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        protected_namespaces=(),
        serialize_by_alias=True,
        cache_strings="keys",  # values are mostly of one line alone: no memory for them
    )


LONGEST: Final = 60
"""Characters: of four bytes each, and with a suffix, they are still a file's name."""
RULE: Final = (
    f"must be a plain name of 1 to {LONGEST} printable characters without '/', '\\' and ':', that "
    "does not begin with a dot"
)
_FORBIDDEN: Final = frozenset("/\\:")
_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST,
    "not": {"pattern": rf"^\.|[/\\:{UNPRINTABLE}]"},
}


def is_identifier(name: str) -> bool:
    """Return whether a name may be part of a path."""
    return (
        0 < len(name) <= LONGEST
        and name.isprintable()
        and not name.startswith(".")
        and _FORBIDDEN.isdisjoint(name)
    )


def _checked(name: str) -> str:
    if not is_identifier(name):
        raise PydanticCustomError("identifier", "{rule}", {"rule": RULE})
    return name


_PLAIN_NAME: Final = core_schema.str_schema(
    max_length=LONGEST, pattern="^[0-9A-Za-z_][0-9A-Za-z_.+-]*$"
)
Identifier = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(_checked),
    usually(_PLAIN_NAME),
    WithJsonSchema(_SCHEMA),
]
"""The name of a run, a workflow or a mode: it can name a file, and nothing outside a folder."""


HEADER_LENGTH: Final = 500
MOST_HEADERS: Final = 32
"""RabbitMQ takes no more in one frame than all of these together."""
_TAKEN: Final = frozenset(
    (
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries"),
        *("timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "args"),
        *("ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "kwargs"),
        *("callbacks", "errbacks", "chain", "chord", "reply_to", "correlation_id", "hostname"),
        *("delivery_info", "properties", "headers", "compression", "is_eager", "called_directly"),
        *("children", "utc", "taskset", "logfile", "loglevel", "redelivered", "x-death"),
    )
)
"""The headers that Celery gives to messages, and names by which a task asks for what is of it."""


def _header_name(name: str) -> str:
    if not re.fullmatch(KEY_NAME, name) or name in _TAKEN or name.startswith("manifest_"):
        raise PydanticCustomError(
            "header_name",
            "must have names of 1 to 60 ASCII letters, digits, '_', '-' and '.', and none of those "
            "that Celery or this plugin gives to messages",
        )
    return name


def _header_value(value: object) -> object:
    if isinstance(value, str) and len(value) <= HEADER_LENGTH:
        return printable_text(value)
    if isinstance(value, int) and -MOST <= value <= MOST:
        return value
    raise PydanticCustomError(
        "header_value",
        "must be text of at most {length} characters, a whole number, true or false",
        {"length": HEADER_LENGTH},
    )


def _few(headers: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    if len(headers) > MOST_HEADERS:
        raise PydanticCustomError(
            "headers_many", "must have at most {most} names", {"most": MOST_HEADERS}
        )
    return headers


_HEADER_NAME_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 60}
_HEADER_NAME_SCHEMA["not"] = {
    "anyOf": [
        {"pattern": "[^A-Za-z0-9_.-]"},
        {"pattern": "^manifest_"},
        {"enum": sorted(_TAKEN)},
    ]
}
Headers = Annotated[
    dict[
        Annotated[str, AfterValidator(_header_name)],
        Annotated[str | int | bool, BeforeValidator(_header_value)],
    ],
    AfterValidator(_few),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": _HEADER_NAME_SCHEMA,
            "maxProperties": MOST_HEADERS,
            "additionalProperties": {
                "anyOf": [
                    {
                        "type": "string",
                        "maxLength": HEADER_LENGTH,
                        "not": {"pattern": f"[{UNPRINTABLE}]"},
                    },
                    {"type": "integer", "minimum": -MOST, "maximum": MOST},
                    {"type": "boolean"},
                ]
            },
        }
    ),
]
"""Names and values that travel with a message."""
