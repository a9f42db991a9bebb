"""Where the test of an entry stands for pytest, its plugins and editors: at its entry's line."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
XDIST = pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)


def batch(project: Project) -> None:
    """On its four lines: one that passes, one that fails, one that waits for it, one that errs."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "args": [1]},
            {"id": "bad", "task": "jobs.double", "args": [1], "expect": {"result": {"n": 9}}},
            {"id": "held", "task": "jobs.double", "args": [1], "after": ["bad"]},
            {"id": "wrong", "task": "jobs.fail", "args": ["no\nluck"]},
        ],
    )


@XDIST
def test_tests_stand_at_their_entries_lines(project: Project, xdist: tuple[str, ...]) -> None:
    """In the list of tests and of failures; in JUnit, where its schema has a place."""
    batch(project)
    result = project.run(
        *("--manifest=m.jsonl", MEMORY, "-vv", "-rfs", "--tb=line", *xdist),
        *("--junitxml=r.xml", "-o", "junit_family=xunit1"),
    )
    result.assert_outcomes(passed=1, failed=2, skipped=1)
    text = result.stdout.str()
    assert "<-" not in text
    assert re.search(r"^SKIPPED \[1\] m\.jsonl: The job was held back", text, re.MULTILINE)
    assert f"{project.path}/m.jsonl:2: result.n is 2 where 9 was expected" in text
    cases = ET.parse(project.path / "r.xml").iter("testcase")
    assert {case.get("name"): (case.get("file"), case.get("line")) for case in cases} == {
        "entry[good]": ("m.jsonl", "0"),
        "entry[bad]": ("m.jsonl", "1"),
        "entry[held]": ("m.jsonl", "2"),
        "entry[wrong]": ("m.jsonl", "3"),
    }


def test_a_list_of_failures_has_room_for_their_reasons(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, "--tb=no")
    result.stdout.fnmatch_lines_random(
        [
            "FAILED m.jsonl::entry[[]bad] - result.n is 2 where 9 was expected",
            "FAILED m.jsonl::entry[[]wrong] - ValueError: no luck",
        ]
    )


def test_a_header_moves_the_lines(project: Project) -> None:
    batch(project)
    rows = (project.path / "m.jsonl").read_text("utf-8")
    project.write("m.jsonl", '{"manifest": 1}\n' + rows)
    result = project.run("--manifest=m.jsonl", MEMORY, "--tb=line")
    result.stdout.fnmatch_lines(["*/m.jsonl:3: result.n is 2 where 9 was expected"])


def test_a_projects_own_test_stands_where_it_is_written(project: Project) -> None:
    """But a verdict that fails it is about its entry's line."""
    batch(project)
    project.write("test_own.py", "def test_own(entry):\n    assert entry.id != 'good'\n")
    result = project.run("--manifest=m.jsonl", MEMORY, "test_own.py", "-rs", "--tb=line")
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED [[]1] test_own.py:1: The job was held back*",
            "*/m.jsonl:2: result.n is 2 where 9 was expected",
            "*/test_own.py:2: AssertionError: *",
        ]
    )


def test_verdicts_in_brief_show_no_command_of_a_terminal(project: Project) -> None:
    project.manifest("m.jsonl", [{"id": "x", "task": "jobs.fail", "args": ["\x1b[31ma\u202eb"]}])
    result = project.run("--manifest=m.jsonl", MEMORY, "--tb=no")
    result.stdout.fnmatch_lines(["FAILED m.jsonl::entry[[]x] - ValueError: a\\u202eb"])
