"""Lines of entries: what is taken, what is refused with its line, and reading them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import dump_entry, jsonl, read_manifest
from pytest_manifest.manifest.jsonl import Faults, Line, parse_document
from pytest_manifest.schema import Entry
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
        "descendants": st.sampled_from(
            ["succeeded", "finished", {"count": 2}, {"count": {"min": 1}}]
        ),
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
        "expires": st.none() | numbers | st.just("2026-11-24t15:00:00.1234567+01:00"),
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


def checked(raw: bytes) -> tuple[Entry | None, list[str]]:
    """What a line is when its file is checked, and the faults that are found."""
    faults = Faults(Path("m"))
    entry = parse_document(Line(2, 0, raw), Entry, faults)
    return entry, [fault.message for fault in faults.error().faults] if faults else []


# Nearly all of the fields above together are no entry; what is looked for is beside an expectation.
sound = st.fixed_dictionaries(
    {"id": st.just("a"), "task": st.sampled_from(["t", "expect"])},
    optional={"args": st.lists(values, max_size=2), "kwargs": objects, "meta": objects},
)


@relaxed
@given(given=sound, expect=expectations, escaped=st.booleans())
def test_an_entry_expects_nothing_where_no_expectations_are_written(
    given: dict[str, Any], expect: dict[str, Any], escaped: bool
) -> None:
    """Defaults that are spelled out are no expectations; a result of null is one."""
    try:
        raw = json.dumps(given | {"expect": expect}, ensure_ascii=escaped).encode()
    except (TypeError, ValueError):
        reject()
    entry, _ = checked(raw)
    if entry is None:
        reject()
    assert entry.expect.is_nothing == ("expect" not in json.loads(dump_entry(entry)))


@relaxed
@given(given=fields | sound, compact=st.booleans(), escaped=st.booleans())
def test_a_line_is_read_again_as_it_was_checked(
    given: dict[str, Any], compact: bool, escaped: bool
) -> None:
    """The parser that takes what was checked before makes the same of it, types included.

    It checks short lines as well, and takes none in which a fault would be found otherwise.
    """
    try:
        text = json.dumps(given, separators=(",", ":") if compact else None, ensure_ascii=escaped)
        raw = text.encode() + b"\n"
    except (TypeError, ValueError):
        return
    entry, faults = checked(raw)
    assert (entry is None) is bool(faults)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_SHORT", 0)
        slowly, found = checked(raw)
    assert (repr(slowly), found) == (repr(entry), faults)
    if entry is not None:
        again = Entry.model_validate_json(raw)
        assert repr(again) == repr(entry)
        assert dump_entry(again) == dump_entry(entry)


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
def test_a_strange_line_is_taken_or_named(tmp_path: Path, line: bytes, fault: str | None) -> None:
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
    with pytest.raises(ManifestError) as raised:
        read_manifest(path)
    (found,) = raised.value.faults
    assert found.line == 3
    assert fault in found.message
