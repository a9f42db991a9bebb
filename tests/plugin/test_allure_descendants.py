"""The tasks that a job starts are steps of its entry's result, nested as one started the other."""

from __future__ import annotations

import json

from tests.plugin import allure_support as allure
from tests.plugin.allure_support import MEMORY, Result
from tests.plugin.conftest import Project

TREE = """


@app.task(name="jobs.leaf")
def leaf(n, fails=False):
    if fails:
        raise ValueError(f"leaf {n} breaks")
    return n


@app.task(name="jobs.branch")
def branch(count):
    for n in range(count):
        leaf.delay(n)


@app.task(name="jobs.tree")
def tree(branches, fails=False):
    for count in branches:
        branch.delay(count)
    if fails:
        leaf.delay(0, fails=True)
"""


def grow(project: Project, *entries: dict[str, object]) -> allure.Results:
    """The results of entries whose jobs start others."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + TREE)
    project.manifest("m.jsonl", [{"task": "jobs.tree", "timeout": 60, **one} for one in entries])
    return allure.run(project, MEMORY)


def tree_step(result: Result) -> Result:
    """The step of a result that has the descendants in it; it comes after the job's own end."""
    steps: list[Result] = result["steps"]
    assert steps[-2]["name"].startswith("finished")
    return steps[-1]


def values(step: Result) -> dict[str, str]:
    return {one["name"]: one["value"] for one in step["parameters"]}


def test_what_a_job_starts_is_steps_of_its_result(project: Project) -> None:
    """Of each entry its own tree; Allure's counts stay those of the entries."""
    results = grow(
        project,
        {"id": "good", "kwargs": {"branches": [2, 1]}},
        {"id": "fails", "kwargs": {"branches": [2], "fails": True}},
        {"id": "many", "kwargs": {"branches": [210], "fails": True}},
        {"id": "alone", "kwargs": {"branches": []}},
    )
    assert len(results.all) == 4
    are_within_what_started_them(results.of("good"))
    has_message_and_trace_of_what_failed(results.of("fails"))
    shows_some_and_counts_the_rest(results.of("many"))
    ends_with_the_jobs_own_end(results.of("alone"))


def are_within_what_started_them(result: Result) -> None:
    """With the times, the worker and the task id that workers have reported of each."""
    assert result["status"] == "passed"
    step = tree_step(result)
    assert (step["name"], step["status"]) == ("5 descendants: 5 passed", "passed")
    first, second = step["steps"]
    names = [one["name"].removesuffix(" (critical path)") for one in (first, *first["steps"])]
    assert names == ["jobs.branch", "jobs.leaf", "jobs.leaf"]
    assert len(second["steps"]) == 1
    everything = [first, second, *first["steps"], *second["steps"]]
    path = [one for one in everything if one["name"].endswith(" (critical path)")]
    assert path
    assert max(one["stop"] for one in everything) == path[-1]["stop"] == step["stop"]
    for one in everything:
        assert result["start"] <= one["start"] <= one["stop"]
        reported = values(one)
        assert reported["started as"] == "call"
        assert reported["worker"].rpartition("#")[2].isdigit()
        assert len(reported["task id"]) == 36


def has_message_and_trace_of_what_failed(result: Result) -> None:
    assert result["status"] == "failed"
    step = tree_step(result)
    assert (step["name"], step["status"]) == ("4 descendants: 3 passed, 1 failed", "failed")
    broken = step["steps"][-1]
    assert broken["name"].startswith("jobs.leaf: failed")
    assert broken["status"] == "failed"
    assert "leaf 0 breaks" in broken["statusDetails"]["message"]
    assert "raise ValueError" in broken["statusDetails"]["trace"]
    assert "statusDetails" not in step["steps"][0]


def shows_some_and_counts_the_rest(result: Result) -> None:
    """So that a result stays small: what failed, what was slow, and a count."""
    step = tree_step(result)
    assert step["name"] == "212 descendants: 211 passed, 1 failed"
    text = json.dumps(step)
    assert text.count('"task id"') == 200
    assert "leaf 0 breaks" in text
    assert step["steps"][-1]["name"] == "and 12 more: 12 passed"


def ends_with_the_jobs_own_end(result: Result) -> None:
    assert result["steps"][-1]["name"].startswith("finished")


def test_each_attempt_has_its_own_tree(project: Project) -> None:
    """An earlier one in its result, the last one in the test's."""
    entry = {"id": "a", "kwargs": {"branches": [1], "fails": True}, "idempotent": True}
    grow(project, entry)
    results = allure.run(project, MEMORY, "--manifest-resume")
    assert len(results.all) == 2
    found = [json.dumps(one["steps"][-1]) for one in results.all]
    assert len(set(found)) == 2
    assert all("leaf 0 breaks" in steps for steps in found)
