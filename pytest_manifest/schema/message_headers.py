"""Define the headers that an entry's message carries besides Celery's and ours."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from pytest_manifest.schema.fields import KEY_NAME, UNPRINTABLE, printable_text
from pytest_manifest.schema.wire import MOST

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
    if not re.fullmatch(KEY_NAME, name) or is_taken_header(name):
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


def is_taken_header(name: str) -> bool:
    """Tell whether a header of this name means something to Celery, or to us."""
    return name in _TAKEN or name.startswith("manifest_")


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
