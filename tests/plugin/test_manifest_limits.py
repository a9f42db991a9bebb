"""What a manifest may hold, and what may be sent, is said once, in one sentence."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

LARGE = {"title": "x" * (1 << 20)}
"""A JSON Schema that is larger than a manifest may have one."""


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("given", "schema", "said"),
    [
        ((), LARGE, "*m.jsonl:1: the JSON Schema in 'expect' has more than 1,048,576 bytes*"),
        pytest.param(
            ("--manifest-allow=shop.*",),
            {},
            "*nothing was sent: 'jobs.double' may not be sent: *",
            marks=pytest.mark.ring(2),
        ),
    ],
)
def test_xdist_is_refused_in_one_sentence(
    project: Project, given: tuple[str, ...], schema: dict[str, str], said: str
) -> None:
    """By the controller, however many processes there are; nothing is sent."""
    entry = {"id": "a", "task": "jobs.double", "args": [1, "a"], "expect": {"schema": schema}}
    project.manifest("m.jsonl", [entry])
    result = project.run("--manifest=m.jsonl", "-n", "2", *given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert len([line for line in result.stderr.lines if line.startswith("ERROR")]) == 1
    result.stdout.no_fnmatch_line("*Traceback*")
    assert not project.ran()
