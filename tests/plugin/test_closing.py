"""The end of the terminal's output is the answer: what came of the run, why, and what to do."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.plugin.conftest import Project
from tests.plugin.ways import PLAIN

MEMORY = "--manifest-broker=memory://"
TWO = ("-n", "2")
VERIFY = """
import pytest
from pathlib import Path

def ran(name, receipt):
    with (Path(__file__).parent / f"{name}.txt").open("a") as file:
        file.write(f"{receipt.entry}\\n")

def test_first(entry, receipt):
    ran("first", receipt)

def test_second(receipt, entry):
    ran("second", receipt)
"""


def batch(project: Project, *, good: int = 12) -> None:
    """Entries that fail in four ways: 6 raise an error, 4 another one, 2 and 1 return nothing."""
    rows: list[dict[str, object]] = [
        {"id": f"good-{n}", "task": "jobs.double", "args": [n], "expect": {"max_runtime": 60}}
        for n in range(good)
    ]
    rows += [{"id": f"luck-{n}", "task": "jobs.fail", "args": ["no luck"]} for n in range(6)]
    rows += [{"id": f"sum-{n}", "task": "jobs.double", "args": [{}, n]} for n in range(4)]
    wrong = {"expect": {"result": {"n": 1}}}
    rows += [{"id": f"odd-{n}", "task": "jobs.double", "args": [4], **wrong} for n in range(2)]
    rows.append({"id": "name", "task": "jobs.doubel"})
    project.manifest("m.jsonl", rows)


def closing(result: pytest.RunResult) -> list[str]:
    """The lines of the last block but pytest's own last line."""
    assert re.fullmatch(r"=+ .* in [\d.]+s.* =+", result.outlines[-1])
    headings = [n for n, line in enumerate(result.outlines) if line.startswith("===")]
    return result.outlines[headings[-2] : -1]


@pytest.mark.parametrize(
    "workers", [PLAIN, pytest.param(TWO, id="xdist", marks=pytest.mark.ring(2))]
)
def test_the_end_is_the_answer(project: Project, workers: Sequence[str]) -> None:
    """Counts, the largest causes, what to do first, how to go on, and where all of it is."""
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=r.html", *workers)
    assert result.ret == 1
    lines = closing(result)
    assert len(lines) == 8
    assert lines[0].strip("= ") == "m.jsonl: 12 failed, 12 passed, 1 unknown_task of 25 entries"
    assert re.fullmatch(
        r"  6  ValueError at jobs\.py:\d+ in fail: luck-0, luck-1, luck-2 and 3 more", lines[1]
    )
    assert re.fullmatch(
        r"  4  TypeError at jobs\.py:\d+ in double: sum-0, sum-1, sum-2 and 1 more", lines[2]
    )
    assert lines[3:5] == [
        "  2  result.n is not as expected: odd-0, odd-1 (and 1 more cause)",
        "  first: start from the worker's traceback (m.jsonl:13)",
    ]
    assert lines[5] == f"  to run these again: pytest --manifest=m.jsonl --lf {MEMORY}"
    assert lines[6] == "  page      r.html"
    assert re.fullmatch(r"  ledger    \.manifest/runs/\S+\.sqlite", lines[7])
    assert "short test summary info" in result.outlines[-len(lines) - 15]


def test_the_command_at_the_end_runs_what_failed(project: Project) -> None:
    """And nothing else."""
    project.break_("b")
    keys = [{"id": key, "task": "jobs.flaky", "args": [key]} for key in "abc"]
    project.manifest("m.jsonl", keys)
    result = project.run("--manifest=m.jsonl", MEMORY)
    command = next(line for line in closing(result) if "pytest" in line).partition("pytest ")[2]
    (project.path / "broken-b").unlink()
    again = project.run(*command.split())
    again.assert_outcomes(passed=1, deselected=2)
    assert project.order() == ["a", "b", "c", "b"]


def test_a_run_that_passes_says_so_at_the_end(project: Project) -> None:
    project.doubles()
    lines = closing(project.run("--manifest=m.jsonl", MEMORY))
    assert lines[0].strip("= ") == "m.jsonl: 6 passed of 6 entries"
    assert [line.split()[0] for line in lines[1:]] == ["ledger"]


def test_quietly_the_end_is_the_run(project: Project) -> None:
    """With what is to be done, if anything."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.fail", "args": ["x"], "idempotent": True},
            {"id": "b", "task": "jobs.double", "args": [1], "after": ["a"]},
        ],
    )
    lines = project.run("--manifest=m.jsonl", MEMORY, "-q").outlines
    end = next(n for n, line in enumerate(lines) if line.startswith("m.jsonl: run "))
    assert lines[end].endswith(" 2 entries: 1 failed, 1 skipped")
    assert lines[-2] == f"  to go on: pytest --manifest=m.jsonl --manifest-resume {MEMORY}"
    assert lines.index("FAILED m.jsonl::entry[a] - ValueError: x") < end


@pytest.mark.ring(2)
@pytest.mark.parametrize("width", [40, 80])
def test_the_end_fits(project: Project, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Whatever ids and errors are, commands and paths excepted, which are to be copied."""
    monkeypatch.setenv("COLUMNS", str(width))
    project.manifest(
        "m.jsonl",
        [{"id": f"{'x' * 150}{n}", "task": "jobs.fail", "args": ["w" * 300]} for n in range(5)],
    )
    lines = closing(project.run("--manifest=m.jsonl", MEMORY))
    assert len(lines) <= 8
    assert [line for line in lines[1:4] if len(line) > width and "pytest" not in line] == []


@pytest.mark.parametrize(
    "workers", [PLAIN, pytest.param(TWO, id="xdist", marks=pytest.mark.ring(2))]
)
def test_a_cause_shows_three_failures(project: Project, workers: Sequence[str]) -> None:
    """The others are counted; their names, pytest's count and other reports have all."""
    batch(project)
    result = project.run("--manifest=m.jsonl", MEMORY, "--junitxml=j.xml", *workers)
    assert titles(result) == {
        *(f"luck-{n}" for n in range(3)),
        *(f"sum-{n}" for n in range(3)),
        *(f"odd-{n}" for n in range(2)),
        "name",
    }
    assert "4 more failures of the same causes not shown (-v shows all)" in result.outlines
    assert sum(line.startswith("FAILED ") for line in result.outlines) == 13
    result.assert_outcomes(failed=13, passed=12)
    cases = ET.parse(project.path / "j.xml").iter("testcase")
    failures = [one.find("failure") for one in cases if one.find("failure") is not None]
    assert len(failures) == 13
    assert all("jobs." in (one.text or "") for one in failures if one is not None)
    whole = project.run("--manifest=m.jsonl", "--manifest-audit", "-v")
    assert len(titles(whole)) == 13


def test_failures_of_other_kinds_are_all_shown(project: Project) -> None:
    """What a project's own tests say, and tests of no entry, are nobody's repetition."""
    workflow(project, [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(6)])
    project.write(
        "workflows/films/verify.py",
        "def test_each(receipt, entry):\n    assert receipt.result['n'] < 0\n",
    )
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.assert_outcomes(failed=6)
    assert len(titles(result, "test_each")) == 6


def titles(result: pytest.RunResult, test: str = "entry") -> set[str]:
    """The entries whose failures pytest shows with their text."""
    found = re.findall(rf"^_+ (?:ERROR at setup of )?{test}\[(.*)\] _+$", result.stdout.str(), re.M)
    return set(found)


def workflow(project: Project, rows: Sequence[dict[str, object]]) -> None:
    project.write("workflows/films/verify.py", VERIFY)
    header = {"manifest": 1, "workflow": "films", "entries": len(rows)}
    lines = [json.dumps(one) + "\n" for one in (header, *rows)]
    project.write("m.jsonl", "".join(lines))


def lines_of(path: Path) -> list[str]:
    return sorted(path.read_text().split()) if path.exists() else []


@pytest.mark.ring(2)
@pytest.mark.parametrize("workers", [PLAIN, pytest.param(TWO, id="xdist")])
def test_one_failed_job_fails_one_test(project: Project, workers: Sequence[str]) -> None:
    """The other tests of its entry are skipped with its name, and --lf runs all of them again."""
    keys = [f"k-{n}" for n in range(8)]
    for key in keys[:3]:
        project.break_(key)
    workflow(project, [{"id": key, "task": "jobs.flaky", "args": [key]} for key in keys])
    result = project.run("--manifest=m.jsonl", MEMORY, "--junitxml=j.xml", "-rs", *workers)
    assert result.ret == 1
    result.assert_outcomes(failed=3, skipped=3, passed=10)
    said = "entry 'k-0' has failed already, in workflows/films/verify.py::test_first[[]k-0[]]"
    result.stdout.fnmatch_lines([f"SKIPPED * {said}"])
    report = (project.path / "j.xml").read_text()
    assert report.count("<skipped ") == 3
    assert report.count("has failed already") >= 3

    for key in keys[:3]:
        (project.path / f"broken-{key}").unlink()
    again = project.run("--manifest=m.jsonl", MEMORY, "--lf", *workers)
    again.assert_outcomes(passed=6, deselected=0 if workers else 10)
    verified = project.path / "workflows" / "films"
    assert lines_of(verified / "first.txt") == lines_of(verified / "second.txt") == keys


@pytest.mark.parametrize(("mark", "outcome"), [("xfail", "xfailed"), ("skip", "skipped")])
def test_a_test_that_may_fail_or_is_skipped_hides_none(
    project: Project, mark: str, outcome: str
) -> None:
    """A session in which the other tests of the entry are skipped would be green."""
    workflow(project, [{"id": "f", "task": "jobs.fail", "args": ["x"]}])
    marked = VERIFY.replace("def test_first", f"@pytest.mark.{mark}\ndef test_first")
    project.write("workflows/films/verify.py", marked)
    result = project.run("--manifest=m.jsonl", MEMORY)
    assert result.ret == 1
    result.assert_outcomes(**{outcome: 1, "failed": 1})


def test_allure_shows_one_failure_of_a_job(project: Project) -> None:
    """As in the terminal: with its history, the other test is not broken but did not run."""
    workflow(project, [{"id": "f", "task": "jobs.fail", "args": ["x"]}])
    project.run("--manifest=m.jsonl", MEMORY, "--alluredir=allure")
    found = [json.loads(one.read_text()) for one in (project.path / "allure").glob("*-result.json")]
    assert sorted(one["status"] for one in found) == ["failed", "skipped"]
