"""What ``manifest new`` left to be written is never sent: pytest refuses what lint refuses."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

PLAN = """
import pytest
from pytest_manifest import planning_fixture

@planning_fixture("first:all")
def first(plan):
    plan.add("jobs.double", id="a", args=["<fill in: int>"])
"""


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"args": ["<fill in: int>", "a"]}, "args[0]"),
        ({"kwargs": {"n": 1, "key": {"of": "<fill in: str>"}}}, "kwargs.key.of"),
        ({"args": [1, "a"], "expect": {"result": {"n": "<fill in: int>"}}}, "expect.result.n"),
    ],
)
def test_a_placeholder_is_refused_with_its_place(
    project: Project, fields: dict[str, object], place: str
) -> None:
    """In the words of lint, and nothing is sent."""
    entries = [{"id": "a", "task": "jobs.double", **fields}]
    project.manifest("m.jsonl", [{"id": "b", "task": "jobs.double", "args": [1, "b"]}, *entries])
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*m.jsonl:2: entry 'a': {place.replace('[', '[[]')} is still*"])
    assert not project.ran()


@pytest.mark.usefixtures("in_memory")
def test_a_plan_has_none_either(project: Project) -> None:
    """No file is written."""
    project.write("conftest.py", PLAN)
    result = project.run("--manifest-plan=first", "--manifest-plan-run")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*plan first:all: entry 'a': args[[]0[]] is still*"])
    assert not list(project.path.glob("**/*.jsonl"))


@pytest.mark.usefixtures("in_memory")
def test_a_text_that_merely_speaks_of_filling_in_is_sent(project: Project) -> None:
    """A prompt, for one."""
    prompt = "<fill in> the blanks: fill in: <fill in: nothing"
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.double", "args": [prompt, "a"]}])
    project.run("--manifest=m.jsonl").assert_outcomes(passed=1)
