"""JSON Schemas of a manifest: refused when they are read, or applied in a time that is in sight."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.schema.json_schemas import (
    SchemaFlawError,
    found_in,
    pattern_problem,
    pattern_size,
    schema_problem,
    violations,
)

HUGE = 10**400


def nested(levels: int, value: Any = 1) -> Any:
    """An object in an object in an object ..."""
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "intger"}, 'type: "intger" is not valid under any of the schemas listed'),
        ({"properties": {"a": {"minimum": "1"}}}, 'properties.a.minimum: "1" is not of type'),
        ({"$ref": "#/const", "const": 5}, "$ref: refers to '#/const', which is no schema"),
        ({"$ref": "#/const", "const": {"type": 5}}, "const.type: 5 is not of types"),
        ({"$ref": "#/const", "const": [1]}, "$ref: refers to '#/const', which is no schema"),
        ({"$ref": "#/$defs/gone"}, "$ref: refers to '#/$defs/gone', which is not part of it"),
        ({"items": {"$ref": "http://127.0.0.1:9/x.json"}}, "items.$ref: refers to 'http://127"),
        ({"$ref": "file:///etc/passwd"}, "$ref: refers to 'file:///etc/passwd', which is not"),
        ({"$ref": "http://[bad"}, "$ref: refers to 'http://[bad', which is not part of it"),
        (
            {"$id": "http://a/", "properties": {"x": {"$id": "http://[::1"}}},
            "it names an address that is none (Invalid IPv6 URL)",
        ),
        ({"items": {"$dynamicRef": "#own"}}, "items.$dynamicRef: is not known here; refer to it"),
        ({"$dynamicAnchor": "meta"}, "$dynamicAnchor: is not known here; refer to it by $ref"),
        ({"$ref": "#"}, "it: refers to itself without end"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "refers to itself without end"),
        (
            {"$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            "refers to itself without end",
        ),
        (
            {"items": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}},
            "items.$schema: names 'http://json-schema.org/draft-07/schema#', but only https",
        ),
        (
            {"pattern": "(a)\\1"},
            "pattern: '(a)\\\\1' is not a regular expression: it cannot be read",
        ),
        ({"items": {"pattern": "(?=a)"}}, "items.pattern: '(?=a)' is not a regular expression"),
        ({"patternProperties": {"[": True}}, "patternProperties: '[' is not a regular expression"),
        (
            {"$ref": "#/x-parts/a", "x-parts": {"a": {"items": {"pattern": "(?<=a)"}}}},
            "$ref (#/x-parts/a).items.pattern: '(?<=a)' is not a regular expression",
        ),
        (
            {
                "$defs": {
                    str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}, {"$ref": f"#/$defs/{i + 1}"}]}
                    for i in range(40)
                }
                | {"40": {"type": "string"}},
                "$ref": "#/$defs/0",
            },
            "asks for more than 10000 checks of a value of this size",
        ),
    ],
)
def test_what_cannot_be_applied_is_told_with_its_place(schema: dict[str, Any], says: str) -> None:
    """Found without a result, so that it can be told when the manifest is read."""
    assert says in schema_problem(schema)


@pytest.mark.parametrize(
    ("schema", "result"),
    [
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}, {}),
        ({"properties": {"next": {"$ref": "#"}}, "required": ["a"]}, {"a": 1, "next": {"a": 2}}),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "object"}),
        (
            {"$id": "https://example.com/x", "items": {"$ref": "/x#/$defs/a"}, "$defs": {"a": {}}},
            [],
        ),
        ({"$defs": {"a": {"$anchor": "here", "type": "string"}}, "$ref": "#here"}, "x"),
        ({"$ref": "#/$defs/all", "$defs": {"all": True}}, 1),
        ({"const": {"$schema": "draft-07", "$ref": "#/gone", "pattern": "["}}, None),
        ({"properties": {"pattern": {"type": "string"}, "$ref": {}}}, {"pattern": "["}),
        ({"multipleOf": HUGE}, HUGE * 7),
        ({"multipleOf": 0.01}, 1.1),
        ({"multipleOf": 0.5}, HUGE),
        ({"uniqueItems": True}, [1, True, "1", 0, False, [1], [True], {"a": 1}, {"a": True}]),
        ({"pattern": "^caf\\u00e9$"}, "café"),
        (
            {
                "unevaluatedProperties": False,
                "properties": {"a": {}},
                "patternProperties": {"^x": {}},
                "anyOf": [{"properties": {"b": {"type": "string"}}, "required": ["b"]}, True],
                "if": {"required": ["c"], "properties": {"c": True}},
                "then": {"properties": {"d": True}},
                "dependentSchemas": {"e": {"additionalProperties": True}},
            },
            {"a": 1, "b": "b", "c": 1, "d": 1, "x1": 1},
        ),
    ],
)
def test_what_can_be_applied_is(schema: dict[str, Any], result: Any) -> None:
    """Recursion through the value, the standard itself, names that look like keywords."""
    assert schema_problem(schema) == ""
    if "const" not in schema:
        assert violations(schema, result, 5) == []


@pytest.mark.parametrize(
    ("schema", "result", "keyword"),
    [
        ({"multipleOf": HUGE}, 1.5, "multipleOf"),
        ({"multipleOf": 0.1}, 0.25, "multipleOf"),
        ({"uniqueItems": True}, [1, 2, 1.0], "uniqueItems"),
        ({"uniqueItems": True}, [{"a": [1]}, {"a": [1.0]}], "uniqueItems"),
        ({"pattern": "^no"}, "yes", "pattern"),
        ({"patternProperties": {"^x": {"type": "string"}}}, {"x1": 1}, "type"),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"y": 1}, "additional"),
        (
            {"patternProperties": {"^x": {}}, "additionalProperties": {"type": "null"}},
            {"y": 1},
            "t",
        ),
        (
            {"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]},
            {"b": 1},
            "uneval",
        ),
        ({"unevaluatedProperties": {"type": "null"}}, {"b": 1}, "unevaluated"),
    ],
)
def test_keywords_find_what_is_wrong(schema: dict[str, Any], result: Any, keyword: str) -> None:
    """Exact numbers, equal items, names by patterns."""
    assert schema_problem(schema) == ""
    [violation] = violations(schema, result, 5)
    assert violation.keyword.startswith(keyword)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a+)+$"},
        {"propertyNames": {"pattern": "^(a+)+$"}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/$defs/a"}
        | {"$defs": {"a": {"allOf": [{"pattern": "^(a+)+$"}]}}},
        {"$anchor": "own", "pattern": "^(a+)+$"} | {"items": {"$ref": "#own"}},
    ],
)
def test_no_pattern_can_take_for_ever(schema: dict[str, Any]) -> None:
    """Python's engine would still be at it when the sun goes out."""
    text = "a" * 50_000 + "b"
    assert schema_problem(schema) == ""
    results: list[Any] = [text, {text: 1}, [{"not": text}]]
    for result in results:
        violations(schema, result, 5)


def test_equal_items_are_found_in_one_pass() -> None:
    """Of objects that cannot be sorted, too: 30,000 of them compared with each other never end."""
    items: list[Any] = [{"number": i} for i in range(30_000)]
    assert violations({"uniqueItems": True}, items, 1) == []
    assert len(violations({"uniqueItems": True}, [*items, {"number": 7.0}], 1)) == 1


def test_a_schema_that_asks_for_too_much_is_given_up() -> None:
    """Twice as many steps with each level of the value: 2 to the 60th here."""
    schema: dict[str, Any] = {
        "properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}},
        "type": "object",
    }
    assert schema_problem(schema) == ""
    assert violations(schema, nested(5, {}), 5) == []
    with pytest.raises(SchemaFlawError, match=r"asks for more than \d+ checks of a value"):
        violations(schema, nested(60, {}), 5)


def test_a_long_way_of_references_is_a_flaw_of_its_schema() -> None:
    """And no error of anything but this schema."""
    parts: dict[str, Any] = {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(1000)}
    schema: dict[str, Any] = {"$defs": parts | {"1000": {"type": "string"}}, "$ref": "#/$defs/0"}
    assert "nested too deeply" in schema_problem(schema)
    with pytest.raises(SchemaFlawError, match="nested too deeply"):
        violations(schema, "x", 5)


def test_of_a_very_large_result_the_first_violation_is_reported() -> None:
    """All of them at once would take a second for each 25,000."""
    schema: dict[str, Any] = {"items": {"type": "string"}}
    assert len(violations(schema, [*range(50)], 5)) == 5
    assert [one.path for one in violations(schema, [*range(30_000)], 5)] == ["[0]"]


SIZE = 1 << 14
"""Bytes of a hostile schema: a manifest's may have 64 times as many."""


def filled(make: Callable[[int], Any]) -> dict[str, Any]:
    """An object with as many members as there is room for."""
    found: dict[str, Any] = {}
    room = SIZE
    while room > 0:
        found[f"p{len(found)}"] = made = make(len(found))
        room -= len(json.dumps(made)) + 10
    return found


def laid_open(parts: dict[str, Any], levels: int) -> dict[str, Any]:
    """A schema that refers to each of the levels below which its parts lie."""
    inner: dict[str, Any] = {"properties": parts}
    for _ in range(levels):
        inner = {"items": inner}
    places = {f"r{n}": {"$ref": "#/x" + "/items" * n} for n in range(levels)}
    return {"x": inner, "$defs": places}


LARGE: Mapping[str, Callable[[], dict[str, Any]]] = {
    "parts": lambda: {"properties": filled(lambda _: {"type": "string"})},
    "names": lambda: {
        "$defs": filled(lambda n: {"$anchor": f"a{n}"}),
        "properties": {f"x{n}": {"$ref": f"#a{n}"} for n in range(300)},
    },
    "levels": lambda: laid_open(filled(lambda _: {}), 80),
    "wrong at its end": lambda: {"properties": {**filled(lambda _: {}), "z": {"type": "x"}}},
    "many wrong names": lambda: {"required": [*filled(lambda _: 0), "p0"]},
    "wrong items": lambda: {"dependencies": {"a": [*range(SIZE // 6)]}},
    "wrong flags": lambda: {"$vocabulary": {**filled(lambda _: True), "z": 5}},
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_schema_takes_its_proper_number_of_steps(kind: str) -> None:
    """Some calls for each byte, at most: each part of it is looked at once."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    schema = LARGE[kind]()
    schema_problem({"type": "string", "$ref": "#/x", "x": {"pattern": "a", "title": kind}})
    sys.setprofile(count)
    try:
        problem = schema_problem(schema)
    finally:
        sys.setprofile(None)
    assert bool(problem) == ("wrong" in kind)
    assert calls < len(json.dumps(schema)) * 6


def test_names_are_looked_up_once_where_a_schema_is_applied() -> None:
    """And not for each item, by going through the whole schema."""
    names = filled(lambda n: {"$anchor": f"a{n}"})
    schema: dict[str, Any] = {"$defs": names, "items": {"$ref": "#a7"}}
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        assert violations(schema, [0] * 300, 5) == []
    finally:
        sys.setprofile(None)
    assert calls < 100_000


def test_patterns_are_bounded_by_what_they_come_to() -> None:
    """A few characters may stand for as many steps as one likes."""
    few: dict[str, Any] = {f"p{n}": {"pattern": f"(abcdefghijkl{n}){{900}}"} for n in range(9)}
    assert schema_problem({"properties": few}) == ""
    schema: dict[str, Any] = {
        "properties": {f"p{n}": {"pattern": f"(abcdefghijkl{n}){{900}}"} for n in range(99)}
    }
    assert "its patterns are too large, all in all" in schema_problem(schema)
    assert "it comes to some 81000 steps" in schema_problem(
        {"pattern": f"({'abcdefghij' * 9}){{900}}"}
    )
    assert "it comes to some 1000000000 steps" in schema_problem(
        {"pattern": "(((a{1000}){1000}){1000})"}
    )


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        (r"^\d{4}-\d{2}-\d{2}$", 12),
        ("(ab){3}c{2,4}", 10),
        ("(a(b{2}){3}){5}", 35),
        ("a{3,}", 3),
        (r"\pL{10}\p{Greek}", 220),
        ("[a-z]{3}[^a]", 23),
        ("(a", 1),
        ("a)", 1),
        (r"a\{9}", 4),
    ],
)
def test_a_pattern_has_as_many_steps_as_it_repeats(pattern: str, size: int) -> None:
    """At a guess: before it is compiled, which may take long."""
    assert pattern_size(pattern) == size


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\<b\>", "leave the backslash out"),
        ("(?s)a.b", "write [\\s\\S]"),
        ("(?is)a.b", "write [\\s\\S]"),
        ("[[:alpha:]]", "write a-z"),
        ("(?=a)", "needs look-around"),
        ("a++", "possessive"),
        ("[+]{2}+", "possessive"),
        ("a" * 10_001, "it has 10001 characters"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_the_engine_would_take_for_something_else_is_refused(pattern: str, why: str) -> None:
    """Nothing that most people mean by a pattern silently means something else."""
    assert why in pattern_problem(pattern)


@pytest.mark.parametrize(("pattern", "text"), [(r"\++", "++"), ("[*+]+", "*+"), ("a+?b", "ab")])
def test_what_looks_like_it_is_not(pattern: str, text: str) -> None:
    """Escaped, in a class, and reluctant."""
    assert pattern_problem(pattern) == ""
    assert found_in(pattern, text)


def test_python_s_sign_of_the_end_is_one() -> None:
    """Of an error's message, whose pattern Python's users write."""
    assert pattern_problem(r"gone\Z") == ""
    assert found_in(r"gone\Z", "it is gone")
    assert not found_in(r"gone\Z", "it is gone now")


@pytest.mark.parametrize(
    ("result", "path"),
    [
        ({"a": [{"x y": 1}]}, ".a[0]['x y']"),
        ({"a": [{"it's": 1}]}, r".a[0]['it\'s']"),
        ({"a": [{"b": 1}]}, ".a[0].b"),
    ],
)
def test_a_place_is_written_as_a_path(result: Any, path: str) -> None:
    """By a dot, or in brackets what is no plain name."""
    schema: dict[str, Any] = {
        "properties": {"a": {"items": {"additionalProperties": {"type": "string"}}}}
    }
    (found,) = violations(schema, result, 5)
    assert (found.path, found.keyword, found.wanted, found.found) == (path, "type", "string", 1)


# fmt: off
_NAMES = [
    "a", "$ref", "$id", "$schema", "$anchor", "$dynamicRef", "$defs", "allOf", "items",
    "properties", "pattern", "patternProperties", "additionalProperties", "not", "type",
    "multipleOf", "uniqueItems", "unevaluatedProperties", "minimum", "if", "then",
]
# fmt: on
_LEAVES = ["a", "#", "#/a", "(a+)+$", "[", "string", HUGE, -HUGE, 1e308, 1e-308]
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(_LEAVES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
_SCHEMAS = st.dictionaries(st.sampled_from(["$ref", "allOf", "$id", "items", "a"]), _JSON)


@given(schema=_SCHEMAS, value=_JSON)
def test_no_schema_raises_anything_else(schema: dict[str, Any], value: Any) -> None:
    """Whatever it says: it is refused in words, it is a flaw when it is applied, or it works."""
    problem, flaw = schema_problem(schema), ""
    try:
        assert len(violations(schema, value, 5)) <= 5
    except SchemaFlawError as error:
        flaw = str(error)
    # What nobody has foreseen of a schema is found when it is read, and not when it is applied.
    assert problem or not flaw.startswith(("cannot be applied", "refers to '"))
