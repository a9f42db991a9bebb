"""Answers are joined by key, and only valid values get through."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from tasks.filling.answers import Reading, problems_of, read_answer
from tasks.filling.prompts import Wanted
from tasks.text_model.failures import MalformedAnswer

BY_KEY = {"k-1": Wanted("a", "", ("summary", "mood")), "k-2": Wanted("b", "", ("characters",))}
GOOD: list[dict[str, JsonValue]] = [
    {"key": "k-2", "characters": ["Ripley "]},
    {"key": "k-1", "summary": " A summary. ", "mood": "tense", "themes": ["not asked"]},
]


def read(items: object, by_key: Mapping[str, Wanted] = BY_KEY) -> Reading:
    return read_answer(json.dumps({"items": items}), by_key)


def test_items_are_joined_by_key_and_trimmed_to_what_was_asked() -> None:
    reading = read(GOOD)
    assert reading.values == {
        "a": {"summary": "A summary.", "mood": "tense"},
        "b": {"characters": ["Ripley"]},
    }
    assert (reading.problems, reading.foreign) == ({}, [])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"summary": None}, "malformed", "lacks summary"),
        ({"summary": ""}, "malformed", "summary"),
        ({"summary": "x" * 2000}, "malformed", "summary"),
        ({"summary": "a\x00b"}, "malformed", "NUL character"),
        ({"summary": 5}, "malformed", "summary"),
        ({"mood": "purple"}, "malformed", "mood: .*is none of"),
        ({"mood": ["tense"]}, "malformed", "mood"),
        ({"key": "k-9"}, "missing", "no item"),
        ({"key": 1}, "missing", "no item"),
    ],
)
def test_a_bad_item_is_named_and_spoils_no_other(
    change: dict[str, JsonValue], kind: str, message: str
) -> None:
    reading = read([GOOD[0], GOOD[1] | change])
    assert list(reading.values) == ["b"]
    problem = reading.problems["a"]
    assert problem.kind == kind
    assert re.search(message, problem.message)


def test_of_two_items_with_one_key_neither_counts() -> None:
    reading = read([*GOOD, GOOD[1] | {"summary": "another"}])
    assert reading.problems["a"].kind == "doubled"
    assert "a" not in reading.values


@pytest.mark.parametrize(
    "text", ["", "x", "3", "[]", '{"items": {}}', '{"items": ["k-1"]}', "[" * 5000]
)
def test_what_is_no_list_of_items_is_a_failure(text: str) -> None:
    with pytest.raises(MalformedAnswer, match="no JSON object with a list of items"):
        read_answer(text, BY_KEY)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
loose_items = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "key": st.sampled_from(["k-1", "k-2", "k-3", 1]) | json_values,
            "summary": json_values,
            "mood": st.sampled_from(["tense", "x"]) | json_values,
            "characters": json_values,
        },
    ),
    max_size=6,
)


@given(loose_items)
def test_every_passage_is_either_filled_validly_or_named(items: list[dict[str, JsonValue]]) -> None:
    reading = read(items)
    assert reading.values.keys() | reading.problems.keys() == {"a", "b"}
    assert not reading.values.keys() & reading.problems.keys()
    assert all(problems_of(values) is None for values in reading.values.values())
    known = sum(item.get("key") in ["k-1", "k-2"] for item in items)
    assert len(reading.foreign) == len(items) - known
