"""Which entries a test verifies, by its marks and fixtures; nothing is sent to find out."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.plugin.conftest import Project

MANIFEST = """{"manifest": 1, "mode": "night"}
{"id": "a", "task": "jobs.double", "tags": ["even", "small"]}
{"id": "b", "task": "jobs.double", "tags": ["odd"]}
{"id": "c", "task": "jobs.nap"}
"""
TESTS = """import pytest
entries = pytest.mark.entries

def test_all(entry): ...
def test_by_receipt(receipt): ...
def test_whole(manifest): ...
@entries(task="jobs.double")
def test_task(entry): ...
@entries(task="*.n?p")
def test_pattern(entry): ...
@entries(task=["*.nap", "*.double"])
def test_one_of_two(entry): ...
@entries(tag="odd")
def test_tag(entry): ...
@entries(tag="[es]*")
def test_any_tag(entry): ...
@entries(mode="n*")
def test_mode(entry): ...
@entries(mode="day")
def test_another_mode(entry): ...
@entries(task="*.double", tag="even")
def test_both(entry): ...
@entries(task="*.double")
@entries(tag="odd")
def test_two_marks(entry): ...
"""
SELECTED = {
    "all": "abc",
    "by_receipt": "abc",
    "whole": "m",
    "task": "ab",
    "pattern": "c",
    "one_of_two": "abc",
    "tag": "b",
    "any_tag": "a",
    "mode": "abc",
    "both": "a",
    "two_marks": "b",
}


def test_entries_are_selected_by_task_mode_and_tag(project: Project) -> None:
    """By patterns, of which one must match; and by each mark where there are several."""
    project.write("m.jsonl", MANIFEST)
    project.write("test_own.py", TESTS)
    result = project.run("--manifest=m.jsonl", "--collect-only", "-q", "test_own.py")
    found: dict[str, str] = defaultdict(str)
    for line in result.outlines:
        name, _, ids = line.rpartition("::")[2].partition("[")
        if ids:
            found[name.removeprefix("test_")] += ids.removesuffix("]")
    assert found == SELECTED
    assert not project.ran()


@pytest.mark.ring(2)
def test_another_keyword_is_refused(project: Project) -> None:
    project.doubles(count=1)
    project.write("test_own.py", f"{TESTS}@entries(queue='q')\ndef test_queue(entry): ...\n")
    result = project.run("--manifest=m.jsonl", "--collect-only", "test_own.py")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*@pytest.mark.entries knows task, mode and tag, not queue*"])
