"""``--manifest-report``: a page about each run, written where it is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"


def data_of(path: Path) -> dict[str, Any]:
    """The data within a page."""
    match = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8")
    )
    assert match is not None
    document: dict[str, Any] = json.loads(match[1])
    return document


def outcomes(data: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in data["figures"]["outcomes"].items() if count}


def test_a_run_has_its_page(project: Project) -> None:
    """With what came of every entry; the summary names the file."""
    project.doubles()
    done = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=build/run.html")
    done.assert_outcomes(passed=6)
    done.stdout.fnmatch_lines(["  page * build/run.html"])
    data = data_of(project.path / "build" / "run.html")
    assert data["rows"]["id"] == [f"d-{n}" for n in range(6)]
    assert outcomes(data) == {"passed": 6}
    assert data["run"]["status"] == "finished"
    assert data["run"]["id"] == project.ledgers()[-1].stem


def test_without_the_option_there_is_no_page(project: Project) -> None:
    """Nobody who does not ask for it pays for it."""
    project.doubles()
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=6)
    assert not list(project.path.rglob("*.html"))


def test_each_of_several_runs_has_a_page_of_its_own(project: Project) -> None:
    """Beside the file that was named, with the run's id in the name."""
    project.doubles("one.jsonl", 2)
    project.doubles("two.jsonl", 3)
    done = project.run(
        "--manifest=one.jsonl", "--manifest=two.jsonl", MEMORY, "--manifest-report=run.html"
    )
    done.assert_outcomes(passed=5)
    pages = sorted(path.name for path in project.path.glob("*.html"))
    assert pages == sorted(f"run-{ledger.stem}.html" for ledger in project.ledgers())
    counts = {len(data_of(path)["rows"]["id"]) for path in project.path.glob("*.html")}
    assert counts == {2, 3}


def test_the_setting_is_below_the_root(project: Project) -> None:
    """Wherever pytest is started; an audit and a resumed run have pages, too."""
    project.write(
        "pytest.ini", "[pytest]\nmanifest_app = jobs:app\nmanifest_report = out/run.html\n"
    )
    manifest = project.manifest(
        "m.jsonl",
        [
            {"id": key, "task": "jobs.flaky", "kwargs": {"key": key}, "idempotent": True}
            for key in ("a", "b")
        ],
    )
    page = project.path / "out" / "run.html"
    broken = project.break_("b")
    project.run(f"--manifest={manifest}", MEMORY).assert_outcomes(passed=1, failed=1)
    assert data_of(page)["figures"]["causes"][0]["title"].startswith("ValueError at jobs.py:")
    page.unlink()
    project.run(f"--manifest={manifest}", "--manifest-audit").assert_outcomes(passed=1, failed=1)
    assert outcomes(data_of(page)) == {"failed": 1, "passed": 1}
    page.unlink()
    broken.unlink()
    project.run(f"--manifest={manifest}", "--manifest-resume", MEMORY).assert_outcomes(passed=2)
    data = data_of(page)
    assert outcomes(data) == {"passed": 2}
    assert data["rows"]["tries"] == [1, 2]
    assert len(data["bars"]["row"]) == 3


@pytest.mark.ring(2)
def test_under_xdist_there_is_one_page(project: Project) -> None:
    """The controller writes it; the workers write none."""
    project.doubles()
    done = project.run("--manifest=m.jsonl", MEMORY, "-n2", "--manifest-report=run.html")
    done.assert_outcomes(passed=6)
    assert [path.name for path in project.path.glob("*.html")] == ["run.html"]
    assert outcomes(data_of(project.path / "run.html")) == {"passed": 6}


def test_a_comparison_is_in_the_page(project: Project) -> None:
    """What --manifest-compare tells in the terminal, the page tells too."""
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.flaky", "kwargs": {"key": "a"}}])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=1)
    project.break_("a")
    project.run(
        "--manifest=m.jsonl", MEMORY, "--manifest-compare=last", "--manifest-report=run.html"
    ).assert_outcomes(failed=1)
    found = data_of(project.path / "run.html")["comparison"]
    assert [change["id"] for change in found["newly_failing"]["items"]] == ["a"]
    assert found["before"]["run"] == project.ledgers()[0].stem


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--manifest-report=."], "*: it is a folder; name a file in it, like run.html*"),
        (
            ["--manifest-report=r.html", "--manifest-dispatch-only"],
            "*has pytest end before the jobs do; leave out --manifest-report=FILE.html*",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    project: Project, arguments: list[str], sentence: str
) -> None:
    """Before anything is sent."""
    project.doubles()
    done = project.run("--manifest=m.jsonl", MEMORY, *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([sentence])
    assert not project.ran()


def test_a_page_compares_with_the_last_run_of_its_manifest(project: Project) -> None:
    """Without being asked: what fails newly, what still fails, and what was fixed."""
    for key in "ab":
        project.break_(key)
    rows = [{"id": key, "task": "jobs.flaky", "args": [key]} for key in "abc"]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=one.html")
    assert data_of(project.path / "one.html")["comparison"] is None
    (project.path / "broken-a").unlink()
    project.break_("c")
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-report=two.html")
    found = data_of(project.path / "two.html")["comparison"]
    assert found["before"]["run"] == project.ledgers()[0].stem
    names = {
        kind: [one["id"] for one in found[kind]["items"]]
        for kind in ("newly_failing", "still_failing", "fixed")
    }
    assert names == {"newly_failing": ["c"], "still_failing": ["b"], "fixed": ["a"]}
    assert "since run" not in result.stdout.str(), "the terminal compares where it is asked to"


def test_a_page_says_how_one_entry_is_run_again(project: Project) -> None:
    """By a command that does so, and names the log of each private worker."""
    project.break_("a b")
    rows = [{"id": key, "task": "jobs.flaky", "args": [key]} for key in ("a b", "c")]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", "--manifest-report=build/run.html")
    data = data_of(project.path / "build" / "run.html")
    assert data["run"]["again"] == ["m.jsonl", ""]
    ((worker, log),) = data["run"]["logs"]
    assert worker == "manifest1"
    assert (project.path / "build" / log).resolve().is_file()
    assert data["figures"]["causes"][0]["step"] == "start from the worker's traceback"
    (project.path / "broken-a b").unlink()
    project.run("--manifest=m.jsonl", "m.jsonl::entry[a b]", MEMORY).assert_outcomes(passed=1)
    assert project.order() == ["a b", "c", "a b"]
