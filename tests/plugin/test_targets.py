"""Reports that cannot be written: told before anything is sent, or a failure of the session."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
VANISHES = """
import pathlib, shutil

def pytest_manifest_dispatched():
    shutil.rmtree("out")
    pathlib.Path("out").write_text("in the way")
"""


def test_what_cannot_be_written_is_told_before_anything_is_sent(project: Project) -> None:
    """The folder that is named is a file: nothing runs, and there is no ledger."""
    project.write("notes", "mine")
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=notes/run.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --manifest-report=*: cannot be written (*"])
    assert not project.ran()
    assert project.ledgers() == []
    assert (project.path / "notes").read_text() == "mine"


def test_plans_of_tests_are_not_sent_without_their_reports(project: Project) -> None:
    """Also where the command line names no manifest."""
    project.write("notes", "mine")
    project.doubles(count=1)
    project.write(
        "test_it.py",
        "import pytest\n"
        "@pytest.mark.manifest('m.jsonl')\n"
        "def test_it(entry, receipt): assert receipt\n",
    )
    result = project.run("test_it.py", MEMORY, "--manifest-report=notes/run.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not project.ran()


@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        (["out/run.html", "out/run.json"], ["run.md"]),
        (["out/run.md"], ["run.html", "run.json"]),
    ],
    ids=["page and summary", "markdown"],
)
def test_a_report_that_fails_at_the_end_fails_the_session(
    project: Project, lost: list[str], kept: list[str]
) -> None:
    """All jobs have passed, and the other reports are there."""
    project.write("conftest.py", VANISHES)
    project.write("out/old", "")
    project.doubles(count=1)
    reports = [f"--manifest-report={one}" for one in (*lost, *kept)]
    result = project.run("--manifest=m.jsonl", MEMORY, *reports, "--junitxml=run.xml")

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = [line for line in result.outlines if "was not written, so this session fails: " in line]
    assert len(told) == len(lost)
    for name in (*kept, "run.xml"):
        assert (project.path / name).is_file()
    assert project.ledgers()[-1].with_suffix(".summary.json").is_file()
    assert project.ledgers()[-1].with_suffix(".receipts.jsonl").is_file()


def test_reports_are_written_though_another_plugins_fails(project: Project) -> None:
    project.write("conftest.py", "def pytest_sessionfinish():\n    raise OSError('no room')\n")
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=run.html")
    assert result.ret != pytest.ExitCode.OK
    assert (project.path / "run.html").is_file()
    assert project.verdicts() == {"d-0": "passed"}
