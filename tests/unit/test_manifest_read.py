"""Reading manifests: what holds, what does not, and where a message points."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import Manifest, check_manifest, manifest_digest, read_manifest
from pytest_manifest.schema import Entry

A = b'{"id": "a", "task": "t"}\n'
B = b'{"id": "b", "task": "t"}\n'


def digest(data: bytes) -> str:
    """What sha256sum prints."""
    return hashlib.sha256(data).hexdigest()


def with_header(body: bytes, **fields: object) -> bytes:
    """A manifest with a header line before ``body``."""
    return json.dumps({"manifest": 1, **fields}).encode() + b"\n" + body


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    """Saves bytes as a manifest and returns its path."""

    def write(data: bytes) -> Path:
        path = tmp_path / "m.jsonl"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def faults(save: Callable[[bytes], Path]) -> Callable[[bytes], list[str]]:
    """What reading and checking find wrong with these bytes, without the path before it."""

    def find(data: bytes) -> list[str]:
        path = save(data)
        with pytest.raises(ManifestError) as read:
            read_manifest(path)
        with pytest.raises(ManifestError) as checked:
            check_manifest(path)
        assert str(read.value) == str(checked.value)
        return [line.removeprefix(f"{path}:").strip() for line in str(read.value).splitlines()]

    return find


def line(**fields: Any) -> bytes:
    """An entry's line with these fields."""
    return json.dumps({"id": "a", "task": "t", **fields}).encode() + b"\n"


NESTED = b'{"id": "a", "task": "t", "args": ' + b"[" * 200 + b"]" * 200 + b"}\n"
ABYSS = b'{"id": "a", "task": "t", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty; plan it again"),
        (with_header(b""), "there is a header but no entries, so nothing would be run"),
        (b"\n", "it has no entries, so nothing would be run; plan it again"),
        (b"# nothing\n", "it has no entries, so nothing would be run; plan it again"),
        (b"\n" + A, "1: the line is blank; remove it"),
        (b"\n" + with_header(A), "1: the line is blank; remove it"),
        (A + b"# b\n\n# c\n" + B, "3: the line is blank; remove it"),
        (A + b" # no comment\n", "2: bad JSON at column 2: expecting value"),
        (A + b"# cut off", "2: the last line has no newline, so the file may be cut off here"),
        (b"# one\n" + A + b'# two\n{"id": "b"}\n', "4: 'task' is missing"),
        (A + b"# two\n" + A, "3: entry id 'a' was used on line 1 already"),
        (A + b"#\n" + with_header(B), "3: a header may only be the first line; remove this one"),
        (A + b"  \t\n" + B, "2: the line is blank; remove it"),
        (A + b"\r\n" + B, "2: the line is blank; remove it"),
        (b"\xef\xbb\xbf" + A, "1: the file starts with a byte order mark (BOM); save it as UTF-8"),
        (A.decode().encode("utf-16"), "the file is UTF-16 or UTF-32; save it as UTF-8"),
        (
            A + b'{"id": "\xe9"}\n',
            "2: byte 0xe9 at byte 33 of the file is not UTF-8; save the file",
        ),
        (A + B[:-1], "2: the last line has no newline, so the file may be cut off here"),
        (A + B[:-3] + b"\n", "2: bad JSON at column 21: unterminated string starting; correct it"),
        (b"{'id': 1}\n", "1: bad JSON at column 2: expecting property name"),
        (A[:-1] + B, "1: bad JSON at column 25: there is more after the object; put each object"),
        (A[:-1] + b",\n", "1: bad JSON at column 25: there is more after the object"),
        (b"[1]\n", "1: the line is an array, but each line must be a JSON object; make it one"),
        (b"null\n", "1: the line is null, but"),
        (b"true\n", "1: the line is true or false, but"),
        (b"12\n", "1: the line is a number, but"),
        (b'"a"\n', "1: the line is text, but"),
        (b'{"id": "a", "id": "b", "task": "t"}\n', '1: duplicate key "id"; keep one of them'),
        (line(kwargs={"x": 1}).replace(b'"x": 1', b'"x": 1, "x": 1'), '1: duplicate key "x"'),
        (line(kwargs={"x": 1}).replace(b'"x": 1', b'"x": ":", "x" : 1'), '1: duplicate key "x"'),
        (
            line(kwargs={"x": 1}).replace(b'"x"', b'"\\u0061": "\\u003a", "a"'),
            '1: duplicate key "a"',
        ),
        (line(kwargs={"x": float("nan")}), "1: NaN is not JSON; use null or text"),
        (line(kwargs={"x": float("inf")}), "1: Infinity is not JSON; use null or text"),
        (line(kwargs={"x": -float("inf")}), "1: -Infinity is not JSON; use null or text"),
        (line(timeout=7).replace(b"7", b"1e999"), "1: the number 1e999 is too large"),
        (line(meta={"x": 7}).replace(b"7", b"-1e999"), "1: the number -1e999 is too large"),
        (line(args=[7]).replace(b"7", b"7" * 5000), "1: a number has more digits than can be read"),
        (NESTED, "1: 'args' holds more than 100 levels of nesting; flatten it"),
        (ABYSS, "1: the JSON is nested too deeply (at most 100 levels); flatten it"),
        (line(kwargs={"x": "\ud800"}), "1: 'kwargs' holds half of a surrogate pair at x"),
        (line(kwargs={"\udc00": 1}), "1: 'kwargs' holds half of a surrogate pair"),
        (line(id="\ud800"), "1: 'id' must be text of whole characters"),
        (line(**{"\ud800": 1}), "1: a field's name must be text of whole characters"),
        (line(id="a\x07b"), "1: 'id' must be printable text, but has the character U+0007"),
        (A.replace(b"t", b"\x01"), "1: bad JSON at column"),
        (line(timeout="30"), "1: 'timeout' must be a number, not \"30\"; write it without quotes"),
        (line(timeot=30), "1: unknown field 'timeot'; did you mean 'timeout'?"),
        (
            line(expect={"schema": {"items": {"$ref": "#/const"}, "const": 5}}),
            (
                "1: 'expect.schema' is not a valid JSON Schema (2020-12): "
                "items.$ref: refers to '#/const', which is no schema"
            ),
        ),
        (
            line(expect={"state": "failed", "error": {"match": "(a)\\1"}}),
            (
                "1: 'expect.error.match' is not a regular expression: it cannot be read, "
                "or needs look-around or back-references"
            ),
        ),
        (line(expect={"result_schema": {}}), "1: unknown field 'result_schema' in 'expect'"),
        (A + B + A, "3: entry id 'a' was used on line 1 already; ids must be unique"),
        (A + line(id="c", after=["a", "z"]), "2: 'after' names 'z', which no entry here has"),
        (A + with_header(B), "2: a header may only be the first line; remove this one"),
        (
            with_header(A, entries=2),
            "1: the header promises 2 entries but 1 follow: lines were cut",
        ),
        (
            with_header(A + B, entries=1),
            "1: the header promises 1 entries but 2 follow: lines were",
        ),
        (with_header(A, sha256=digest(B)), "1: the header's sha256"),
        (with_header(A, enties=1), "1: unknown field 'enties'; did you mean 'entries'?"),
        (with_header(A, manifest=2, x=1), "1: 'manifest' names a version of the format that this"),
    ],
)
def test_a_fault_is_named_with_its_line(
    faults: Callable[[bytes], list[str]], data: bytes, expected: str
) -> None:
    """Every fault says where it is, what it is, and what to do, and nothing else is made up."""
    found = faults(data)
    assert found[0].removeprefix(": ").find(expected) >= 0, found
    extra = [fault for fault in found[1:] if "unknown field 'x'" not in fault]
    assert extra == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"args": ["<fill in: int>", "a"]}, "args[0]"),
        ({"kwargs": {"n": 1, "key": {"of": "<fill in: int>"}}}, "kwargs.key.of"),
        ({"expect": {"result": {"n": "<fill in: int>"}}}, "expect.result.n"),
    ],
)
def test_a_placeholder_is_refused_where_the_file_is_to_be_sent(
    save: Callable[[bytes], Path], fields: dict[str, object], place: str
) -> None:
    """With its place; a file that was accepted before is not asked again."""
    path = save(B + line(**fields))
    with pytest.raises(ManifestError) as refused:
        read_manifest(path, is_new=True)
    said = f":2: entry 'a': {place} is still '<fill in: int>'; write its value"
    assert str(refused.value).endswith(said)
    assert read_manifest(path).ids == ["b", "a"]


def test_a_text_that_merely_speaks_of_filling_in_is_no_placeholder(
    save: Callable[[bytes], Path],
) -> None:
    """A prompt, for one."""
    prompt = "<fill in> the blanks: fill in: <fill in: nothing"
    manifest = read_manifest(save(line(args=[prompt])), is_new=True)
    assert [entry.args for entry in manifest] == [[prompt]]


def test_all_faults_of_a_file_are_listed_in_order(faults: Callable[[bytes], list[str]]) -> None:
    """Faults that are only known at the end stand at their line too."""
    found = faults(A + line(id="x", after=["y"]) + b"oops\n" + A + line(id="y", retries=-1))
    assert [fault.split(":")[0] for fault in found] == ["3", "4", "5"]


def test_twenty_faults_are_shown_and_the_others_counted(
    faults: Callable[[bytes], list[str]],
) -> None:
    """A file that is wrong everywhere does not fill the screen; the first lines come first."""
    found = faults(A * 2 + b"{\n" * 29)
    assert len(found) == 21
    assert found[0].startswith("2: entry id 'a'")
    assert found[19].startswith("21: ")
    assert found[20] == "... and 10 more"


def test_a_truncated_file_is_refused(faults: Callable[[bytes], list[str]]) -> None:
    """Cut off in the middle of a line: the line, the count and the digest all tell."""
    whole = with_header(A + B, entries=3, sha256=digest(A + B + A))
    found = faults(whole[:-4])
    assert [fault.split(":")[0] for fault in found] == ["1", "1", "3", "3"]


def test_a_cut_off_header_is_not_taken_for_an_entry(faults: Callable[[bytes], list[str]]) -> None:
    """A header that is bad JSON is one fault, not a second one about entries."""
    assert len(faults(b'{"manifest": 1, "entries"\n' + A)) == 1


def test_an_edited_file_is_refused_with_a_way_out(faults: Callable[[bytes], list[str]]) -> None:
    """The message says what to remove if the edit is meant; then the file is accepted."""
    (fault,) = faults(with_header(B, entries=1, sha256=digest(A)))
    assert "remove 'entries' and 'sha256' from the header" in fault


@pytest.mark.parametrize(
    "circle",
    [
        {"a": ["b"], "b": ["a"]},
        {"x": [], "a": ["b"], "b": ["c"], "c": ["x", "a"]},
        {"z": ["a"], "a": ["b"], "b": ["a"]},
    ],
)
def test_entries_that_wait_for_one_another_are_refused(
    faults: Callable[[bytes], list[str]], circle: dict[str, list[str]]
) -> None:
    """A run of such a file would never end; the way round is told, with the line of each."""
    lines = list(circle)
    (fault,) = faults(b"".join(line(id=key, after=after) for key, after in circle.items()))
    first, second = (f"{key!r} (line {lines.index(key) + 1})" for key in "ab")
    assert f"{lines.index('a') + 1}: entries wait for one another: {first}" in fault
    assert f"{first} -> {second} -> " in fault
    assert fault.endswith(
        "-> 'a'; none could ever be sent, so take one of these ids out of an 'after'"
    )


def test_every_circle_is_told(faults: Callable[[bytes], list[str]]) -> None:
    """Each way round is a fault of its own, in the order of lines."""
    waiting = {"a": ["b"], "b": ["a"], "x": list("qrstu"), **{key: ["x"] for key in "qrstu"}}
    found = faults(b"".join(line(id=key, after=after) for key, after in waiting.items()))
    ways = ["".join(re.findall(r"'(\w)' \(line", fault)) for fault in found]
    assert ways == ["ab", "xq", "xr", "xs", "xt", "xu"]


@pytest.mark.ring(2)
def test_a_long_circle_is_told_by_its_ends(faults: Callable[[bytes], list[str]]) -> None:
    """A sentence about 100,000 entries in a ring is one that can be read."""
    count = 100_000
    ring = b"".join(
        b'{"id":"%d","task":"t","after":["%d"]}\n' % (i, (i + 1) % count) for i in range(count)
    )
    (fault,) = faults(ring)
    assert "'4' (line 5) -> ... 99,990 more ... -> '99995' (line 99996)" in fault
    assert len(fault) < 600


def test_entries_may_wait_for_later_ones(save: Callable[[bytes], Path]) -> None:
    """The order of lines is no order of running."""
    data = line(id="a", after=["c", "b"]) + line(id="b", after=["c"]) + line(id="c")
    assert read_manifest(save(data)).ids == ["a", "b", "c"]


def test_a_long_chain_of_waiting_is_no_circle(save: Callable[[bytes], Path]) -> None:
    """100,000 entries, each of which waits for the next, do not exhaust the stack."""
    count = 100_000
    data = b"".join(b'{"id":"%d","task":"t","after":["%d"]}\n' % (i, i + 1) for i in range(count))
    assert check_manifest(save(data + line(id=str(count)))).entries == count + 1


@pytest.mark.parametrize("what", ["absent", "folder", "pipe"])
def test_what_is_no_file_is_one_clear_error(tmp_path: Path, what: str) -> None:
    """A wrong path says so, and names itself."""
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR)  # or opening it would wait for a writer
    try:
        with pytest.raises(ManifestError, match=f"{what}: (there is no such|it is a|it is not)"):
            read_manifest(path)
    finally:
        if what == "pipe":
            os.close(descriptor)


def test_a_file_of_bare_entries_is_valid(save: Callable[[bytes], Path]) -> None:
    """Without a header the digest is over all bytes, and the header is filled in."""
    manifest = read_manifest(save(A + B))
    assert manifest.ids == ["a", "b"]
    assert manifest.sha256 == digest(A + B)
    assert (manifest.header.entries, manifest.header.sha256) == (2, digest(A + B))
    assert manifest.header.workflow is None


def test_the_digest_is_what_sha256sum_shows(save: Callable[[bytes], Path]) -> None:
    """Over the bytes of all lines after the header, whatever the header says."""
    path = save(with_header(A + B, workflow="w"))
    assert read_manifest(path).sha256 == manifest_digest(path) == digest(A + B)
    assert manifest_digest(save(A + B)) == digest(A + B)


@pytest.mark.parametrize(
    ("before", "header", "after"),
    [
        (b"", False, b"# two\n" + A + b"# three\n#\n" + B + b"\n"),
        (b"# one\n", True, A + b"# two {\n" + B + b"# three\n\n \n"),
        (b"# one\n# fill in: \xff\n", True, b"# two\n" + A + B + b"\t"),
        (b"", True, b"#" * 70_000 + b"\n" + A + B),
    ],
)
@pytest.mark.parametrize("lean", [True, False])
def test_comments_and_a_blank_end_are_no_entries(
    before: bytes, header: bool, after: bytes, lean: bool, save: Callable[[bytes], Path]
) -> None:
    """Each entry keeps its number and its place in the file; the digest is of all bytes."""
    data = before + (with_header(after) if header else after)
    path = save(data)
    manifest = read_manifest(path, lean=lean, is_new=True)
    assert [entry.id for entry in manifest] == list(manifest.ids) == ["a", "b"]
    assert len(manifest) == manifest.header.entries == 2
    assert manifest.sha256 == manifest_digest(path) == digest(after if header else data)
    lines = data.splitlines(keepends=True)
    for raw, name in ((A, "a"), (B, "b")):
        number = lines.index(raw) + 1
        assert manifest.line_of(name) == number
        assert data[manifest.offset_of(name) :].startswith(raw)
        assert manifest[name].id == name
    assert [lines[number - 1] for number, _ in manifest.numbered()] == [A, B]
    assert [one.id for one in manifest.outlines()] == ["a", "b"]


def test_windows_line_ends_are_accepted(save: Callable[[bytes], Path]) -> None:
    """A carriage return is white space to JSON."""
    assert read_manifest(save((A + B).replace(b"\n", b"\r\n"))).ids == ["a", "b"]


def test_a_manifest_gives_entries_in_order_and_by_id(save: Callable[[bytes], Path]) -> None:
    """Streamed in the file's order, and each by its id; an unknown id is a KeyError."""
    body = line(id="é", args=[1]) + line(id="b", retries=2) + line(id="a/[::]")
    for data, first in ((body, 1), (with_header(body), 2)):
        manifest = read_manifest(save(data))
        assert len(manifest) == 3
        assert [entry.id for entry in manifest] == ["é", "b", "a/[::]"] == list(manifest.ids)
        assert manifest["b"] == Entry(id="b", task="t", retries=2)
        assert manifest["é"].args == [1]
        assert [entry.id for entry in manifest.some(["a/[::]", "é"])] == ["a/[::]", "é"]
        assert manifest.line_of("b") == first + 1
        assert "b" in manifest
        assert "z" not in manifest
        with pytest.raises(KeyError):
            manifest["z"]


@pytest.mark.parametrize("how", ["appended", "replaced", "removed"])
def test_a_file_that_changes_under_a_manifest_is_noticed(
    save: Callable[[bytes], Path], how: str
) -> None:
    """A frozen plan that thaws is an error, not a different batch."""
    path = save(A + B)
    manifest = read_manifest(path)
    if how == "appended":
        path.write_bytes(A + B + line(id="c"))
    elif how == "replaced":
        other = path.with_name("other")
        other.write_bytes(B + A)
        other.replace(path)
    else:
        path.unlink()
    with pytest.raises(ManifestError, match=r"m\.jsonl: (the file was changed|there is no such)"):
        list(manifest)
    with pytest.raises(ManifestError):
        manifest["a"]
    with pytest.raises(ManifestError):
        list(manifest.some(["a"]))


def test_a_manifest_survives_a_change_of_folder(
    save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative path keeps meaning the same file, and keeps being shown as it was given."""
    save(A)
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest(Path("m.jsonl"))
    monkeypatch.chdir("/")
    assert manifest["a"].id == "a"
    assert manifest.path == Path("m.jsonl")


def test_a_manifest_whose_file_was_moved_is_not_read_again(
    save: Callable[[bytes], Path], tmp_path: Path
) -> None:
    """Unless another file has that name: what is there is what counts."""
    manifest = read_manifest(save(A + B))
    moved, other = tmp_path / "moved.jsonl", tmp_path / "other.jsonl"
    manifest.path.rename(moved)
    other.write_bytes(B)
    assert [entry.id for entry in manifest.moved(moved)] == ["a", "b"]
    assert manifest.moved(other).ids == ["b"]


def test_outlines_parse_the_lines_that_may_have_tags_alone(
    save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all entries, and of some in any order; a key may be written with escapes."""
    tagged = b'{"id": "c", "task": "t", "tags": ["x", "y"]}\n'
    escaped = b'{"task": "t", "t\\u0061gs": ["z"], "id": "d"}\n'
    manifest = read_manifest(save(with_header(A + B + tagged + escaped)))
    parsed: list[str] = []
    parse = Manifest.parse

    def counted(self: Manifest, raw: bytes) -> Entry:
        parsed.append(parse(self, raw).id)
        return parse(self, raw)

    monkeypatch.setattr(Manifest, "parse", counted)
    found = [(one.id, one.task, list(one.tags)) for one in manifest.outlines()]
    assert found == [("a", "t", []), ("b", "t", []), ("c", "t", ["x", "y"]), ("d", "t", ["z"])]
    assert parsed == ["c", "d"]
    assert [one.id for one in manifest.outlines(["d", "a"])] == ["d", "a"]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "indexed"])
def test_entries_that_expect_nothing_are_counted(
    save: Callable[[bytes], Path], *, lean: bool
) -> None:
    """Of all, or among some; what is called ``expect`` elsewhere in a line is no expectation."""
    body = A + line(id="r", expect={"result": None})
    body += line(id="d", expect={"state": "succeeded", "executions": 1, "error": None})
    body += line(id="k", kwargs={"expect": {"result": 1}}) + line(
        id="s", expect={"state": "failed"}
    )
    body += b'{"id": "e", "task": "t", "\\u0065xpect": {"max_wait": 1}}\n'
    for data in (body, with_header(body)):
        manifest = read_manifest(save(data), lean=lean)
        assert manifest.expecting_nothing(most=9) == (3, ["a", "d", "k"])
        assert manifest.expecting_nothing(most=1) == (3, ["a"])
        assert manifest.expecting_nothing({"r", "k", "e", "s"}, most=9) == (1, ["k"])
        assert manifest.expecting_nothing(set(), most=9) == (0, [])


def test_ids_with_the_same_hash_are_told_apart(
    save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes of ids only raise a suspicion; the lines decide."""
    monkeypatch.setattr("pytest_manifest.manifest.scan.hash", lambda _: 7, raising=False)
    assert read_manifest(save(A + B)).ids == ["a", "b"]
    with pytest.raises(ManifestError, match=r"m\.jsonl:3: entry id 'b' was used on line 2"):
        read_manifest(save(A + B + B))


@pytest.mark.parametrize("header", [b"", b'{"manifest": 1}\n'], ids=["bare", "header"])
def test_a_file_with_the_same_bytes_is_the_same_file(
    save: Callable[[bytes], Path], header: bytes
) -> None:
    """Touched, or replaced by a checkout: only what its bytes say makes it another one."""
    path = save(header + A + B)
    manifest = read_manifest(path)
    path.touch()
    assert manifest["b"].id == "b"
    other = path.with_name("other")
    other.write_bytes(header + A + B)
    other.replace(path)
    assert [entry.id for entry in manifest] == ["a", "b"]
    path.write_bytes(header + B + A)
    with pytest.raises(ManifestError, match="the file was changed"):
        list(manifest)


def test_the_database_of_its_ids_is_closed(
    save: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are refused."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(database: str, isolation_level: None) -> sqlite3.Connection:
        opened.append(connect(database, isolation_level=isolation_level))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    read_manifest(save(A + B))
    with pytest.raises(ManifestError, match="was used on line 1 already"):
        read_manifest(save(A + A))
    assert len(opened) == 2
    for one in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            one.execute("SELECT 1")
