"""The tests of a change: the nearest by the graph of imports, as many as there is time for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import grimp
import pytest
from grimp.exceptions import SourceSyntaxError

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
    "tests.plugin.test_sessions": set[str](),
    "tests.workflows.unit.test_jobs": set[str](),
    "jobs": {"tests.workflows.unit.test_jobs", "tests.plugin.test_sessions"},
    "tests.chaos.test_faults": {"p.top"},
}
"""Who imports each module of a project."""
SOURCES = {
    **dict.fromkeys(IMPORTERS, ""),
    "p.leaf": 'SHOWN = Path(__file__).with_name("assets")',
    "p.middle": 'RULES = TESTS / "rules.toml"',
}
"""What stands in the modules."""
HOUSE = ["tests/house/test_words.py"]


def chosen(*files: str, seconds: float = 100, costs: dict[str, float] | None = None) -> list[str]:
    """The names of the tests that these files lead to."""
    modules = changed.changed_modules(files, SOURCES)
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
        ("p/assets/page.css", ["leaf", "middle", "words", "supported", "top"]),
        ("tests/rules.toml", ["middle", "supported", "top", "words"]),
        ("tests/les.toml", ["words"]),
        ("p/deleted.py", ["leaf", "middle", "top", "supported", "words"]),
        ("tests/unit/test_deleted.py", ["words"]),
        ("tests/unit/notes.txt", ["leaf", "middle", "supported", "top", "words"]),
        ("jobs.py", ["jobs", "words"]),
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
    """By the ring that has it: also tests that need servers, and a changed one of ring 2."""
    far = {"tests.unit.test_a": 1, "tests.unit.test_b": 1, "tests.plugin.test_c": 1}
    far |= {"tests.live.test_d": 0, "tests.live.test_e": 1}
    later = ["tests/live/test_d.py", "tests/live/test_e.py"]
    found = changed.selected(far, ["tests/live/test_d.py"], HOUSE, {}, 1, later)
    assert found == changed.Selection(["tests/unit/test_a.py"], 3, 2)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit, which has the files ``kept`` and ``gone``."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LC_ALL", "C")
    root = tmp_path / "a clone"
    root.mkdir()
    git(root, "init", "--initial-branch=main")
    commit(root, "kept", "gone")
    return root


def git(root: Path, *words: str) -> None:
    somebody = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *somebody, *words], cwd=root, check=True, capture_output=True)


def commit(root: Path, *names: str) -> None:
    """Commit new files of these names."""
    for name in names:
        root.joinpath(name).write_text(name)
    git(root, "add", ".")
    git(root, "commit", "-m", "Change")


def test_what_was_changed_is_what_git_would_commit(repository: Path) -> None:
    """New files and deleted ones, too; in a folder of a larger repository those of the folder."""
    repository.joinpath("new one").touch()
    repository.joinpath("kept").write_text("otherwise")
    repository.joinpath("gone").unlink()
    assert changed.changed_files(root=repository) == ["gone", "kept", "new one"]
    folder = repository / "folder"
    folder.mkdir()
    commit(repository, "folder/old")
    folder.joinpath("old").unlink()
    assert changed.changed_files(root=folder) == ["old"]


def test_where_nothing_was_changed_the_last_commit_is_looked_at(repository: Path) -> None:
    """The first one, and a merge, too: of it what it brought to the branch."""
    assert changed.changed_files(root=repository) == ["gone", "kept"]
    git(repository, "checkout", "-b", "other")
    commit(repository, "others")
    git(repository, "checkout", "main")
    commit(repository, "ours")
    git(repository, "merge", "--no-ff", "-m", "Merge", "other")
    assert changed.changed_files(root=repository) == ["others"]


def test_a_branch_is_compared_with_where_it_left_another(repository: Path) -> None:
    """What the other has had since was not changed by the branch."""
    git(repository, "checkout", "-b", "ours")
    commit(repository, "ours")
    git(repository, "checkout", "main")
    commit(repository, "theirs")
    git(repository, "checkout", "--detach", "ours")
    repository.joinpath("new").touch()
    assert changed.changed_files("main", repository) == ["new", "ours"]


def test_what_git_does_not_know_is_said(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(changed.UnknownChangesError, match="does not say what was changed: fatal: "):
        changed.changed_files("nonsense", repository)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(changed.UnknownChangesError, match="not a git repository"):
        changed.changed_files(root=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(changed.UnknownChangesError, match="git is not installed"):
        changed.changed_files(root=repository)


def test_without_changes_that_are_known_the_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a syntax error is in no graph; the other checks go on."""

    def refuse(*_: object, **__: object) -> None:
        raise SourceSyntaxError("module.py", 3, "def (")

    monkeypatch.setattr(grimp, "build_graph", refuse)
    monkeypatch.setattr(changed, "changed_files", lambda _: ["module.py"])
    found = quick.tests_of_changes(None, 0.0)
    assert not found.holds
    assert "module.py, line 3: def (" in found.output


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
    found = quick.judged(status, output, changed.Selection(["a", "b", "c"], 4))
    assert (found.holds, found.note) == (holds, f"{line}; 4 more files are left to make test")


def test_what_is_left_to_another_ring_is_said() -> None:
    found = quick.judged(0, "2 passed in 0.10s\n", changed.Selection(["a"], 4, 2))
    assert (
        found.note == "2 passed, of 1 files; 4 more files are left to make test, 2 to make test-all"
    )


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
