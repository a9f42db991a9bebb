"""The sample corpus keeps the promises of its README: whole, well formed, and uneven."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest

from tasks.movie_bible.fields import FIELDS, MOODS
from tests.unit.ledger_support import ROOT

SAMPLE = ROOT / "workflows" / "gap_fill" / "sample"
KEYS = ["id", "film", "title", "year", "director", "cast", "kind", "text", *FIELDS]
FACTS = ["title", "year", "director", "cast"]
WORDS = {"plot": (50, 110), "scene": (35, 80), "note": (25, 60)}
"""The shortest and the longest passage of each kind."""
PASSAGE_ID = re.compile(r"(?P<film>[a-z0-9]+(?:-[a-z0-9]+)*)/(?P<kind>plot|scene|note)(?:-[2-9])?")
RUN = 8
"""Words in a row that no two passages share: sentences were written, not stamped."""

Line: TypeAlias = dict[str, object]


def read_lines(path: Path) -> list[Line]:
    """Every line, parsed by nothing but ``json``."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return read_lines(SAMPLE / "films.jsonl")


def text_of(line: Line) -> str:
    text = line["text"]
    assert isinstance(text, str)
    return text


def names_in(line: Line, key: str) -> list[str]:
    """A list of non-empty, different strings."""
    names = line[key]
    assert isinstance(names, list)
    assert all(isinstance(name, str) and name == name.strip() != "" for name in names), line["id"]
    assert len(set(names)) == len(names), line["id"]
    return names


def filled(line: Line) -> int:
    """How many of the four fields people have filled in."""
    return sum(field in line for field in FIELDS)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_every_line_is_json_in_utf_8_as_written() -> None:
    """Accents stand as themselves, and writing a line again gives the same bytes."""
    raw = (SAMPLE / "films.jsonl").read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert b"\\u" not in raw
    for line in raw.decode("utf-8").splitlines():
        assert json.dumps(json.loads(line), ensure_ascii=False) == line


def test_ids_are_unique_and_in_code_point_order(lines: list[Line]) -> None:
    """The strict order says both."""
    ids = [str(line["id"]) for line in lines]
    assert [pair for pair in pairwise(ids) if pair[0] >= pair[1]] == []


def test_keys_are_known_and_in_order(lines: list[Line]) -> None:
    """Facts of the film are on its plot, and nowhere else."""
    for line in lines:
        facts = FACTS if line["kind"] == "plot" else []
        wanted = {"id", "film", "kind", "text", *facts, *(f for f in FIELDS if f in line)}
        assert list(line) == [key for key in KEYS if key in wanted], line["id"]


def test_an_id_says_film_and_kind(lines: list[Line]) -> None:
    """``film/kind``, and a number from the second passage of a kind on."""
    for line in lines:
        match = PASSAGE_ID.fullmatch(str(line["id"]))
        assert match, line["id"]
        assert match.groupdict() == {"film": line["film"], "kind": line["kind"]}


def test_facts_are_of_their_types(lines: list[Line]) -> None:
    """The year is that in the film's id."""
    for line in lines:
        if line["kind"] != "plot":
            continue
        for key in ("title", "director"):
            value = line[key]
            assert isinstance(value, str), line["id"]
            assert value == value.strip() != "", line["id"]
        year = line["year"]
        assert type(year) is int, line["id"]
        assert 1902 <= year <= 2020, line["id"]
        assert str(line["film"]).endswith(f"-{year}")
        assert 3 <= len(names_in(line, "cast")) <= 5, line["id"]


def test_values_by_hand_are_of_their_types(lines: list[Line]) -> None:
    """A sentence, two to four phrases in lower case, and a known mood."""
    for line in lines:
        if "summary" in line:
            summary = line["summary"]
            assert isinstance(summary, str), line["id"]
            assert re.fullmatch(r"[^\n]+\.", summary), line["id"]
        if "themes" in line:
            themes = names_in(line, "themes")
            assert 2 <= len(themes) <= 4, line["id"]
            assert all(len(theme.split()) <= 5 for theme in themes), line["id"]
            assert [t for t in themes if t != t.lower()] == [], line["id"]
        if "mood" in line:
            assert line["mood"] in MOODS, line["id"]


def test_characters_occur_in_the_text(lines: list[Line]) -> None:
    """Each by the last word of the name at least."""
    missing = [
        (line["id"], name)
        for line in lines
        if "characters" in line
        for name in names_in(line, "characters")
        if not re.search(rf"(?<!\w){re.escape(name.split()[-1])}(?!\w)", text_of(line))
    ]
    assert missing == []


def test_there_are_many_films_and_each_has_its_plot(lines: list[Line]) -> None:
    """About two thirds have more than that."""
    kinds = defaultdict(set)
    for line in lines:
        kinds[line["film"]].add(line["kind"])
    assert len(kinds) >= 120
    assert [film for film, found in kinds.items() if "plot" not in found] == []
    assert 0.6 <= sum(len(found) > 1 for found in kinds.values()) / len(kinds) <= 0.75


def test_passages_have_the_length_of_their_kind(lines: list[Line]) -> None:
    """Long enough to describe, short enough to go into a prompt by the dozen."""
    odd = {}
    for line in lines:
        shortest, longest = WORDS[str(line["kind"])]
        if not shortest <= (count := len(text_of(line).split())) <= longest:
            odd[line["id"]] = count
    assert odd == {}


def test_gaps_are_as_stated(lines: list[Line]) -> None:
    """All four fields, some and none; no field is without values or without gaps."""
    counts = [filled(line) for line in lines]
    assert 0.13 <= sum(count == 4 for count in counts) / len(counts) <= 0.17
    assert 0.32 <= sum(0 < count < 4 for count in counts) / len(counts) <= 0.38
    for field in FIELDS:
        assert 0.15 <= sum(field in line for line in lines) / len(lines) <= 0.5, field


def test_no_two_texts_share_a_run_of_words(lines: list[Line]) -> None:
    """Nor does one passage repeat itself."""
    seen: dict[tuple[str, ...], object] = {}
    shared = []
    for line in lines:
        words = words_of(text_of(line))
        for start in range(len(words) - RUN + 1):
            run = tuple(words[start : start + RUN])
            if run in seen:
                shared.append((seen[run], line["id"], " ".join(run)))
            seen[run] = line["id"]
    assert shared == []


def test_its_readme_gives_the_right_figures(lines: list[Line]) -> None:
    """Passages and films are counted, and no key is left out of the table."""
    readme = (SAMPLE / "README.md").read_text("utf-8")
    films = {line["film"] for line in lines}
    assert f"{len(lines)} passages on {len(films)} films" in readme
    assert [key for key in KEYS if f"`{key}`" not in readme] == []
    assert len(readme.splitlines()) < 40
