"""``--manifest-reuse``: what an earlier run has passed, the very same work, is not sent again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.plugin import allure_support
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.plugin.test_shards import merge
from tests.unit.cli_support import manifest

MEMORY = "--manifest-broker=memory://"
ALL = "--manifest-reuse=all"
XDIST = pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "2"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)

Row = dict[str, object]


def double(name: str, n: int = 1, **fields: object) -> Row:
    return {"id": name, "task": "jobs.double", "kwargs": {"n": n, "key": name}, **fields}


def earlier(project: Project, names: Sequence[str], *arguments: str) -> Path:
    """Run these entries, which pass; return the ledger."""
    project.manifest("old.jsonl", [double(name) for name in names])
    project.run("--manifest=old.jsonl", *arguments).assert_outcomes(passed=len(names))
    return project.ledgers()[-1]


def summary(project: Project) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        project.ledgers()[-1].with_suffix(".summary.json").read_text("utf-8")
    )
    return document


@XDIST
def test_only_what_is_new_is_sent(project: Project, xdist: tuple[str, ...]) -> None:
    """Of a new plan three entries passed before: one is sent, four pass, and it says so."""
    old = earlier(project, "abc", MEMORY)
    project.manifest("new.jsonl", [double(name) for name in "abcd"])
    result = project.run("--manifest=new.jsonl", MEMORY, ALL, *xdist)
    result.assert_outcomes(passed=4)
    assert project.ran() == {"a": 1, "b": 1, "c": 1, "d": 1}
    result.stdout.fnmatch_lines(
        [
            f"note: new.jsonl: reuses 3 of 4 entries, from run {old.stem} (3)",
            "new.jsonl: run *, 4 entries: 4 passed (3 reused)",
            f"  3 entries reused from run {old.stem} (3)",
        ]
    )


def test_last_is_the_run_of_the_same_file_before(project: Project) -> None:
    """Also where another file ran since, and where the file was edited."""
    project.manifest("new.jsonl", [double("a")])
    project.run("--manifest=new.jsonl", MEMORY).assert_outcomes(passed=1)
    last = project.ledgers()[-1]
    earlier(project, "bc", MEMORY)
    project.manifest("new.jsonl", [double(name) for name in "abc"])
    result = project.run("--manifest=new.jsonl", MEMORY, "--manifest-reuse=last")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [f"note: new.jsonl: reuses 1 of 3 entries, from run {last.stem} (1)"]
    )


def test_every_report_tells_what_was_reused(project: Project) -> None:
    """And none counts its time, its worker or its cost as this run's."""
    old = earlier(project, "ab", MEMORY)
    project.manifest("new.jsonl", [double(name) for name in "abc"])
    reports = ("--junitxml=r.xml", "--alluredir=allure")
    project.run(
        "--manifest=new.jsonl", MEMORY, f"--manifest-reuse={old.stem}", *reports,
        "-o", "junit_family=xunit1", "--manifest-report=r.md",
    ).assert_outcomes(passed=3)  # fmt: skip
    document = summary(project)
    assert document["statistics"]["reused"] == {old.stem: 2}
    assert document["statistics"]["runtime"]["count"] == 1
    assert sum(row["jobs"] for row in document["statistics"]["workers"]) == 1
    by_id = {row["id"]: row for row in document["succeeded"]}
    assert by_id["c"]["reused_from"] is None
    assert by_id["a"]["reused_from"]["run"] == old.stem
    assert (by_id["a"]["attempts"], by_id["a"]["runtime"]) == (0, None)
    assert by_id["a"]["sentence"].startswith(f"Reused from run {old.stem}: ")
    cases = (project.path / "r.xml").read_text("utf-8").split("<testcase")[1:]
    told = {
        re.findall(r'"manifest_entry" value="(\w)"', case)[0]: (
            f'"manifest_reused_from" value="{old.stem}"' in case,
            "manifest_runtime" in case,
        )
        for case in cases
    }
    assert told == {"a": (True, False), "b": (True, False), "c": (False, True)}
    allure = allure_support.results(project.path / "allure")
    tags = {name: allure_support.labels(allure.of(name), "tag") for name in "abc"}
    assert tags == {"a": ["reused"], "b": ["reused"], "c": []}
    assert f"run {old.stem}, entry 'a', attempt 1" in allure.of("a")["description"]
    assert "2 entries reused from 1 run" in (project.path / "r.md").read_text("utf-8")


def test_audits_and_resumes_keep_what_was_reused(project: Project) -> None:
    """By its ledger, by its exported receipts alone; and only what failed is sent again."""
    old = earlier(project, "ab", MEMORY)
    project.break_("c")
    flaky = {"id": "c", "task": "jobs.flaky", "kwargs": {"key": "c"}, "idempotent": True}
    project.manifest("new.jsonl", [double("a"), double("b"), flaky])
    project.run("--manifest=new.jsonl", MEMORY, ALL).assert_outcomes(passed=2, failed=1)
    (project.path / "broken-c").unlink()
    old.unlink()  # what was taken from it is in the new ledger
    audit = ("--manifest=new.jsonl", "--manifest-audit")
    result = project.run(*audit)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"  2 entries reused from run {old.stem} (2)"])
    receipts = project.ledgers()[-1].with_suffix(".receipts.jsonl")
    result = project.run(*audit, f"--manifest-receipts={receipts}")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"  2 entries reused from run {old.stem} (2)"])
    result = project.run("--manifest=new.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["resume: sends 'c': failed"])
    assert project.ran() == {"a": 1, "b": 1, "c": 2}


def test_changed_code_is_run(project: Project) -> None:
    earlier(project, "a", MEMORY)
    jobs = project.path / "jobs.py"
    jobs.write_text(f"{jobs.read_text('utf-8')}\nMORE = 1\n", "utf-8")
    project.manifest("new.jsonl", [double("a")])
    result = project.run("--manifest=new.jsonl", MEMORY, ALL)
    result.assert_outcomes(passed=1)
    assert project.ran() == {"a": 2}
    result.stdout.fnmatch_lines(
        ["note: new.jsonl: 1 entry is not reused, having passed with other code *"]
    )


def test_a_budget_is_for_what_is_sent(project: Project) -> None:
    """What is reused was paid for; what is not must be within it."""
    project.manifest("old.jsonl", [double(name, cost=2.0) for name in "ab"])
    project.run("--manifest=old.jsonl", MEMORY).assert_outcomes(passed=2)
    project.manifest("new.jsonl", [double(name, cost=2.0) for name in "abc"])
    budget = ("--manifest=new.jsonl", MEMORY, ALL)
    result = project.run(*budget, "--manifest-budget=1")
    result.stderr.fnmatch_lines(["*nothing was sent: 1 entry is estimated to cost 2,*"])
    assert len(project.ledgers()) == 1
    project.run(*budget, "--manifest-budget=2").assert_outcomes(passed=3)
    assert project.ran() == {"a": 1, "b": 1, "c": 1}


def test_one_test_for_many_entries_tells_it_as_well(project: Project) -> None:
    """With what is to be sent left in the file; what waits for a reused entry is sent."""
    earlier(project, "ab", MEMORY)
    rows = [double("a"), double("b"), double("c", after=["a"])]
    project.manifest("new.jsonl", rows)
    result = project.run("--manifest=new.jsonl", MEMORY, ALL, "--manifest-aggregate=task")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["new.jsonl: run *, 3 entries: 3 passed (2 reused)"])
    assert project.ran() == {"a": 1, "b": 1, "c": 1}


def test_an_entry_that_was_reused_may_be_taken_out(project: Project) -> None:
    """It is neither sent nor judged, and the run is not red for it; a later plan may have it."""
    old = earlier(project, "ab", MEMORY)
    project.manifest("new.jsonl", [double("a"), double("b")])
    project.run("--manifest=new.jsonl", MEMORY, ALL).assert_outcomes(passed=2)
    project.manifest("new.jsonl", [double("b"), double("c")])
    audit = project.run("--manifest=new.jsonl", "--manifest-audit")
    audit.assert_outcomes(passed=1, errors=1)
    audit.stdout.no_fnmatch_line("*contradict*")
    with_more = ("--manifest=new.jsonl", MEMORY, ALL)
    project.run(*with_more).assert_outcomes(passed=2)
    assert "its record is consistent" in manifest("check", *map(str, project.ledgers()))
    project.manifest("newer.jsonl", [double("a"), double("b")])
    result = project.run("--manifest=newer.jsonl", MEMORY, ALL)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [f"note: newer.jsonl: reuses 2 of 2 entries, from run {old.stem} (2)"]
    )
    assert project.ran() == {"a": 1, "b": 1, "c": 1}


def test_shards_of_several_machines_are_merged_and_reused(project: Project) -> None:
    """Each has its own copy of the earlier run; what was merged is judged, and reused, as one."""
    old = earlier(project, "abcd", MEMORY)
    shutil.copytree(project.path / ".manifest", project.path / "machine-2")
    project.manifest("new.jsonl", [double(name) for name in "abcdef"])
    made = []
    for number, folder in enumerate((".manifest", "machine-2"), 1):
        shard = (f"--manifest-shard={number}/2", "-o", f"manifest_dir={folder}")
        project.run("--manifest=new.jsonl", MEMORY, ALL, *shard).assert_outcomes(passed=3)
        found = (project.path / folder / "runs").glob("*.sqlite")
        made += [path for path in found if path.stem != old.stem]
    merged = merge(project, made)
    result = project.run("--manifest=new.jsonl", "--manifest-audit", f"--manifest-run={merged}")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines([f"  4 entries reused from run {old.stem} (4)"])
    project.manifest("newer.jsonl", [double(name) for name in "abcdefg"])
    result = project.run("--manifest=newer.jsonl", MEMORY, f"--manifest-reuse={merged}")
    result.assert_outcomes(passed=7)
    runs = {old.stem: 4, **{path.stem: 1 for path in made}}
    assert summary(project)["statistics"]["reused"] == runs
    assert project.ran() == dict.fromkeys("abcdefg", 1)
    assert "its record is consistent" in manifest("check", str(project.ledgers()[-1]))


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_workers_own_code_decides(project: Project, broker: str) -> None:
    """It is asked before anything is sent: it may have started before the code was changed here."""
    stack = (f"--manifest-broker={broker}", "--manifest-app=jobs:app")
    with worker(project, broker, *INSTRUMENTED):
        earlier(project, "ab", *stack)
        project.manifest("new.jsonl", [double(name) for name in "abc"])
        result = project.run("--manifest=new.jsonl", *stack, ALL)
        result.assert_outcomes(passed=3)
        assert project.ran() == {"a": 1, "b": 1, "c": 1}
    jobs = project.path / "jobs.py"
    before = jobs.read_text("utf-8")
    jobs.write_text(f"{before}\nMORE = 1\n", "utf-8")
    with worker(project, broker, *INSTRUMENTED):
        jobs.write_text(before, "utf-8")
        project.manifest("other.jsonl", [double("a")])
        result = project.run("--manifest=other.jsonl", *stack, ALL)
        result.stdout.fnmatch_lines(["note: other.jsonl: reuses none of 1 entry"])
    assert project.ran()["a"] == 2


@pytest.mark.ring(2)
@pytest.mark.live
def test_of_workers_that_tell_no_code_nothing_is_reused(project: Project, broker: str) -> None:
    """A stock worker beside an instrumented one may get any of the jobs."""
    stack = (f"--manifest-broker={broker}", "--manifest-app=jobs:app")
    with worker(project, broker, *INSTRUMENTED):
        earlier(project, "a", *stack)
        with worker(project, broker, name="stock"):
            project.manifest("new.jsonl", [double("a")])
            result = project.run("--manifest=new.jsonl", *stack, ALL)
            result.assert_outcomes(passed=1)
    assert project.ran() == {"a": 2}
    result.stdout.fnmatch_lines(
        ["note: new.jsonl: 1 entry is not reused, as no worker says, *'jobs.double'"]
    )


@pytest.mark.ring(2)
@pytest.mark.live
def test_the_private_stack_reuses_what_it_has_run_before(project: Project) -> None:
    """Also a whole tree: of a job that starts others, all are of the same code."""
    from tests.plugin.test_descendants import STARTING, starting

    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + STARTING)
    tree = starting("root", ["double", 1, "x"], ["double", 2, "y"])
    project.manifest("old.jsonl", [double("a"), tree])
    project.run("--manifest=old.jsonl").assert_outcomes(passed=2)
    project.manifest("new.jsonl", [double("a"), tree, double("b")])
    result = project.run("--manifest=new.jsonl", ALL)
    result.assert_outcomes(passed=3)
    assert project.ran()["x"] == project.ran()["a"] == project.ran()["b"] == 1
    assert summary(project)["statistics"]["descendants"]["number"] == 0
