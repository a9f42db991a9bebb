"""What is refused changes nothing: no ledger, no verdict, no run that would be the newest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.test_resume import MEMORY, double, flaky

SOUND = {"expect": {"schema": {"type": "object"}}}
"""An expectation: without one --manifest-strict would refuse an entry for that."""


def ledgers_as_they_are(project: Project) -> Mapping[str, bytes]:
    """Every file of a run that tells what became of it, by name; each ledger in its one file."""
    for path in project.ledgers():
        with Ledger.open(path, write=True) as ledger:
            ledger.compact()
    folder = project.path / ".manifest" / "runs"
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in (".sqlite", ".jsonl", ".json")
    }


@pytest.fixture
def bought(project: Project) -> Project:
    """Two passed entries and a failed one, each of an estimated cost of 1."""
    project.break_("c")
    rows = [double("a", 1), double("b", 2), flaky("c", idempotent=True)]
    project.manifest("m.jsonl", [{**row, **SOUND, "cost": 1} for row in rows])
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2, failed=1)
    return project


def refused(project: Project, *arguments: str) -> pytest.RunResult:
    result = project.run(MEMORY, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return result


def test_what_the_budget_refuses_leaves_the_ledger_as_it_was(bought: Project) -> None:
    """What had failed is too dear to be sent again: its verdict stands."""
    project = bought
    before = ledgers_as_they_are(project)
    result = refused(project, "--manifest=m.jsonl", "--manifest-resume", "--manifest-budget=0.5")
    result.stderr.fnmatch_lines(["*nothing was sent*--manifest-budget is 0.5*"])
    assert ledgers_as_they_are(project) == before
    assert project.verdicts() == {"a": "passed", "b": "passed", "c": "failed"}
    assert project.ran() == {"a": 1, "b": 1, "c": 1}


def test_one_run_that_is_refused_stops_all_of_the_session(bought: Project) -> None:
    """The first manifest could be gone on with; the second one's task is known to nobody."""
    project = bought
    project.manifest("n.jsonl", [{**flaky("x", idempotent=True), **SOUND, "task": "jobs.nobody"}])
    project.run("--manifest=n.jsonl", MEMORY).assert_outcomes(failed=1)
    before = ledgers_as_they_are(project)
    result = refused(
        project,
        "--manifest=m.jsonl",
        "--manifest=n.jsonl",
        "--manifest-resume",
        "--manifest-strict",
    )
    result.stderr.fnmatch_lines(["*no worker knows the task 'jobs.nobody'*"])
    assert ledgers_as_they_are(project) == before
    assert project.ran() == {"a": 1, "b": 1, "c": 1}


def test_a_dispatch_that_is_refused_never_was(bought: Project) -> None:
    """A second run that is refused, be it with --manifest-rerun, is not gone on with instead."""
    project = bought
    project.manifest("n.jsonl", [{"id": "x", "task": "jobs.nobody", **SOUND}])
    (ledger,) = project.ledgers()
    with Ledger.open(ledger, write=True) as writing:
        writing.info.set_status("running")  # its pytest was killed
    before = ledgers_as_they_are(project)
    arguments = ("--manifest=m.jsonl", "--manifest=n.jsonl", "--manifest-strict")
    result = refused(project, *arguments, "--manifest-rerun")
    result.stderr.fnmatch_lines(["*no worker knows the task 'jobs.nobody'*"])
    assert ledgers_as_they_are(project) == before
    assert list(ledger.parent.glob("2*.lock")) == [ledger.with_suffix(".lock")]
    (project.path / "broken-c").unlink()
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=3)
    assert project.ran() == {"a": 1, "b": 1, "c": 2}


def test_what_a_broker_has_left_stays_where_going_on_is_refused(bought: Project) -> None:
    """The jobs that were queued are still there for the next --manifest-resume."""
    project = bought
    left = project.path / ".manifest" / "stacks" / "left"
    left.mkdir(parents=True, mode=0o700)
    (left / "mine").touch()
    (ledger,) = project.ledgers()
    with Ledger.open(ledger, write=True) as writing:
        writing.info.set_meta("stack_data", str(left))
    before = ledgers_as_they_are(project)
    result = project.run("--manifest=m.jsonl", "--manifest-resume", "--manifest-budget=0.5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert ledgers_as_they_are(project) == before
    assert (left / "mine").exists()


# One manifest, two files


def copies(project: Project, *, rerun: bool) -> tuple[str, str]:
    header = {"manifest": 1, "rerun": rerun}
    rows = [json.dumps(row) + "\n" for row in (header, double("a", 1))]
    for name in ("m.jsonl", "n.jsonl"):
        Path(project.path / name).write_text("".join(rows), "utf-8")
    return "--manifest=m.jsonl", "--manifest=n.jsonl"


def test_two_copies_of_what_must_not_be_repeated_are_refused(project: Project) -> None:
    """Neither is sent, also where all is to be sent again; what may be repeated is sent twice."""
    both = copies(project, rerun=False)
    for more in ((), ("--manifest-rerun",)):
        result = refused(project, *both, *more)
        result.stderr.fnmatch_lines(["*m.jsonl and n.jsonl are the same manifest*give one of them"])
    assert project.ran() == {}
    project.run(both[0], MEMORY).assert_outcomes(passed=1)
    result = refused(project, *both, "--manifest-resume")
    result.stderr.fnmatch_lines(["*m.jsonl and n.jsonl are both of run *give one of them"])
    assert project.ran() == {"a": 1}
