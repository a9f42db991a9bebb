"""Files of a session that cannot be written, or read: verdicts stay, and a sentence names them."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

pytestmark = pytest.mark.usefixtures("in_memory")

NO_JUNIT = """
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    Path("junit.xml").mkdir()
"""
"""A conftest.py that puts something in the report's way, once all tests have run."""


def test_a_junit_report_that_cannot_be_written_hides_no_verdict(project: Project) -> None:
    """pytest itself fails to write it; the session is red, and tells of its run all the same."""
    project.doubles(count=2)
    project.write("conftest.py", NO_JUNIT)
    result = project.run("--manifest=m.jsonl", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "m.jsonl: run *, 2 entries: 2 passed",
            "*/junit.xml: pytest could not write its report: *Is a directory*--manifest-audit*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stderr.no_fnmatch_line("*Traceback*")


def test_a_junit_report_that_cannot_be_written_hides_no_refusal(project: Project) -> None:
    """Where nothing was sent, the sentence that says why is shown all the same."""
    project.doubles(count=2)
    project.write("conftest.py", NO_JUNIT)
    project.write(".manifest/runs", "a file where the folder should be")
    result = project.run("--manifest=m.jsonl", "--junitxml=junit.xml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["note: */junit.xml: pytest could not write its report: *"])
    result.stderr.fnmatch_lines(["ERROR: *.manifest/runs*cannot be written*nothing was sent*"])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_allures_files_of_a_run_that_cannot_be_written_fail_the_session(project: Project) -> None:
    """The other files are written, and the results are there."""
    project.doubles(count=2)
    project.write("allure/categories.json/in-its-way", "")
    result = project.run("--manifest=m.jsonl", "--alluredir=allure", "-q")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*Allure's files about the run were not written, so this session fails: *categories*",
            "2 passed*",
        ]
    )
    result.stderr.no_fnmatch_line("*Traceback*")
    assert len(list((project.path / "allure").glob("*-result.json"))) == 2
    assert list((project.path / ".manifest/runs").glob("*.summary.json"))


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_allures_results_that_cannot_be_written_fail_the_session(
    project: Project, workers: tuple[str, ...]
) -> None:
    """The tests have passed, and whoever looks at Allure alone must not find fewer of them."""
    project.doubles(count=2)
    project.write(
        "conftest.py",
        """
from pytest_manifest.reporting.allure import hooks


def refuse(folder, stem, result, mode):
    raise OSError(28, "No space left on device", f"{folder}/{stem}-result.json")


hooks.write_result = refuse
""",
    )
    result = project.run("--manifest=m.jsonl", "--alluredir=allure", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*Allure's results were not all written to */allure: No space*"])


def test_a_ledger_that_cannot_be_read_any_more_ends_the_session(project: Project) -> None:
    """By its sentence; what the run goes on to write is for --manifest-resume."""
    project.doubles(count=2)
    project.write(
        "conftest.py",
        """
from pytest_manifest.errors import LedgerError
from pytest_manifest.plugin.verdict_reader import VerdictReader


def refuse(self):
    raise LedgerError("run.sqlite: the ledger cannot be read now; try again")


VerdictReader.refresh = refuse
""",
    )
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*run.sqlite: the ledger cannot be read now; try again*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_figures_that_make_no_document_end_no_session(project: Project) -> None:
    """As of a ledger in which somebody has edited what no worker can report."""
    project.doubles(count=2)
    project.write(
        "conftest.py",
        """
from pytest_manifest.reporting import descendants

descendants.number_of = lambda counts: -1
""",
    )
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*it has no figures: *the ledger is damaged*", "*the summary was not written*"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
