"""Check names that become parts of paths: of a run, of a workflow and of its mode.

The names come from files that an attacker may have written. One rule for all of them keeps a name
from leading out of its folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from pytest_manifest.schema.fields import UNPRINTABLE

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


Identifier = Annotated[str, Field(min_length=1), AfterValidator(_checked), WithJsonSchema(_SCHEMA)]
"""The name of a run, a workflow or a mode: it can name a file, and nothing outside a folder."""
