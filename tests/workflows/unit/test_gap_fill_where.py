"""Conditions on passages, as they are typed."""

from __future__ import annotations

import pytest

from pytest_manifest.errors import PlanError
from tasks.movie_bible.documents import FilmFacts
from workflows.gap_fill.where import parse_where

FILM = FilmFacts("alien-1979", "Alien", 1979, "Ridley Scott", ("Sigourney Weaver", "John Hurt"))


def matches(where: str, film: FilmFacts | None = FILM) -> bool:
    return parse_where(where).matches(
        id="alien-1979/plot", kind="plot", text="In space.", film=film
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("year=1979", True),
        ("year>=1979 and year<=1979", True),
        ("year>1979", False),
        ("year<1979", False),
        ("year!=1980", True),
        ("director~SCOTT", True),
        ("director=ridley scott", True),
        ("director = 'Ridley Scott'", True),
        ("director=scott", False),
        ("cast=john hurt", True),
        ("cast~weaver and kind=plot", True),
        ("cast!=john hurt", False),
        ("cast!=nobody", True),
        ("text~space AND year=1979", True),
        ("id~/plot", True),
        ("title=Alien and film=alien-1979", True),
        ("year~79", True),
        ("title!='Bonnie and Clyde' and year=1979", True),
        ('title="Bonnie and Clyde"', False),
        ("title='Alien' and text~'in space'", True),
    ],
)
def test_conditions(where: str, expected: bool) -> None:
    assert matches(where) is expected


@pytest.mark.parametrize(
    "where", ["year=1979", "director~s", "cast=john hurt", "film=x", "title=y"]
)
def test_what_is_not_known_matches_nothing(where: str) -> None:
    assert not matches(where, film=None)
    assert matches(where.replace("~", "!=").replace("=", "!=").replace("!!", "!"), film=None)


def test_no_condition_means_everything() -> None:
    assert parse_where(None).matches(id="x", kind="note", text="y", film=None)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("year", "is no condition; write conditions like year>=1960"),
        ("", "empty condition"),
        ("=3", "is no condition"),
        ("year=", "is no condition"),
        ("year>=abc", "a year is a whole number"),
        ("colour=red", "'colour' is not known; .* names are id, kind, film"),
        ("year>1 and", "empty condition"),
    ],
)
def test_bad_conditions_are_refused_with_a_sentence(where: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_where(where)
