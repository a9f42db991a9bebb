"""The short look at entries: it decides as the long one does, and is enough for nearly all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pytest_manifest.manifest import dump_entry, dump_plain, read_manifest
from pytest_manifest.manifest.faults import Faults
from pytest_manifest.manifest.lines import Line, parse_object, parse_quickly
from pytest_manifest.planning import PlanBuilder, plan_spec
from pytest_manifest.schema import Entry
from pytest_manifest.schema.plain import is_plain, plain_entry

deep: list[Any] = []
for _ in range(120):
    deep = [deep]

texts = st.text(max_size=8) | st.sampled_from(["a: b", '":', "\\", "\x7f\x00\n", ",\n}", "\ud800"])
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([300, 300.0, 1e15, 1e16, 1e-5, -0.0, 2**63, True, 10**400])
)
odd = st.sampled_from([None, (1, (2,)), {1: 2}, b"x", {1}, deep])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | texts | numbers | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
objects = st.dictionaries(texts, values, max_size=2)
names = st.text(max_size=4) | st.sampled_from(["a", "é", "a\n", "x" * 201])
lists = st.lists(names, max_size=2)
expectations = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["succeeded", "failed", "zz"]),
        "result": values,
        "schema": st.sampled_from([None, {}, {"type": "object"}, {"type": "x"}]),
        "error": st.sampled_from([None, {"type": "E"}]),
        "max_runtime": numbers,
        "executions": numbers,
    },
)
fields = st.fixed_dictionaries(
    {"id": names, "task": names},
    optional={
        "args": st.lists(values, max_size=2) | odd,
        "kwargs": objects | odd,
        "queue": st.none() | names,
        "priority": st.none() | numbers,
        "countdown": st.none() | numbers,
        "eta": st.sampled_from([None, "2026-11-24T15:00:00Z"]),
        "expires": st.none() | numbers,
        "timeout": numbers,
        "deadline": st.none() | numbers,
        "retries": st.none() | numbers,
        "idempotent": st.sampled_from([True, False, 1]),
        "after": lists,
        "tags": lists,
        "cost": st.none() | numbers,
        "meta": objects,
        "expect": expectations,
        "unknown": st.none(),
    },
)
relaxed = settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@relaxed
@given(given=fields)
def test_a_short_look_writes_what_the_models_write(given: dict[str, Any]) -> None:
    """To the byte, and nothing that they refuse."""
    entry = plain_entry(given)
    line = None if entry is None else dump_plain(entry)
    if line is not None:
        assert line == dump_entry(Entry.model_validate(given))


@relaxed
@given(given=fields)
def test_a_short_look_reads_what_the_models_read(given: dict[str, Any]) -> None:
    """It finds plain what is valid, and leaves to the models what only they can check."""
    try:
        raw = json.dumps(given).encode() + b"\n"
    except (TypeError, ValueError):
        return
    document = parse_quickly(raw)
    if document is None:
        return
    assert document == json.loads(raw)
    try:
        Entry.model_validate(document)
    except ValidationError:
        assert not is_plain(document)
    else:
        expect = given.get("expect", {})
        large = max(given.get("retries", 0), expect.get("executions", 0)) >= 2**63
        assert is_plain(document) is not ("eta" in given or "error" in expect or large)


@pytest.mark.parametrize(
    "given",
    [
        {"args": [1, 2.5, None, True, "a: b", {"k": [{}]}]},
        {"args": (1, (2,))},
        {"kwargs": {"url": "https://example.org/", "text": 'é "x"\n'}, "meta": {"rows": 3}},
        {"queue": "slow", "priority": 3, "countdown": 5, "expires": 60, "deadline": 600},
        {"timeout": 12.5, "retries": 2, "idempotent": True, "cost": 0.25},
        {"timeout": 300, "retries": 0, "queue": None, "tags": [], "meta": {}},
        {"after": ["b"], "tags": ["llm", "é"]},
        {"expect": {"result": None}},
        {"expect": {"schema": {"type": "object"}, "max_runtime": 3, "executions": 2}},
        {"expect": {"state": "failed"}},
    ],
)
def test_a_short_look_is_enough_for_what_is_usual(given: dict[str, Any]) -> None:
    """Planned and read."""
    given = {"id": "a", "task": "t", **given}
    entry = plain_entry(given)
    assert entry is not None
    line = dump_plain(entry)
    assert line == dump_entry(Entry.model_validate(given))
    document = parse_quickly(line + b"\n")
    assert document is not None
    assert is_plain(document)


@pytest.mark.parametrize(
    "given",
    [
        {"args": [1e-5]},
        {"args": [-1e16]},
        {"args": [2**63]},
        {"args": ()},
        {"args": [deep]},
        {"meta": {"x": Decimal("1.5")}},
        {"timeout": 1e-7},
        {"expires": Decimal(3)},
        {"retries": 2**63},
        {"eta": "2026-11-24T15:00:00Z"},
        {"expect": {}},
        {"expect": {"state": "succeeded", "schema": None}},
        {"expect": {"state": "failed", "error": {"type": "E"}}},
    ],
)
def test_a_short_look_leaves_the_rest(given: dict[str, Any]) -> None:
    """What it would write in another way than the models, and what only they can check."""
    entry = plain_entry({"id": "a", "task": "t", **given})
    assert entry is None or dump_plain(entry) is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"a": "b: c", "d": {"e:": [":"]}}', True),
        ('{"a" : 1, "b"\t: "\\u00fc"}', True),
        ('{"a": 1, "a": 2}', False),
        ('{"a": ":", "a": 2}', False),
        ('{"a": 2, "a": ":"}', False),
        ('{"a" : 1, "\\u0061" : 2}', False),
        ('{"x": {"a": 1, "b": 2, "a": "\\u003a"}}', False),
        ('{"a": "\\u003A", "a": ":"}', False),
        ('{"a": [1e999]}', False),
        ('{"a": NaN}', False),
        ('{"a": "\\ud800"}', False),
        ('{"a": ' + "[" * 99 + "]" * 99 + "}", True),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", False),
        ('{"a": [' + ", ".join(["[]"] * 150) + "]}", True),
        ("[1]", False),
        ('{"a": 1} x', False),
    ],
)
def test_the_quick_parser_leaves_what_is_doubtful(text: str, good: bool) -> None:
    """Duplicate keys above all, which colons within strings must not hide."""
    raw = text.encode()
    document = parse_quickly(raw)
    assert (document is not None) is good
    if good:
        assert document == parse_object(Line(1, 0, raw), Faults(Path("m"))) == json.loads(text)


def calls_of(act: Callable[[], object]) -> int:
    """How many functions of Python ``act`` calls."""
    count = 0

    def see(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def test_an_entry_costs_a_handful_of_calls(tmp_path: Path) -> None:
    """Reading and planning: the rest is done in C and Rust, at twice the time of ``json.loads``."""

    def planned(count: int) -> PlanBuilder:
        made = PlanBuilder(plan_spec("a:b", lambda plan: None), {})
        for number in range(count):
            kwargs = {"data": {"title": "Alien", "cast": ["Weaver", "Skerritt"]}}
            expect = {"result": {"lifecycle": ["created", "deleted"]}}
            made.add("t", id=f"e{number}", kwargs=kwargs, timeout=30, tags=["x"], expect=expect)
        return made

    def manifest(count: int) -> Path:
        frozen = planned(count).freeze(tmp_path / f"{count}.jsonl", tmp_path)
        assert frozen is not None
        return frozen.path

    small, large = manifest(100), manifest(1_100)
    reading = calls_of(lambda: read_manifest(large)) - calls_of(lambda: read_manifest(small))
    assert reading < 6 * 1_000
    planning = calls_of(lambda: planned(1_100)) - calls_of(lambda: planned(100))
    assert planning < 9 * 1_000
    freezing = calls_of(lambda: manifest(1_200)) - calls_of(lambda: manifest(200))
    assert freezing - planning < 1_000
