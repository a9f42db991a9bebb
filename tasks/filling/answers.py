"""Check answers, and join them to their passages by key, never by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from tasks.filling.prompts import Wanted
from tasks.movie_bible.fields import MOODS
from tasks.text_model.failures import MalformedAnswer

ProblemKind = Literal["missing", "doubled", "malformed"]
EXCERPT: Final = 120


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which PostgreSQL cannot store")
    return text


def _known_mood(text: str) -> str:
    if text not in MOODS:
        raise ValueError(f"is none of {', '.join(MOODS)}")
    return text


def _short(longest: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest)


Storable = AfterValidator(_storable)
Summary = Annotated[str, _short(1500), Storable]
Theme = Annotated[str, _short(120), Storable]
CharacterName = Annotated[str, _short(200), Storable]


class Values(BaseModel):
    """The fields of one passage, as they may stand in the database. None: not filled."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    summary: Summary | None = None
    themes: Annotated[list[Theme], Field(min_length=1, max_length=12)] | None = None
    characters: Annotated[list[CharacterName], Field(max_length=60)] | None = None
    mood: Annotated[str, AfterValidator(_known_mood)] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of one passage's part of an answer."""

    kind: ProblemKind
    message: str


@dataclass(slots=True)
class Reading:
    """The values or the problem of each passage; ``foreign``: keys that were not asked for."""

    values: dict[str, dict[str, JsonValue]] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


_ITEMS: TypeAdapter[list[dict[str, JsonValue]]] = TypeAdapter(list[dict[str, JsonValue]])
_ENVELOPE: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def read_answer(text: str, by_key: Mapping[str, Wanted]) -> Reading:
    """Join an answer's items to their passages.

    An item counts only under a key of this very call, and only if no other has the same, because it
    cannot be decided which of two is right. Raises MalformedAnswer for an answer that is no list of
    items.
    """
    items = _items(text)
    keys = Counter(key for item in items if isinstance(key := item.get("key"), str))
    reading = Reading()
    found = {key: item for item in items if isinstance(key := item.get("key"), str)}
    for item in items:
        key = item.get("key")
        if not isinstance(key, str) or key not in by_key:
            reading.foreign.append(repr(key)[:EXCERPT])
    for key, wanted in by_key.items():
        if keys[key] == 0:
            problem = Problem("missing", "the answer has no item for it")
        elif keys[key] > 1:
            problem = Problem("doubled", f"the answer has {keys[key]} items for it")
        else:
            values = _values(found[key], wanted)
            if isinstance(values, dict):
                reading.values[wanted.passage] = values
                continue
            problem = values
        reading.problems[wanted.passage] = problem
    return reading


def _items(text: str) -> list[dict[str, JsonValue]]:
    try:
        return _ITEMS.validate_python(_ENVELOPE.validate_json(text).get("items"), strict=True)
    except (ValidationError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise MalformedAnswer(
            f"the answer is no JSON object with a list of items ({why}): {text[:EXCERPT]!r}"
        ) from None


def _values(item: Mapping[str, JsonValue], wanted: Wanted) -> dict[str, JsonValue] | Problem:
    asked = {name: item.get(name) for name in wanted.fields}
    absent = [name for name, value in asked.items() if value is None]
    if absent:
        return Problem("malformed", f"its item lacks {', '.join(absent)}")
    try:
        values = Values.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return Problem("malformed", f"{place}: {first['msg']}")
    return values.model_dump(include=set(wanted.fields))


def problems_of(values: Mapping[str, JsonValue]) -> str | None:
    """Say why these values may not stand in a row, or return None; NULL is a gap, not a fault."""
    try:
        Values.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return None
