"""Parse ``where``, which selects a plan's passages, like ``year>=1960 and director~kubrick``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_manifest.errors import PlanError
from tasks.movie_bible.documents import FilmFacts

NAMES: Final = ("id", "kind", "film", "title", "year", "director", "cast", "text")
CONDITION: Final = re.compile(
    r"^\s*(?P<name>\w+)\s*(?P<sign><=|>=|!=|=|<|>|~)\s*(?P<value>.*?)\s*$"
)
AND: Final = re.compile(
    r"""\s+and\s+(?=(?:[^'"]|'[^']*'|"[^"]*")*$)""",  # not one within quotes
    re.IGNORECASE,
)
HELP: Final = (
    f"write conditions like year>=1960, joined by ' and '; names are {', '.join(NAMES)}, "
    "signs are = != < <= > >= and ~ (contains); a value with ' and ' in it goes into quotes"
)

Comparable = str | int
_SIGNS: Final[Mapping[str, Callable[[Comparable, Comparable], bool]]] = {
    "=": lambda here, asked: here == asked,
    "!=": lambda here, asked: here != asked,
    "<": lambda here, asked: here < asked,  # type: ignore[operator]  # both sides have one type
    "<=": lambda here, asked: here <= asked,  # type: ignore[operator]  # as above
    ">": lambda here, asked: here > asked,  # type: ignore[operator]  # as above
    ">=": lambda here, asked: here >= asked,  # type: ignore[operator]  # as above
    "~": lambda here, asked: str(asked) in str(here),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; text is compared without regard to case."""

    name: str
    sign: str
    value: Comparable

    def holds(self, facts: Mapping[str, tuple[Comparable, ...]]) -> bool:
        """Return whether it holds for any value; for ``!=``, for all. Unknown is no value."""
        compare = _SIGNS[self.sign]
        results = [compare(here, self.value) for here in facts[self.name]]
        return all(results) if self.sign == "!=" else any(results)


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions that must all hold; none: everything is meant."""

    conditions: tuple[Condition, ...] = ()

    def matches(self, *, id: str, kind: str, text: str, film: FilmFacts | None) -> bool:  # noqa: A002 - the name of the condition
        if not self.conditions:
            return True
        facts: dict[str, tuple[Comparable, ...]] = {
            "id": (id.casefold(),),
            "kind": (kind.casefold(),),
            "text": (text.casefold(),),
            "film": _known(None if film is None else film.id),
            "title": _known(None if film is None else film.title),
            "director": _known(None if film is None else film.director),
            "year": () if film is None or film.year is None else (film.year,),
            "cast": () if film is None else tuple(name.casefold() for name in film.cast),
        }
        return all(condition.holds(facts) for condition in self.conditions)


def parse_where(text: str | None) -> Where:
    """Parse a condition; raise PlanError that says how to write it."""
    if text is None:
        return Where()
    return Where(tuple(_condition(part) for part in AND.split(f"{text} ")))


def _condition(part: str) -> Condition:
    if not part.strip():
        raise PlanError(f"there is an empty condition in where=...; {HELP}")
    match = CONDITION.match(part)
    if match is None or not match["value"]:
        raise PlanError(f"where={part!r} is no condition; {HELP}")
    name, sign, value = match["name"], match["sign"], match["value"].strip("'\"").casefold()
    if name not in NAMES:
        raise PlanError(f"where={part!r}: {name!r} is not known; {HELP}")
    if name != "year" or sign == "~":
        return Condition(name, sign, value)
    if not value.isdecimal():
        raise PlanError(f"where={part!r}: a year is a whole number; {HELP}")
    return Condition(name, sign, int(value))


def _known(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value.casefold(),)
