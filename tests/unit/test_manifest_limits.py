"""Limits of a manifest: its lines, its nesting, its entries, its schemas, its faults."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import jsonl as module
from pytest_manifest.manifest import read_manifest
from pytest_manifest.manifest.jsonl import MAX_FAULTS, MOST_COUNTED, Faults, read_lines
from pytest_manifest.schema.json_values import MAX_DEPTH

ONE = b'{"id":"a","task":"t"}\n'
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """What is said of a file of this content, "" where it is taken."""

    def read(content: bytes, **limits: int) -> str:
        for name, most in limits.items():
            monkeypatch.setitem(module.LIMITS, name, most)
        path = tmp_path / "m.jsonl"
        path.write_bytes(content)
        try:
            read_manifest(path, is_new=True)
        except ManifestError as error:
            return str(error).replace(str(path), "m.jsonl")
        return ""

    return read


def entry(name: str, **fields: object) -> bytes:
    return json.dumps({"id": name, "task": "t", **fields}).encode() + b"\n"


def test_a_long_line_is_refused_before_it_is_read(refused: Refused) -> None:
    """With its number, and with what to do instead."""
    content = ONE + entry("b", args=["x" * 100])
    longest = len(content) - len(ONE)
    assert refused(content, line=longest) == ""
    said = refused(content, line=longest - 1)
    assert said.startswith("m.jsonl:2: the line has more than 1")
    assert said.endswith("the limit; keep what is large elsewhere, and give the task its place")


def test_lines_are_measured_with_their_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at the end may lack its one; no more of a line is read than tells that it is long."""
    for lines in ([b"\n"], [b"a\n", b"bcd\n", b"\n"], [b"abcde"], [b"", b"ab\n", b"abcdefgh"]):
        longest = max(map(len, lines))
        for most in range(1, 10):
            too_long = [n for n, raw in enumerate(filter(None, lines), 1) if len(raw) > most]
            monkeypatch.setitem(module.LIMITS, "line", most)
            found, file = None, io.BytesIO(b"".join(lines))
            try:
                list(read_lines(file, Faults(Path("m.jsonl"))))
            except ManifestError as error:
                found = error.faults[0].line
                before = sum(map(len, [*filter(None, lines)][: found - 1]))
                assert file.tell() == before + most + 1
            assert found == (too_long[0] if too_long else None), (lines, most)
            assert (found is None) is (longest <= most)


def test_too_many_entries_are_refused(refused: Refused) -> None:
    """As a fault of the file."""
    content = b"".join(entry(str(n)) for n in range(3))
    assert refused(content, entries=3) == ""
    assert refused(content, entries=2).startswith("m.jsonl: there are more than 2 entries, the")


def test_deep_nesting_is_refused_with_its_line(refused: Refused) -> None:
    content = ONE + entry("b", args=json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)))
    said = refused(content)
    assert said.startswith(f"m.jsonl:2: 'args' holds more than {MAX_DEPTH} levels")


def test_a_large_schema_is_refused_with_its_line(refused: Refused) -> None:
    """By its own bytes, not by those of its line."""
    schema = {"enum": ["x" * 50]}
    content = entry("a", args=["y" * 200]) + entry("b", expect={"schema": schema})
    assert refused(content, schema=100) == ""
    assert refused(content, schema=50).startswith("m.jsonl:2: the JSON Schema in 'expect' has more")


def test_a_file_that_was_accepted_before_has_no_limits(tmp_path: Path) -> None:
    """The kept copy of a run's manifest is read as it is."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(entry("b", args=["x" * 100]))
    assert len(read_manifest(path)) == 1


def test_a_file_that_is_wrong_everywhere_is_not_read_to_its_end(refused: Refused) -> None:
    """What is shown is shown, and the message says where the reading stopped."""
    said = refused(b'{"id": 1}\n' * 200_000).splitlines()
    assert len(said) == MAX_FAULTS + 1
    assert "up to line " in said[-1]
    assert int(said[-1].split("line ")[1].split(",")[0]) < 20 * MOST_COUNTED


def test_of_a_line_with_very_many_faults_their_number_is_reported(refused: Refused) -> None:
    """Each that is worded takes memory until it is."""
    said = refused(entry("a", **{f"x{n}": n for n in range(2 * MOST_COUNTED)}))
    assert said == "m.jsonl:1: the line has 2,000 faults; correct what writes it"
