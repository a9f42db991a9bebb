"""Who may read what a session leaves: its owner alone, and reports whom the options name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.plugin.conftest import INI, Project

MEMORY = "--manifest-broker=memory://"
REPORTS = (
    *("--manifest-report=out/a/run.html", "--manifest-report=out/b/run.json"),
    *("--manifest-report=out/run.md", "--alluredir=allure", "--junitxml=junit.xml"),
)


def modes(folder: Path) -> dict[str, str]:
    """Modes in octal digits of all that is below a folder, by path; sockets and links aside."""
    found = ((path, path.lstat().st_mode) for path in (folder, *folder.rglob("*")))
    return {
        str(path.relative_to(folder.parent)): f"{stat.S_IMODE(mode):03o}"
        for path, mode in found
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    }


def fail_one(project: Project, umask: str) -> None:
    """Run a batch with a failure in it, and with every report, under this umask."""
    project.write("conftest.py", f"import os\nos.umask(0o{umask})\n")
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1}},
            {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no"}},
        ],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, *REPORTS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_whatever_a_session_leaves_is_its_owners_alone(project: Project) -> None:
    """Even where the umask would have all files written to by everybody; but for pytest's own."""
    fail_one(project, "000")
    for name in (".manifest", "out"):
        found = modes(project.path / name)
        assert len(found) >= 4
        wrong = {path: mode for path, mode in found.items() if mode not in ("600", "700")}
        assert wrong == {}
    allure = modes(project.path / "allure")
    ours = {name: mode for name, mode in allure.items() if _is_ours(project.path / name)}
    assert len(ours) >= 5
    assert set(ours.values()) == {"600"}
    assert modes(project.path)[f"{project.path.name}/junit.xml"] == "666"


def _is_ours(path: Path) -> bool:
    """Whether a file of Allure's folder is of the run or of an entry's test."""
    return path.is_file() and not path.name.endswith("-container.json")


@pytest.mark.parametrize(
    ("asked", "folder"),
    [("640", "750"), pytest.param("644", "755", marks=pytest.mark.ring(2))],
)
def test_reports_are_shared_with_whom_the_option_names(
    project: Project, asked: str, folder: str
) -> None:
    """Whatever the umask says; the ledger and what is beside it stay private."""
    project.write("pytest.ini", f"{INI}manifest_report_mode = {asked}\n")
    fail_one(project, "077")
    assert set(modes(project.path / "out").values()) == {asked, folder}
    allure = modes(project.path / "allure")
    assert {allure[name] for name in allure if _is_ours(project.path / name)} == {asked}
    assert set(modes(project.path / ".manifest").values()) == {"600", "700"}
