"""The ``dispatch`` fixture: where it may be overridden, and how often it runs."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
OVERRIDE = """
import pytest

@pytest.fixture(scope="session")
def dispatch(request):
    with open("prepared.txt", "a") as file:
        file.write("x")
    return request.getfixturevalue("dispatch")
"""


@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_an_override_in_the_root_conftest_is_used_once(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """A project may prepare something before anything is sent."""
    project.write("conftest.py", OVERRIDE)
    project.doubles(count=3)
    project.run("--manifest=m.jsonl", MEMORY, *xdist).assert_outcomes(passed=3)
    assert (project.path / "prepared.txt").read_text() == "x"


def test_an_override_that_would_not_be_seen_is_reported(project: Project) -> None:
    """An override in a nested conftest is refused with a sentence, and nothing is sent."""
    project.write("sub/conftest.py", OVERRIDE)
    project.write("sub/test_it.py", "def test_it(receipt): pass\n")
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", MEMORY, "sub")
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "move the override into the root conftest.py" in text
    assert not project.ran()


def test_an_override_that_raises_is_an_ordinary_error(project: Project) -> None:
    """The override's own traceback is shown, and nothing is sent."""
    project.write("conftest.py", OVERRIDE.replace("return request", "raise OSError('no seed')  #"))
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", MEMORY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*ERROR at setup of dispatch*", "*OSError: no seed*"])
    assert not project.ran()
