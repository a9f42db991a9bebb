"""The offline judges: what each fault of a row does to its grade."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from benchmarks.judging import measure, rows_of_model, sample
from tasks.judging.checks import CHECKS, OVERLAP, by_checks, by_overlap, offline_judge
from tasks.judging.grades import BEST, WORST, Row
from tasks.movie_bible.documents import FilmFacts
from tests.workflows.judging_support import GOOD, TEXT, row_of, rows_of
from workflows.gap_fill.spoiling import NOTICEABLE, WAYS, rank, spoil, spoil_some_way

OTHER: dict[str, JsonValue] = {
    "summary": "A robot digs potatoes on a distant moon and befriends a spider.",
    "themes": ["solitude"],
    "characters": ["Unit Nine"],
    "mood": "comic",
}


def test_a_good_row_has_the_best_grade_of_both() -> None:
    """Nothing is said of it, and the first judge finds nothing in a row that lacks fields."""
    assert by_checks(row_of()).grade == BEST
    assert by_checks(row_of()).why == ()
    assert by_overlap(row_of()).grade >= 4
    assert by_checks(Row("p", TEXT, {"mood": "tense"})).grade == BEST


@pytest.mark.parametrize(
    ("changes", "grade", "why"),
    [
        ({"summary": "Rick."}, 2, "has 1 words"),
        ({"summary": f"{TEXT} " * 6}, 1, "says a sentence twice"),
        ({"summary": "Ilsa walks into the nightclub of Rick with her"}, 3, "ends in the middle"),
        ({"summary": "Ilsa betritt mit ihrem Mann das Lokal von Rick."}, 1, "read like English"),
        ({"summary": "イルザは夫と共にリックの店に入る。"}, 1, "in another script"),
        ({"summary": "Rick and Ilsa and Rick and Ilsa and Rick and Ilsa."}, 2, "repeats"),
        ({"summary": "As an AI language model I cannot tell of Rick and Ilsa."}, 1, "of itself"),
        ({"summary": "Rick meets Ilsa and Sam Spade in his nightclub."}, 2, "'Sam', 'Spade' are"),
        ({"summary": "Rick meets Ilsa in his nightclub in Morocco."}, 4, "'Morocco' is not"),
        ({"characters": ["Sam Spade"]}, 2, "'Sam Spade' is not in the passage"),
        ({"characters": ["Rick Blaine", "Sam Spade"]}, 3, "'Sam Spade' is not in the passage"),
        ({"characters": ["Rick Blaine", "Rick Blaine"]}, 3, "a name is there twice"),
        ({"themes": ["war", "War"]}, 3, "is there twice"),
        ({"themes": ["a man who runs a nightclub in the war"]}, 3, "is no short phrase"),
        ({"themes": [f"theme {n}" for n in range(9)]}, 4, "there are 9"),
        ({"mood": "blue"}, 2, "mood"),
        (OTHER, 1, "of its words with the passage"),
        (dict.fromkeys(GOOD), 1, "no field has a value"),
    ],
)
def test_each_fault_has_its_grade_and_is_named(
    changes: dict[str, JsonValue], grade: int, why: str
) -> None:
    found = by_checks(row_of(**changes))
    assert found.grade == grade, found
    assert why in " ".join(found.why)


def test_what_is_known_of_the_film_is_no_stranger() -> None:
    """The model is told of title and year, so a name from there is not invented."""
    film = FilmFacts("c", "Casablanca", 1942, "Michael Curtiz", ("Peter Lorre",))
    values = {**GOOD, "summary": "Michael Curtiz has Ilsa walk into the nightclub of Rick."}
    assert by_checks(Row("p", TEXT, values, film)).grade == BEST
    assert by_checks(Row("p", TEXT, values)).grade == 4


def test_names_are_found_whatever_their_accents_and_case() -> None:
    row = Row("p", "The student Otilia helps GĂBIȚA.", {"characters": ["Găbița", "Otilia"]})
    assert by_checks(row).grade == BEST


@pytest.mark.parametrize("kind", NOTICEABLE)
def test_a_spoiled_row_is_noticed(kind: str) -> None:
    """Whichever of the ways that any judge must notice."""
    spoiled = spoil(GOOD, OTHER, kind)
    assert spoiled != GOOD
    assert by_checks(row_of(**spoiled)).grade < 4, by_checks(row_of(**spoiled))


def test_what_is_well_formed_and_wrong_passes_both() -> None:
    """Said so in the documents: they understand nothing."""
    for kind in set(WAYS) - set(NOTICEABLE):
        spoiled = row_of(**spoil(GOOD, OTHER, kind))
        assert spoiled.values != GOOD
        assert by_checks(spoiled).grade == BEST


def test_words_from_elsewhere_lower_the_second_judge_s_grade() -> None:
    """By the field that shares least with the passage."""
    assert by_overlap(row_of(summary=OTHER["summary"])).grade == 1
    assert by_overlap(row_of(characters=["Quigg Farnsby"])).grade == 1
    assert by_overlap(Row("p", TEXT, {"mood": "tense"})).grade == 4


texts = st.text(max_size=200)


@given(
    text=texts,
    values=st.fixed_dictionaries(
        {},
        optional={
            "summary": texts,
            "themes": st.lists(texts, max_size=4),
            "characters": st.lists(texts, max_size=4),
            "mood": texts,
        },
    ),
)
def test_whatever_stands_in_a_row_it_has_a_grade(text: str, values: dict[str, JsonValue]) -> None:
    """From 1 to 5, the same each time."""
    row = Row("p", text, values)
    for rule in (by_checks, by_overlap):
        assert WORST <= rule(row).grade <= BEST
        assert rule(row) == rule(row)


def test_offline_judges_have_two_names() -> None:
    """All rows get their grade, whatever the time that is left."""
    told: list[int] = []
    for name in (CHECKS, OVERLAP):
        judge = offline_judge(name)
        assert judge is not None
        found = judge.grade(rows_of(3), seconds=0.0, progress=lambda g: told.append(len(g.grades)))
        assert list(found.grades) == ["p-001", "p-002", "p-003"]
        assert (found.spent.cost_nanos, judge.has_price) == (0, True)
    assert told == [3, 3]
    assert offline_judge("checks-0") is None


def test_a_draw_depends_on_seed_and_passage_alone() -> None:
    """So that a larger sample of the same seed contains the smaller one."""
    assert rank(1, "sample", "a") == rank(1, "sample", "a")
    assert len({rank(1, "sample", "a"), rank(2, "sample", "a"), rank(1, "control", "a")}) == 3


def test_what_one_way_cannot_spoil_the_next_does() -> None:
    spoiled = spoil_some_way({"mood": "tense"}, OTHER, tuple(WAYS), turn=0)
    assert spoiled is not None
    assert (spoiled.kind, spoiled.values) == ("mood of another passage", {"mood": "comic"})
    assert spoil_some_way({"mood": "tense"}, OTHER, NOTICEABLE, turn=3) is None


def test_a_spoiled_tenth_is_told_from_the_rest() -> None:
    """As the table of the documents has it: by rows of the sample, and by two seeds."""
    rows = rows_of_model(sample()[:150])
    found = measure(rows, CHECKS, seeds=2)
    assert (found.whole, sum(found.spoiled.values())) == (270, 30)
    assert found.precision(NOTICEABLE) == 1
    assert found.recall(NOTICEABLE) > 0.9
    assert found.recall(tuple(WAYS)[-2:]) == 0


def test_the_package_loads_no_database() -> None:
    """A worker that grades nothing pays for nothing."""
    code = "import sys, tasks.judge; print('sqlalchemy' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
