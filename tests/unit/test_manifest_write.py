"""Writing manifests: the bytes, the round trip, and nothing left behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import dump_entry, read_manifest, write_manifest
from pytest_manifest.schema import Entry, Expectations, Header
from pytest_manifest.schema.fields import is_identifier
from tests.rings import examples

HEADER = Header(
    workflow="system_test",
    mode="crud_stress",
    params={"count": 50},
    planned_at=datetime(2026, 11, 24, 15, tzinfo=timezone.utc),
)
CRUD = Entry.model_validate(
    {
        "id": "crud-0001",
        "task": "tasks.crud.fast_crud_task",
        "kwargs": {"data": {"title": "Alien"}},
        "timeout": 30,
        "expect": {"result": {"lifecycle": ["created", "verified", "deleted"]}},
    }
)


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    """Keys in the documented order, defaults left out, UTF-8 as it is, whole seconds as such."""
    manifest = write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    assert manifest.path.read_text(encoding="utf-8") == (
        '{"manifest": 1, "workflow": "system_test", "mode": "crud_stress", '
        '"params": {"count": 50}, "planned_at": "2026-11-24T15:00:00Z", '
        f'"entries": 1, "sha256": "{manifest.sha256}"}}\n'
        '{"id": "crud-0001", "task": "tasks.crud.fast_crud_task", '
        '"kwargs": {"data": {"title": "Alien"}}, "timeout": 30, '
        '"expect": {"result": {"lifecycle": ["created", "verified", "deleted"]}}}\n'
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"retries": 0, "args": [], "expect": {}}, {}),
        ({"timeout": 300.0}, {"timeout": 300}),
        ({"expect": {"result": None}}, {"expect": {"result": None}}),
        (
            {"expect": {"state": "failed", "error": {}}},
            {"expect": {"state": "failed", "error": {}}},
        ),
        ({"timeout": 0.5}, {"timeout": 0.5}),
        ({"args": [1.0, 2], "meta": {"é": "日本"}}, {"args": [1.0, 2], "meta": {"é": "日本"}}),
        ({"eta": "2026-11-24T16:00:00.25+01:00"}, {"eta": "2026-11-24T15:00:00.250000Z"}),
        ({"expires": 3}, {"expires": 3}),
        ({"expires": "2026-11-24T15:00:00Z"}, {"expires": "2026-11-24T15:00:00Z"}),
        ({"expect": {"schema": {"type": "object"}}}, {"expect": {"schema": {"type": "object"}}}),
        ({"idempotent": True, "after": ["b"]}, {"idempotent": True, "after": ["b"]}),
    ],
)
def test_a_line_has_what_is_not_default(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """And what it has gives the same entry back; numbers of the user's own stay as they are."""
    entry = Entry.model_validate({"id": "a", "task": "t", **fields})
    line = dump_entry(entry).decode()
    assert line == json.dumps({"id": "a", "task": "t", **expected}, ensure_ascii=False)
    again = Entry.model_validate_json(line)
    assert again == entry
    assert again.expect.model_fields_set >= entry.expect.model_fields_set & {"result"}


def test_a_manifest_that_may_not_be_rerun_says_so(tmp_path: Path) -> None:
    """rerun: false is written, true is not."""
    for rerun in (True, False):
        manifest = write_manifest(tmp_path / "m.jsonl", Header(rerun=rerun), [CRUD])
        assert read_manifest(manifest.path).header.rerun is rerun
        assert (b"rerun" in manifest.path.read_bytes()) is not rerun


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    """Count and digest are filled in whatever the header came with."""
    one = write_manifest(tmp_path / "1", HEADER, [CRUD])
    stale = HEADER.model_copy(update={"entries": 9, "sha256": "0" * 64})
    two = write_manifest(tmp_path / "2", stale, iter([CRUD]))
    assert one.path.read_bytes() == two.path.read_bytes()


def test_a_large_manifest_goes_through_the_disk(tmp_path: Path) -> None:
    """More than what is kept in memory while writing comes out whole and in order."""
    entries = [Entry(id=f"e{i}", task="t", meta={"text": "x" * 1000}) for i in range(9000)]
    manifest = write_manifest(tmp_path / "m.jsonl", HEADER, entries)
    assert manifest.path.stat().st_size > 9_000_000
    assert list(manifest) == entries
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_written_manifest_can_be_used_at_once(tmp_path: Path) -> None:
    """It is bound to its final path, and equal to what reading that gives."""
    written = write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    read = read_manifest(tmp_path / "m.jsonl")
    assert written.path == read.path
    assert written.summary == read.summary
    assert written["crud-0001"] == read["crud-0001"] == CRUD


def failing(error: BaseException) -> Iterator[Entry]:
    """A plan that breaks after its first entry."""
    yield CRUD
    raise error


@pytest.mark.parametrize("error", [OSError(5, "the planner's own"), KeyboardInterrupt()])
def test_a_plan_that_breaks_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    """The error passes through as it is; no half file, no temporary file."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        write_manifest(path, HEADER, failing(error))
    assert caught.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "m.jsonl: there is a header but no entries"),
        ([CRUD, CRUD], "m.jsonl:3: entry id 'crud-0001' was used on line 2 already"),
        ([Entry(id="a", task="t", after=["b"])], "m.jsonl:2: 'after' names 'b'"),
        (
            [Entry(id="a", task="t", after=["b"]), Entry(id="b", task="t", after=["a"])],
            "m.jsonl:2: entries wait for one another: 'a' (line 2) -> 'b' (line 3) -> 'a'; ",
        ),
    ],
)
def test_what_would_not_be_valid_is_not_written(
    tmp_path: Path, entries: list[Entry], expected: str
) -> None:
    """The reader's own rules decide, and the message names the file that was asked for."""
    with pytest.raises(ManifestError) as caught:
        write_manifest(tmp_path / "m.jsonl", HEADER, entries)
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    """Nothing is created on the way."""
    with pytest.raises(ManifestError, match=r"m\.jsonl: it cannot be written \(No such file"):
        write_manifest(tmp_path / "no" / "m.jsonl", HEADER, [CRUD])
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder in the way: the error names it, and no temporary file stays."""
    (tmp_path / "m.jsonl").mkdir()
    with pytest.raises(ManifestError, match=r"m\.jsonl: it cannot be written"):
        write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's reason is in the message, and nothing stays."""

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ManifestError, match=r"cannot be written \(No space left on device\)"):
        write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_for_a_small_manifest_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few lines are written when all are there, and that fails with the same words."""

    def full(_file: object, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    with pytest.raises(ManifestError, match=r"cannot be written \(No space left on device\)"):
        write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it takes its place, the folder after."""
    synced = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append((tmp_path / "m.jsonl").exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    assert synced == [False, True]


def test_the_umask_decides_about_the_mode(tmp_path: Path) -> None:
    """A manifest is as readable as any file that the user makes."""
    before = os.umask(0o027)
    try:
        write_manifest(tmp_path / "m.jsonl", HEADER, [CRUD])
    finally:
        os.umask(before)
    assert (tmp_path / "m.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The file that the link leads to is replaced, not the link."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "m.jsonl"
    link.symlink_to(tmp_path / "real" / "m.jsonl")
    write_manifest(link, HEADER, [CRUD])
    assert link.is_symlink()
    assert read_manifest(tmp_path / "real" / "m.jsonl").ids == ["crud-0001"]


printable = st.characters(exclude_categories=["C", "Z"]).filter(str.isprintable) | st.just(" ")
names = st.text(alphabet=printable, min_size=1, max_size=12)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=2)
spans = st.floats(min_value=0.001, max_value=1e9)
times = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 (hypothesis wants it so)
    max_value=datetime(9998, 12, 30),  # noqa: DTZ001
    timezones=st.timezones(),
)
expectations = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["succeeded", "failed", "crashed"]),
        "result": values,
        "max_runtime": spans,
        "max_wait": spans,
        "executions": st.integers(1, 5),
    },
).map(Expectations.model_validate)
entries = st.builds(
    Entry,
    id=names,
    task=names,
    args=st.lists(values, max_size=2),
    kwargs=objects,
    queue=st.none() | names,
    priority=st.none() | st.integers(0, 255),
    countdown=st.none() | spans,
    expires=st.none() | spans | times,
    timeout=spans,
    deadline=st.none() | spans,
    retries=st.integers(0, 10),
    idempotent=st.booleans(),
    tags=st.lists(names, max_size=2),
    cost=st.none() | spans,
    meta=objects,
    expect=expectations,
)
workflows = st.none() | names.filter(is_identifier)
headers = st.builds(Header, workflow=workflows, params=objects, planned_at=times)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(header=headers, plan=st.lists(entries, min_size=1, max_size=3, unique_by=lambda e: e.id))
def test_entries_survive_the_file(tmp_path: Path, header: Header, plan: list[Entry]) -> None:
    """Whatever ids, arguments and times there are: what is written is what is read."""
    written = write_manifest(tmp_path / "m.jsonl", header, plan)
    read = read_manifest(tmp_path / "m.jsonl")
    assert list(read) == plan
    assert [read[entry.id] for entry in plan] == plan
    sets = [entry.expect.model_fields_set & {"result"} for entry in plan]
    assert [entry.expect.model_fields_set & {"result"} for entry in read] == sets
    filled = {"entries": len(plan), "sha256": written.sha256}
    assert read.header == header.model_copy(update=filled)
    assert [dump_entry(entry) for entry in read] == [dump_entry(entry) for entry in plan]


@pytest.mark.parametrize(
    "given",
    [
        {"timeout": 300},
        {"expect": {"descendants": "succeeded"}},
        {"expect": {"descendants": {}}},
        {"expect": {"result": None}},
    ],
    ids=str,
)
def test_a_default_that_is_asked_for_is_written(given: dict[str, Any]) -> None:
    """Who says it gets more than who says nothing: its time is no task.s own limit."""
    entry = Entry.model_validate({"id": "a", "task": "t", **given})
    line = dump_entry(entry)
    assert json.loads(line) == {"id": "a", "task": "t", **given}
    again = Entry.model_validate_json(line)
    assert again.model_fields_set == entry.model_fields_set
    assert again.expect.model_fields_set == entry.expect.model_fields_set
