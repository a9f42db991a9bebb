"""Manifests in YAML: a value means what JSON says, and each fault has the line of the YAML."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import manifest_digest, read_manifest, yaml_file
from pytest_manifest.manifest.yaml_file import as_yaml, open_lines
from tests.unit.cli_support import as_json, make_run, manifest

NIGHTLY = """\
# each night
manifest: 1
rerun: false
entries:
- &first
  id: a
  task: shop.add
  kwargs: {x: 1}
  tags: [quick]

- <<: *first
  id: b
  after: [a]
"""
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest in YAML, in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nightly.yaml"
    path.write_text(NIGHTLY, "utf-8")
    return path


def value_of(path: Path, text: str) -> object:
    """What an argument is that is written like this."""
    path.write_text(f"- id: a\n  task: t\n  args:\n  - {text}\n", "utf-8")
    (entry,) = read_manifest(path)
    return entry.args[0]


def faults_of(path: Path, text: str) -> list[str]:
    path.write_text(text, "utf-8")
    with pytest.raises(ManifestError) as refused:
        read_manifest(path, is_new=True)
    return [f"{one.line}: {one.message}" for one in refused.value.faults]


def test_it_is_the_lines_that_it_stands_for(file: Path) -> None:
    """Header, entries and digest are those of a file with these lines."""
    lines = [
        {"id": "a", "task": "shop.add", "kwargs": {"x": 1}, "tags": ["quick"]},
        {"id": "b", "task": "shop.add", "kwargs": {"x": 1}, "tags": ["quick"], "after": ["a"]},
    ]
    written = [{"id": "b", **lines[1]}, lines[0]]
    assert [one.model_dump(exclude_unset=True) for one in read_manifest(file)] == lines
    other = file.with_suffix(".jsonl")
    with open_lines(file) as found:
        text = found.read()
    assert [json.loads(line) for line in text.splitlines()[1:]] == [written[1], written[0]]
    other.write_bytes(text)
    assert manifest_digest(file) == manifest_digest(other) == read_manifest(file).sha256
    assert read_manifest(file).header.rerun is False
    file.write_text(NIGHTLY.replace("# each night", "# each\n\n# night"), "utf-8")
    assert manifest_digest(file) == manifest_digest(other)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("n", "n")),
        *(("2026-12-01", "2026-12-01"), ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00Z")),
        *(("12:30", "12:30"), ("12:30:45", "12:30:45"), ("1.2.3", "1.2.3"), ("<<", "<<")),
        *(("1e3", 1000.0), ("-2", -2), ("0", 0), ("1.50", 1.5), ("1E-2", 0.01)),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *(
            ("'1e3'", "1e3"),
            ('"010"', "010"),
            ("!!str 7", "7"),
            ("&a !!str 1e3", "1e3"),
            ("&a 1e3", 1000.0),
            ('"null"', "null"),
        ),
        *(
            ("|\n    two\n    lines", "two\nlines\n"),
            ("{a: [1, {b: no}]}", {"a": [1, {"b": "no"}]}),
        ),
    ],
)
def test_a_value_means_what_json_says(tmp_path: Path, text: str, value: object) -> None:
    found = value_of(tmp_path / "m.yml", text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        *("010", "+1", "0x1F", "0o17", "0b1", "1_000", ".5", "1.", ".inf", "-.INF", ".nan", "00"),
    ],
)
def test_a_number_that_versions_of_yaml_read_differently_is_a_fault(
    tmp_path: Path, text: str
) -> None:
    (said,) = faults_of(tmp_path / "m.yaml", f"- id: a\n  task: t\n\n  args: [{text}]\n")
    assert said.startswith(f"4: {text!r} is a number in one version of YAML")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- id: a\n  task: t\n  id: b\n", ["3: 'id' is there twice; keep one"]),
        ("- id: a\n  kwargs: {1: 2}\n", ["2: the name '1' is no text; put it in quotes"]),
        ("- id: a\n  kwargs: {null: 2}\n", ["2: the name 'null' is no text; put it in"]),
        ("- id: a\n  [b]: 1\n", ["2: a name must be a text; write one"]),
        ("- <<: x\n  id: a\n", ["1: '<<' merges objects only; name one"]),
        ("- id: a\n\ttask: t\n", ["2: bad YAML: found character '\\t' that cannot start any tok"]),
        ("- id: a\n---\n- id: b\n", ["2: bad YAML: but found another document; correct it there"]),
        ("- a\n", ["1: an entry must be an object; make it one"]),
        ("a: 1\n", ["1: there is no list of entries; write the entries as a list, or as that of"]),
        ("- id: a\n  task: !!python/name:os.system x\n", ["2: the tag '!!python/name:os.system'"]),
        ("- id: a\n  args: [1" + "0" * 400 + ".5]\n", ["2: the number '1000000"]),
        ("", ["0: the file is empty; plan it again"]),
        (
            "# x\n- id: a\n  task: t\n  timeout: -1\n\n- id: a\n  task: t\n  after: [b]\n",
            [
                "2: 'timeout' must be greater than 0, not -1",
                "6: entry id 'a' was used on line 2 already; ids must be unique",
                "6: 'after' names 'b', which no entry here has; correct or remove",
            ],
        ),
        (
            "- id: a\n  task: t\n  after: [b]\n\n- id: b\n  task: t\n  after: [a]\n",
            ["1: entries wait for one another: 'a' (line 1) -> 'b' (line 5) -> 'a'; none could"],
        ),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, text: str, said: list[str]) -> None:
    found = faults_of(tmp_path / "m.yaml", text)
    assert [one[: len(begin)] for one, begin in zip(found, said, strict=True)] == said


def test_no_object_is_made_and_nothing_grows_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a tag nor aliases of aliases, nor one in itself, nor a deep nesting."""
    monkeypatch.setattr(yaml_file, "LARGEST", 1 << 17)
    trace = tmp_path / "ran"
    hostile = f"- id: a\n  task: !!python/object/apply:os.system ['touch {trace}']\n"
    faults_of(tmp_path / "m.yaml", hostile)
    assert not trace.exists()
    levels = "".join(f"  l{n}: &l{n} [{f'*l{n - 1}, ' * 9}]\n" for n in range(1, 12))
    (said,) = faults_of(tmp_path / "m.yaml", f"- id: a\n  l0: &l0 [x]\n{levels}")
    assert "its aliases make more than" in said
    (said,) = faults_of(tmp_path / "m.yaml", "- &a\n  id: a\n  meta: *a\n")
    assert "it is nested deeper than" in said
    for text in ("[" * 5000, f"x: {'[' * 5000}{']' * 5000}", "{a: " * 5000):
        (said,) = faults_of(tmp_path / "m.yaml", f"- id: a\n  args:\n   - {text}\n")
        assert said == "3: it is nested deeper than 100 levels; flatten it"


def test_half_of_a_surrogate_pair_is_said_as_in_json_lines(tmp_path: Path) -> None:
    """The file is UTF-8; two halves are a character, as there."""
    (said,) = faults_of(tmp_path / "m.yaml", '\n- id: a\n  task: t\n  args: ["\\ud800"]\n')
    assert said.startswith("2: 'args' holds half of a surrogate pair at [0]")
    assert value_of(tmp_path / "m.yaml", '"\\ud83d\\ude00"') == "\U0001f600"


def test_without_the_library_the_extra_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (said,) = faults_of(file, "- id: zz\n")
    assert said == "0: it is YAML, which needs an extra: pip install 'pytest-celery-manifest[yaml]'"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=st.lists(VALUES, max_size=3), kwargs=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_what_is_written_as_yaml_is_read_as_it_was(
    tmp_path: Path, args: list[object], kwargs: dict[str, object]
) -> None:
    fields = {"id": "on", "task": "null", "args": args, "kwargs": kwargs}
    line = json.dumps(fields, ensure_ascii=False).encode()
    path = tmp_path / "m.yaml"
    path.write_bytes(b"".join(one + b"\n" for one in as_yaml(iter([line, line]))))
    with open_lines(path) as found:
        assert [json.loads(one) for one in found] == [fields, fields]


def test_lines_shown_and_checked_are_those_of_the_file(file: Path) -> None:
    found = as_json("show", str(file))["entries"]
    assert isinstance(found, list)
    assert [one["line"] for one in found if isinstance(one, dict)] == [5, 11]
    assert manifest("lint", str(file)) == f"{file}: 2 entries, no fault\n"


def test_a_run_keeps_the_lines(file: Path) -> None:
    """So it can be shown after the file has changed, and while the library is missing."""
    path = make_run(file, 1, ["passed", "failed"])
    file.write_text("- id: c\n  task: t\n", "utf-8")
    assert "1 failed, 1 passed" in manifest("show", str(path))
    (kept,) = path.parent.glob("*.manifest.jsonl")
    assert read_manifest(kept).ids == ["a", "b"]
