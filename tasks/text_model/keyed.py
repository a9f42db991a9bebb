"""Ask for several things in one call, each under a key that cannot be guessed, and join by key."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from tasks.text_model.base import TextRequest
from tasks.text_model.failures import MalformedAnswer

ProblemKind = Literal["missing", "doubled", "malformed"]
OUTPUT_ROOM: Final = 4
"""An answer may be so many times as long as estimated before it is cut off."""
EXCERPT: Final = 120
KEY_LIKE_ANY: Final = "0123456789ab-00"
"""A key for estimates."""

Item = dict[str, JsonValue]
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Asked(Generic[Thing]):
    """A request, and what each of its keys stands for."""

    request: TextRequest
    by_key: Mapping[str, Thing]


def new_nonce() -> str:
    """Return what makes the keys of a call unlike all others."""
    return secrets.token_hex(6)


def keyed(things: Iterable[Thing], nonce: str | None = None) -> dict[str, Thing]:
    """Give each thing a key of the ``nonce``; without one they are new."""
    nonce = nonce or new_nonce()
    return {f"{nonce}-{number}": thing for number, thing in enumerate(things, 1)}


def answer_schema(
    keys: Iterable[str], properties: Mapping[str, JsonValue], required: Iterable[str]
) -> dict[str, JsonValue]:
    """Return the JSON Schema of an answer: ``items``, each with its key and these properties."""
    key: JsonValue = {"type": "string", "enum": [*keys]}
    item: Item = {
        "type": "object",
        "properties": {"key": key, **properties},
        "required": ["key", *required],
    }
    return {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
    }


class Problem(NamedTuple):
    """A fault of one thing's part of an answer."""

    kind: ProblemKind
    message: str


@dataclass(slots=True)
class Joined:
    """The item or the problem of each key; ``foreign``: keys that were not asked for."""

    items: dict[str, Item] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
_ENVELOPE: TypeAdapter[Item] = TypeAdapter(Item)


def join(text: str, keys: Iterable[str]) -> Joined:
    """Join an answer's items to the keys of its call, never by position.

    An item counts only under a key of this very call, and only if no other has the same, because it
    cannot be decided which of two is right. Raises MalformedAnswer for an answer that is no list of
    items.
    """
    items, wanted = _items(text), list(keys)
    named = [(key, item) for item in items if isinstance(key := item.get("key"), str)]
    counts, found = Counter(key for key, _ in named), dict(named)
    joined = Joined(foreign=_foreign(items, wanted))
    for key in wanted:
        if counts[key] == 0:
            joined.problems[key] = Problem("missing", "the answer has no item for it")
        elif counts[key] > 1:
            joined.problems[key] = Problem("doubled", f"the answer has {counts[key]} items for it")
        else:
            joined.items[key] = found[key]
    return joined


def _foreign(items: Sequence[Item], keys: Sequence[str]) -> list[str]:
    told = (item.get("key") for item in items)
    return [repr(key)[:EXCERPT] for key in told if not isinstance(key, str) or key not in keys]


def _items(text: str) -> list[Item]:
    try:
        return _ITEMS.validate_python(_ENVELOPE.validate_json(text).get("items"), strict=True)
    except (ValidationError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise MalformedAnswer(
            f"the answer is no JSON object with a list of items ({why}): {text[:EXCERPT]!r}"
        ) from None


def first_fault(error: ValidationError) -> str:
    """Say where the first fault of some values is, and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
