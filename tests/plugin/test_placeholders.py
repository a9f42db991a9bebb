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
def test_a_placeholder_is_refused_with_its_place(project: Project) -> None:
    """In the words of lint, and nothing is sent."""
    rows = [{"id": name, "task": "jobs.double", "args": [1, name]} for name in "ba"]
    project.manifest("m.jsonl", [rows[0], {**rows[1], "args": ["<fill in: int>", "a"]}])
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*m.jsonl:2: entry 'a': args[[]0[]] is still*"])
    assert not project.ran()


@pytest.mark.usefixtures("in_memory")
def test_a_plan_has_none_either(project: Project) -> None:
    """No file is written."""
    project.write("conftest.py", PLAN)
    result = project.run("--manifest-plan=first", "--manifest-plan-run")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*plan first:all: entry 'a': args[[]0[]] is still*"])
    assert not list(project.path.glob("**/*.jsonl"))
