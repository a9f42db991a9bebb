"""The fast path of entries: it decides as the models do, and takes nearly all."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import dump_entry, entry_line, read_manifest
from pytest_manifest.manifest.fast_path import check_lines, expects_nothing, parse_quickly
from pytest_manifest.manifest.jsonl import Faults, Line, check_document, parse_object
from pytest_manifest.planning import PlanBuilder, plan_spec
from pytest_manifest.schema import Entry
from pytest_manifest.schema.json_values import is_deep
from tests.rings import examples

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
        "key": st.dictionaries(st.sampled_from(["tenant", "a.b", "a b", "é", "a\n", ""]), names)
        | odd,
        "headers": st.dictionaries(
            st.sampled_from(["tenant", "x-a", "é", "", "id", "manifest_run"]),
            names | numbers | st.booleans() | st.sampled_from(["x" * 501, 2**60, None, 1.5]),
        )
        | st.just({f"h{n}": n for n in range(33)})
        | odd,
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
    max_examples=examples(200),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def by_the_models(raw: bytes) -> tuple[Entry | None, list[str]]:
    """What the careful parser and the models make of a line, and the faults that they find."""
    faults = Faults(Path("m"))
    line = Line(2, 0, raw)
    document = parse_object(line, faults)
    entry = None if document is None else check_document(document, line, Entry, faults)
    return entry, [fault.message for fault in faults.error().faults] if faults else []


@relaxed
@given(given=fields)
def test_what_is_written_fast_is_what_the_models_write(given: dict[str, Any]) -> None:
    """To the byte, and nothing that they refuse."""
    line = entry_line(dict(given))
    if line is not None:
        assert line == dump_entry(Entry.model_validate(given))


# Nearly all of the fields above together are no entry; what is looked for is beside an expectation.
sound = st.fixed_dictionaries(
    {"id": st.just("a"), "task": st.sampled_from(["t", "expect"])},
    optional={"args": st.lists(values, max_size=2), "kwargs": objects, "meta": objects},
)


@relaxed
@given(given=sound, expect=expectations, escaped=st.booleans())
def test_an_entry_expects_nothing_where_the_models_write_no_expectations(
    given: dict[str, Any], expect: dict[str, Any], escaped: bool
) -> None:
    """Defaults that are spelled out are no expectations; a result of null is one."""
    try:
        raw = json.dumps(given | {"expect": expect}, ensure_ascii=escaped).encode()
    except (TypeError, ValueError):
        reject()
    entry, _ = by_the_models(raw)
    if entry is None:
        reject()
    assert expects_nothing(raw + b"\n") == ("expect" not in json.loads(dump_entry(entry)))


@relaxed
@given(given=fields, compact=st.booleans(), escaped=st.booleans())
def test_what_is_read_fast_is_what_the_models_read(
    given: dict[str, Any], compact: bool, escaped: bool
) -> None:
    """Nothing passes that they refuse, and all that they read passes but what is left to them."""
    try:
        text = json.dumps(given, separators=(",", ":") if compact else None, ensure_ascii=escaped)
        raw = text.encode() + b"\n"
    except (TypeError, ValueError):
        return
    entries = check_lines([raw])
    entry, faults = by_the_models(raw)
    assert (entry is None) is bool(faults)
    if entry is None:
        assert entries is None
        return
    left = "eta" in given or "error" in given.get("expect", {}) or _has_large(given)
    if not left and "\\u003a" not in text and not is_deep(given):
        assert entries is not None
    if entries is not None:
        (line,) = entries
        assert line.id == entry.id
        assert (line.after or []) == entry.after
        assert Entry.model_validate(json.loads(msgspec.json.encode(line))) == entry


def _has_large(given: dict[str, Any]) -> bool:
    """Whether a number is so large that the models are asked."""
    numbers = [*given.values(), *given.get("expect", {}).values()]
    return any(type(number) is int and abs(number) >= 10**15 for number in numbers)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"id": "a", "task": "t", "id": "b"}', 'duplicate key "id"'),
        (b'{"id": ":", "task": "t", "id": "b"}', 'duplicate key "id"'),
        (b'{"id": "a", "task": "t", "\\u0069d": "b"}', 'duplicate key "id"'),
        (b'{"id" : "a", "task": "t", "kwargs": {"x" : 1, "x": 2}}', 'duplicate key "x"'),
        (b'{"id": "a", "task": "t", "meta": {"x": "\\u003a", "x": ":"}}', 'duplicate key "x"'),
        (b'{"id": "a", "task": "t", "args": [{"x": 1, "x": "\\u003A"}]}', 'duplicate key "x"'),
        (b'{"id": "a", "task": "t", "timeout": NaN}', "NaN is not JSON"),
        (b'{"id": "a", "task": "t", "args": [NaN]}', "NaN is not JSON"),
        (b'{"id": "a", "task": "t", "args": [-Infinity]}', "-Infinity is not JSON"),
        (b'{"id": "a", "task": "t", "args": [1e400]}', "the number 1e400 is too large"),
        (b'{"id": "a", "task": "t", "cost": -1e400}', "the number -1e400 is too large"),
        (b'{"id": "a", "task": "t", "args": [' + b"9" * 4300 + b"]}", None),
        (b'{"id": "a", "task": "t", "args": [' + b"9" * 4301 + b"]}", "more digits than can be"),
        (b'{"id": "a", "task": "t", "cost": 1' + b"0" * 308 + b"}", None),
        (
            b'{"id": "a", "task": "t", "timeout": 1' + b"0" * 309 + b"}",
            "must be a number, not 1000",
        ),
        (
            b'{"id": "a", "task": "t", "retries": 1' + b"0" * 30 + b"}",
            "must be 9007199254740991 or",
        ),
        (b'{"id": "a", "task": "t", "retries": 2.0}', "must be a whole number"),
        (b'{"id": "a", "task": "t", "retries": true}', "must be a whole number"),
        (b'{"id": "a", "task": "t", "countdown": 3155760000}', None),
        (b'{"id": "a", "task": "t", "countdown": 3155760001}', "must be 3155760000 or less"),
        (b'{"id": "a", "task": "t", "expires": 1e12}', "must be 3155760000 or less"),
        (b'{"id": "a", "task": "t", "timeout": 1e-400}', "must be greater than 0"),
        (b'{"id": "a", "task": "t", "cost": -0.0}', None),
        (b'{"id": "a", "task": "t", "priority": -0}', None),
        (b'{"id": "a", "task": "t", "args": ["\\ud800"]}', "half of a surrogate pair"),
        (b'{"id": "a", "task": "t", "kwargs": {"\\udc00": 1}}', "half of a surrogate pair"),
        (b'{"id": "\\ud83d\\ude00", "task": "t"}', None),
        (b'{"id": "a\\u0000", "task": "t"}', "has the character U+0000"),
        (b'{"id": "a\t", "task": "t"}', "invalid control character"),
        (b'{"id": "\xff", "task": "t"}', "is not UTF-8"),
        (b'{"id": "\xed\xa0\x80", "task": "t"}', "is not UTF-8"),
        (b'{"id": "a", "task": "t", "args": ' + b"[" * 100 + b"]" * 100 + b"}", None),
        (b'{"id": "a", "task": "t", "args": ' + b"[" * 101 + b"]" * 101 + b"}", "100 levels"),
        (b'{"id": "a", "task": "t", "args": ' + b"[" * 9999 + b"]" * 9999 + b"}", "100 levels"),
        (b'{"id": "a", "task": "t"} {"id": "b", "task": "t"}', "there is more after the object"),
        (b'[{"id": "a", "task": "t"}]', "the line is an array"),
        (b'{"id": "a", "task": "t", "after": ["a"]}', "names the entry itself"),
        (b'{"id": "a", "task": "t", "tags": ["x\\n"]}', "has the character U+000A"),
        (
            b'{"id": "a", "task": "t", "expect": {"schema": {"type": "x"}}}',
            "not a valid JSON Schema",
        ),
        (b'{"id": "a", "task": "t", "zz": 1}', "unknown field 'zz'"),
        (b'{"id": "a"}', "'task' is missing"),
    ],
)
def test_a_strange_line_is_taken_as_by_the_models(
    tmp_path: Path, line: bytes, fault: str | None
) -> None:
    """Alone and between others, whose numbers and offsets stay right."""
    path = tmp_path / "m.jsonl"
    around = [b'{"id": "%d", "task": "t"}\n' % number for number in range(4)]
    path.write_bytes(b"".join([*around[:2], line, b"\n", *around[2:]]))
    if fault is None:
        manifest = read_manifest(path)
        assert [manifest[entry_id].id for entry_id in manifest.ids] == list(manifest.ids)
        assert list(manifest.ids[:2]) + list(manifest.ids[3:]) == ["0", "1", "2", "3"]
        assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        return
    assert check_lines([line + b"\n"]) is None
    with pytest.raises(ManifestError) as raised:
        read_manifest(path)
    (found,) = raised.value.faults
    assert found.line == 3
    assert fault in found.message


@pytest.mark.parametrize(
    "given",
    [
        {"args": [1, 2.5, None, True, "a: b", {"k": [{}]}]},
        {"args": (1, [2])},
        {"args": ()},
        {"kwargs": {"url": "https://example.org/", "text": 'é "x"\n'}, "meta": {"rows": 3}},
        {"queue": "slow", "priority": 3, "countdown": 5, "expires": 60, "deadline": 600},
        {"timeout": 12.5, "retries": 2, "idempotent": True, "cost": 0.25},
        {"timeout": 300, "retries": 0, "queue": None, "tags": [], "meta": {}},
        {"after": ["b"], "tags": ["llm", "é"]},
        {"expect": {"result": None}},
        {"expect": {"schema": {"type": "object"}, "max_runtime": 3, "executions": 2}},
        {"expect": {"state": "failed"}},
        {"expect": {}},
        {"expect": {"state": "succeeded", "schema": None}},
        {"timeout": 300.0, "cost": -0.0, "expect": {"max_wait": 2.0}},
    ],
)
def test_what_is_usual_takes_the_fast_path(given: dict[str, Any]) -> None:
    """Planned and read."""
    given = {"id": "a", "task": "t", **given}
    expected = dump_entry(Entry.model_validate(given))
    line = entry_line(given)
    assert line == expected
    assert check_lines([line + b"\n"]) is not None


@pytest.mark.parametrize(
    "given",
    [
        {"args": [1e-5]},
        {"args": [-1e16]},
        {"args": [2**63]},
        {"args": [deep]},
        {"meta": {"x": Decimal("1.5")}},
        {"timeout": 1e-7},
        {"expires": Decimal(3)},
        {"retries": 2**63},
        {"eta": "2026-11-24T15:00:00Z"},
        {"meta": {"x": (1, 2)}},
        {"after": ("b",)},
        {"args": {1}},
        {"expect": {"state": "failed", "error": {"type": "E"}}},
    ],
)
def test_the_rest_is_left_to_the_models(given: dict[str, Any]) -> None:
    """What it would write in another way than the models, and what only they can check."""
    assert entry_line({"id": "a", "task": "t", **given}) is None


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
    assert reading < 4 * 1_000
    planning = calls_of(lambda: planned(1_100)) - calls_of(lambda: planned(100))
    assert planning < 13 * 1_000
    freezing = calls_of(lambda: manifest(1_200)) - calls_of(lambda: manifest(200))
    assert freezing - planning < 1_000
