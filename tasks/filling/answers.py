"""Check answers, and join them to their passages by key, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)

from tasks.filling.prompts import Wanted
from tasks.movie_bible.fields import MOODS
from tasks.text_model.keyed import Problem, first_fault, join


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


@dataclass(slots=True)
class Reading:
    """The values or the problem of each passage; ``foreign``: keys that were not asked for."""

    values: dict[str, dict[str, JsonValue]] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


def read_answer(text: str, by_key: Mapping[str, Wanted]) -> Reading:
    """Join an answer's items to their passages. Raises MalformedAnswer for no list of items."""
    joined = join(text, by_key)
    reading = Reading(foreign=joined.foreign)
    for key, wanted in by_key.items():
        problem = joined.problems.get(key) or _values(joined.items[key], wanted)
        if isinstance(problem, Problem):
            reading.problems[wanted.passage] = problem
        else:
            reading.values[wanted.passage] = problem
    return reading


def _values(item: Mapping[str, JsonValue], wanted: Wanted) -> dict[str, JsonValue] | Problem:
    asked = {name: item.get(name) for name in wanted.fields}
    absent = [name for name, value in asked.items() if value is None]
    if absent:
        return Problem("malformed", f"its item lacks {', '.join(absent)}")
    try:
        values = Values.model_validate(asked)
    except ValidationError as error:
        return Problem("malformed", first_fault(error))
    return values.model_dump(include=set(wanted.fields))


def problems_of(values: Mapping[str, JsonValue]) -> str | None:
    """Say why these values may not stand in a row, or return None; NULL is a gap, not a fault."""
    try:
        Values.model_validate(dict(values))
    except ValidationError as error:
        return first_fault(error)
    return None
