"""Containment: objects contain, arrays are equal, true is not 1."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.verdict.expectations import differences


def found(expected: Any, actual: Any) -> list[tuple[str, str, str]]:
    """The differences as plain tuples."""
    return [(m.path, m.expected, m.actual) for m in differences(expected, actual)]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}], "c": 3}),
        (1, 1.0),
        ({"a": 1.0}, {"a": 1}),
        (None, None),
        ("é", "é"),
        ([], []),
        (True, True),
        (2**60, 2**60),
    ],
)
def test_contained(expected: Any, actual: Any) -> None:
    """No difference is found."""
    assert found(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual", "differences"),
    [
        (True, 1, [("result", "True", "1")]),
        (1, True, [("result", "1", "True")]),
        (False, 0, [("result", "False", "0")]),
        ({"a": 0.0}, {"a": False}, [("result.a", "0.0", "False")]),
        (None, {}, [("result", "None", "{}")]),
        ({}, None, [("result", "{}", "None")]),
        ([], {}, [("result", "[]", "{}")]),
        ("1", 1, [("result", "'1'", "1")]),
        ({"a": 1}, {}, [("result.a", "1", "absent")]),
        ({"a": None}, {}, [("result.a", "None", "absent")]),
        ({"a": None}, {"a": 0}, [("result.a", "None", "0")]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [("result.a.b.c", "1", "2")]),
        ([1, 2], [2, 1], [("result[0]", "1", "2"), ("result[1]", "2", "1")]),
        ([1, 2], [1], [("result[1]", "2", "absent")]),
        ([1], [1, 2], [("result[1]", "absent", "2")]),
        ([], [0] * 9, [("result", "0 items", "9 items")]),
        ([0] * 5, [0], [("result", "5 items", "1 item")]),
        ([1, 2, 3, 4], [1], [(f"result[{i}]", str(i + 1), "absent") for i in (1, 2, 3)]),
        ([1, 2, 3], [1, 2, 4, 5], [("result[2]", "3", "4"), ("result[3]", "absent", "5")]),
        ([{"a": 1}], [{"a": 1, "b": 2}], [("result[0].b", "absent", "2")]),
        ([[{"a": {}}]], [[{"a": {"b": 1}}]], [("result[0][0].a.b", "absent", "1")]),
        ({"a b": 1}, {}, [("result['a b']", "1", "absent")]),
        ({"": 1}, {}, [("result['']", "1", "absent")]),
        ({"é-1": 1}, {}, [("result.é-1", "1", "absent")]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}, [("result.a", "1", "2"), ("result.b", "2", "1")]),
    ],
)
def test_not_contained(expected: Any, actual: Any, differences: list[tuple[str, str, str]]) -> None:
    """Each difference is named with its path, what was expected there and what is there."""
    assert found(expected, actual) == differences


def test_values_are_shortened_in_the_middle() -> None:
    """A result of megabytes fits a line."""
    ((_, expected, actual),) = found("a" * 10**6, ["b" * 10**6] * 10**4)
    assert len(expected) <= 80
    assert len(actual) <= 80
    assert "..." in expected


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


def enriched(value: Any) -> Any:
    """The same value with one more key in every object that is not in an array."""
    if isinstance(value, dict):
        return {**{key: enriched(item) for key, item in value.items()}, "extra": None}
    return value


@given(values)
def test_everything_contains_itself(value: Any) -> None:
    """Also after more keys came to its objects."""
    assert found(value, value) == []
    assert found(value, enriched(value)) == []


@given(values, values)
def test_containment_both_ways_is_equality(one: Any, other: Any) -> None:
    """Two values that contain each other have the same JSON, so true and 1 are kept apart."""
    both = not found(one, other) and not found(other, one)
    assert both == (repr(sort(one)) == repr(sort(other)))


def sort(value: Any) -> Any:
    """The value with its objects' keys in order."""
    if isinstance(value, dict):
        return {key: sort(value[key]) for key in sorted(value)}
    return [sort(item) for item in value] if isinstance(value, list) else value
