"""``pytest_manifest_sections``: what projects add to the page of a run."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.test_run_page import data_of

RUN = ("--manifest=m.jsonl", "--manifest-broker=memory://", "--manifest-report=run.html")

SECTIONS = """
from pytest_manifest import PageSection


def pytest_manifest_sections(config, run):
    rows = [[receipt.entry, receipt.result["n"]] for receipt in run.receipts()]
    return [PageSection("Doubled", f"Of {len(run.manifest)}.", ["entry", "n"], rows, "entry")]
"""


@pytest.mark.parametrize(
    "more", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_project_adds_a_section(project: Project, more: tuple[str, ...]) -> None:
    """From the receipts of the run; the controller asks for it once, and so does an audit."""
    project.doubles(count=2)
    project.write("conftest.py", SECTIONS)
    project.run(*RUN, *more).assert_outcomes(passed=2)
    expected = [["d-0", 0], ["d-1", 2]]
    [found] = data_of(project.path / "run.html")["sections"]
    assert (found["title"], found["text"], found["rows"]) == ("Doubled", "Of 2.", expected)
    project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-report=audit.html", *more)
    assert data_of(project.path / "audit.html")["sections"] == [found]


def test_sections_stand_in_the_order_of_their_plugins(project: Project) -> None:
    """A hook that has nothing to add returns None."""
    project.doubles(count=1)
    project.write("conftest.py", SECTIONS)
    hook = "def pytest_manifest_sections(run):\n    return "
    project.write(
        "other.py", f"from pytest_manifest import PageSection\n{hook}[PageSection('Before')]\n"
    )
    project.write("nothing.py", f"{hook}None\n")
    project.run(*RUN, "-p", "other", "-p", "nothing").assert_outcomes(passed=1)
    titles = [one["title"] for one in data_of(project.path / "run.html")["sections"]]
    assert titles == ["Before", "Doubled"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('no grade')", "'no grade'"),
        ("return [{'title': 'x'}]", "of type dict; return a list of pytest_manifest.PageSection"),
    ],
)
def test_a_hook_that_fails_costs_its_sections_and_not_the_page(
    project: Project, body: str, message: str
) -> None:
    """The session fails and says why, the log where; the page has everything else."""
    project.doubles(count=2)
    project.write("conftest.py", f"def pytest_manifest_sections(run):\n    {body}\n")
    done = project.run(*RUN)
    done.assert_outcomes(passed=2)
    assert done.ret == 1
    assert "the run page has no added sections, so this session fails" in done.stdout.str()
    assert message in done.stdout.str()
    [ledger] = project.ledgers()
    assert ("KeyError" in ledger.with_suffix(".log").read_text("utf-8")) == ("KeyError" in body)
    data = data_of(project.path / "run.html")
    assert data["sections"] == []
    assert data["figures"]["outcomes"] == {"passed": 2}


def test_without_a_page_no_section_is_asked_for(project: Project) -> None:
    project.doubles(count=1)
    project.write("conftest.py", "def pytest_manifest_sections(run):\n    raise KeyError\n")
    done = project.run(*RUN[:2])
    done.assert_outcomes(passed=1)
    assert done.ret == 0


def test_a_report_that_fails_is_said_and_the_others_are_written(project: Project) -> None:
    """Its entries can be read more than once, and its error ends nothing."""
    project.doubles(count=2)
    project.write(
        "conftest.py",
        "def pytest_manifest_report(summary, entries):\n"
        "    ids = [one.id for one in entries]\n"
        "    assert ids == [one.id for one in entries]\n"
        "    raise KeyError(f'{ids} {summary.statistics.verdicts}')\n",
    )
    result = project.run("--manifest=m.jsonl", "--manifest-broker=memory://")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*own was not written, so this session fails: *'d-0', 'd-1'* {'passed': 2}*"]
    )
    assert list(project.path.glob(".manifest/runs/*.summary.json"))
