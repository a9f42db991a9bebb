"""Make classes of values that are never changed, where hundreds of thousands of them are made.

For a type checker they are frozen. Python itself is not asked to watch over that: it would set each
field by a call, which took a third of the time of judging an entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from typing_extensions import dataclass_transform

Made = TypeVar("Made")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[Made]) -> type[Made]:
    """Return it as a class of values."""
    return dataclass(slots=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def named_value(cls: type[Made]) -> type[Made]:
    """Return it as a class of values whose fields are given by name."""
    return dataclass(slots=True, kw_only=True)(cls)
