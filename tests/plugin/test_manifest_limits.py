"""``--manifest-limits`` and ``--manifest-allow`` hold in each process of xdist, and speak once."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import INI, Project

RESULT = {"type": "object", "description": "x" * (1 << 20)}
"""A JSON Schema that is larger than a manifest may have one, unless that is allowed."""
ENTRIES = (
    {"id": "a", "task": "jobs.double", "args": [1, "a"], "expect": {"schema": RESULT}},
    {"id": "b", "task": "jobs.double", "args": [2, "b"]},
)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "is_ini", [False, pytest.param(True, marks=pytest.mark.ring(2))], ids=["option", "ini"]
)
def test_xdist_workers_read_what_the_controller_may_read(project: Project, is_ini: bool) -> None:
    """Each process reads the manifest, with the same limits."""
    project.manifest("m.jsonl", ENTRIES)
    if is_ini:
        project.write("pytest.ini", f"{INI}manifest_limits = schema=2M\nmanifest_allow = jobs.*\n")
    given = () if is_ini else ("--manifest-limits=schema=2M", "--manifest-allow=jobs.*")
    project.run("--manifest=m.jsonl", "-n", "2", *given).assert_outcomes(passed=2)
    assert project.ran() == {"a": 1, "b": 1}


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--manifest-limits=schema=1K", "*m.jsonl:1:*--manifest-limits='schema=...'*"),
        pytest.param(
            "--manifest-allow=shop.*",
            "*nothing was sent: 'jobs.double' may not be sent: *",
            marks=pytest.mark.ring(2),
        ),
    ],
)
def test_xdist_is_refused_in_one_sentence(project: Project, given: str, said: str) -> None:
    """By the controller, however many processes there are; nothing is sent."""
    project.manifest("m.jsonl", [{**ENTRIES[0], "expect": {"schema": {"title": "x" * 2000}}}])
    result = project.run("--manifest=m.jsonl", "-n", "2", given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert len([line for line in result.stderr.lines if line.startswith("ERROR")]) == 1
    result.stdout.no_fnmatch_line("*Traceback*")
    assert not project.ran()
