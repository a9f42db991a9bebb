"""Tags choose tests by ``-m`` and ``-k``; they never act, as a marker of that name would."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.test_resume import MEMORY

ACTING = (
    "skip",
    "skipif",
    "xfail",
    "timeout",
    "usefixtures",
    "parametrize",
    "flaky",
    "filterwarnings",
    "xdist_group",
    "owner:ann",
    "_hidden",
)

VERIFY = """
import pytest

@pytest.mark.skip(reason="not now")
def test_later(entry):
    pass

def test_now(entry, request):
    assert entry.id in request.node.keywords
"""


@pytest.fixture
def red(project: Project) -> Project:
    """A run of entries that all fail, each with a tag of its own name."""
    rows = [
        {"id": f"e-{tag}", "task": "jobs.fail", "kwargs": {"message": tag}, "tags": [tag]}
        for tag in ACTING
    ]
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.assert_outcomes(failed=len(ACTING))
    return project


AUDIT = ("--manifest=m.jsonl", "--manifest-audit", "--strict-markers")


@pytest.mark.ring(2)
def test_no_tag_groups_tests_under_xdist(red: Project) -> None:
    result = red.run(*AUDIT, "-m", "skip or timeout or flaky", "-n", "2", "--dist=loadgroup")
    result.assert_outcomes(failed=3)


def test_no_tag_hides_a_failure_and_each_one_selects(red: Project) -> None:
    """With plugins that know a marker of that name, by -m and -k, and by node ids."""
    others = len(ACTING) - 3
    result = red.run(*AUDIT, "-m", "skip or timeout or flaky")
    result.assert_outcomes(failed=3, deselected=others)
    result = red.run(*AUDIT, "-k", "xfail or hidden or ann")
    result.assert_outcomes(failed=3, deselected=others)
    named = [f"m.jsonl::entry[e-{tag}]" for tag in ("xfail", "xdist_group", "xfail")]
    result = red.run(*AUDIT, "--keep-duplicates", *named, "-m", "xfail or skip")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1, deselected=1)


def test_a_marker_acts_as_ever_beside_a_tag_of_its_name(project: Project) -> None:
    """A test that is marked is skipped, one that is of a tagged entry is not; -m finds both."""
    rows = [
        {"id": name, "task": "jobs.double", "args": [1], "tags": ["skip", name]} for name in "ab"
    ]
    project.manifest("m.jsonl", rows)
    project.write("test_mine.py", VERIFY)
    arguments = ("--manifest=m.jsonl", "test_mine.py", MEMORY)
    project.run(*arguments, "-m", "skip").assert_outcomes(passed=2, skipped=2)
