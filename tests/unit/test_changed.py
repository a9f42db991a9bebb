"""The tests of a change: the nearest by the graph of imports, as many as there is time for."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests import changed, quick

IMPORTERS = {
    "p": set[str](),
    "p.leaf": {"p.middle", "tests.unit.test_leaf"},
    "p.middle": {"p.top", "tests.unit.test_middle", "tests.unit.support"},
    "p.top": {"tests.unit.test_top", "tests.live.test_servers"},
    "p.alone": set[str](),
    "tests.unit.support": {"tests.unit.test_supported"},
    "tests.unit.conftest": set[str](),
    "tests.unit.test_leaf": set[str](),
    "tests.unit.test_middle": set[str](),
    "tests.unit.test_top": set[str](),
    "tests.unit.test_supported": set[str](),
    "tests.live.test_servers": set[str](),
    "tests.chaos.test_faults": {"p.top"},
}
"""Who imports each module of a project."""
HOUSE = ["tests/house/test_words.py"]


def chosen(*files: str, seconds: float = 100, costs: dict[str, float] | None = None) -> list[str]:
    """The names of the tests that these files lead to."""
    modules = changed.changed_modules(files, IMPORTERS)
    far = changed.distances(changed.with_implied(IMPORTERS, modules), modules)
    found = changed.selected(far, files, HOUSE, costs or {}, seconds)
    return [Path(path).stem.removeprefix("test_") for path in found.files]


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("p/top.py", ["top", "words"]),
        ("p/middle.py", ["middle", "supported", "top", "words"]),
        ("p/leaf.py", ["leaf", "middle", "words", "supported", "top"]),
        ("p/alone.py", ["words"]),
        ("README.md", ["words"]),
        ("tests/unit/support.py", ["supported", "words"]),
        ("tests/unit/test_top.py", ["top", "words"]),
        ("tests/live/test_servers.py", ["servers", "words"]),
        ("tests/chaos/test_faults.py", ["top", "words"]),
        ("tests/unit/conftest.py", ["leaf", "middle", "supported", "top", "words"]),
        ("p/__init__.py", ["leaf", "middle", "top", "words", "supported"]),
        ("p/page.html", ["leaf", "middle", "top", "supported", "words"]),
    ],
)
def test_the_nearest_tests_are_taken_first(file: str, tests: list[str]) -> None:
    """Unit tests before the house among those equally far; others only where they were changed."""
    assert chosen(file) == tests


def test_as_many_are_taken_as_there_is_time_for() -> None:
    """The cheapest of those equally far first; a file that was never measured costs the mean."""
    costs = {"tests/unit/test_middle.py": 8.0, "tests/unit/test_supported.py": 2.0}
    assert chosen("p/middle.py", seconds=10, costs=costs) == ["middle", "supported"]
    assert chosen("p/middle.py", seconds=1, costs=costs) == ["middle"]
    assert chosen("p/middle.py", seconds=16, costs=costs) == ["middle", "supported", "top"]


def test_what_was_left_out_is_counted() -> None:
    found = changed.selected({"tests.unit.test_a": 1, "tests.unit.test_b": 1}, [], HOUSE, {}, 1)
    assert (found.files, found.left) == (["tests/unit/test_a.py"], 2)


def test_the_graph_is_the_projects_own() -> None:
    """A module's own tests are among those that import it, and scripts are known as one."""
    importers = changed.importers_of_modules()
    assert "tests.unit.test_changed" in importers["tests.changed"]
    assert importers["scripts"]


@pytest.mark.parametrize(
    ("status", "output", "holds", "line"),
    [
        (0, "..\nleft over: 0\n2 passed in 0.10s\n", True, "2 passed, of 3 files"),
        (
            *(1, "== 1 failed, 2 passed in 63.10s (0:01:03) ==\nleft over: 7\n", False),
            "1 failed, 2 passed, of 3 files; no time for 7 tests of them",
        ),
        (
            *(0, "left over: 7\nno tests ran in 50.10s\n", False),
            "no test ended, of 3 files; no time for 7 tests of them",
        ),
        (5, "left over: 0\n3 deselected in 0.10s\n", True, "3 deselected, of 3 files"),
        (4, "ERROR: no such file\n", False, "no test ended, of 3 files"),
    ],
)
def test_what_pytest_printed_is_a_line(status: int, output: str, holds: bool, line: str) -> None:
    """It does not hold where there was no time for any test."""
    found = quick.judged(status, output, 3, 4)
    assert (found.holds, found.note) == (holds, f"{line}; 4 more files are left to make test")


def test_each_check_has_a_line_and_what_fails_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checks are those of the environment; one that fails decides the status."""
    module = tmp_path / "module.py"
    module.write_text("import os\n")
    commands = {"rules": ("ruff", "check"), "format": ("ruff", "format", "--check")}
    given = {name: (*words, "--isolated", str(module)) for name, words in commands.items()}
    monkeypatch.setattr(quick, "COMMANDS", given)
    monkeypatch.setattr(sys, "argv", ["quick", "--only", *given])
    assert quick.main() == 1
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1] for line in printed.splitlines()[:2]}
    assert lines == {"rules": "FAILED", "format": "ok"}
    assert "`os` imported but unused" in printed


def test_the_project_passes_a_check_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quick", "--only", "layers"])
    assert quick.main() == 0
    assert capsys.readouterr().out.startswith("layers   ok ")


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_no_test_begins_once_time_is_over(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: tuple[str, ...]
) -> None:
    """They are counted, and what the others had set up is taken down."""
    until = time.time() + 3600
    monkeypatch.setenv(quick.UNTIL_VARIABLE, str(until))
    pytester.makepyfile(
        f"""
        import pytest, time
        from pathlib import Path

        @pytest.fixture(scope="session", autouse=True)
        def server():
            yield
            Path("taken-down").touch()

        def test_first():
            time.time = lambda: {until}

        def test_second(): assert False
        def test_third(): assert False
        """
    )
    done = pytester.runpytest_subprocess("-p", "tests.quick", "-p", "no:manifest", *processes)
    done.stdout.fnmatch_lines(["left over: 2", "*1 passed in *"])
    assert (pytester.path / "taken-down").exists()
