"""``--manifest-allow``: the tasks that a run may send; where one is not among them nothing goes."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import INI, Project

ENTRIES = (
    {"id": "a", "task": "jobs.double", "kwargs": {"n": 1, "key": "a"}},
    {"id": "b", "task": "jobs.nap", "kwargs": {"sec": 0, "key": "b"}},
)


@pytest.mark.ring(2)
@pytest.mark.usefixtures("in_memory")
def test_a_task_beside_those_that_are_allowed_sends_nothing(project: Project) -> None:
    """Not even the entries whose task is; what is not selected does not count."""
    project.manifest("m.jsonl", ENTRIES)
    result = project.run("--manifest=m.jsonl", "--manifest-allow=jobs.d* shop.price")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*nothing was sent: 'jobs.nap' may not be sent: what may be sent is jobs.d* shop.price;*"]
    )
    assert not project.ran()
    result = project.run("--manifest=m.jsonl", "--manifest-allow=jobs.d* shop.price", "-k", "a")
    assert result.ret == 0
    assert project.ran() == {"a": 1}


def test_the_configuration_file_allows_tasks(project: Project) -> None:
    """The command line goes before it."""
    project.write(
        "pytest.ini", INI + "addopts = --manifest-broker=memory://\nmanifest_allow = jobs.double\n"
    )
    project.manifest("m.jsonl", ENTRIES)
    assert project.run("--manifest=m.jsonl").ret == pytest.ExitCode.USAGE_ERROR
    assert not project.ran()
    assert project.run("--manifest=m.jsonl", "--manifest-allow=jobs.*").ret == 0
    assert project.ran() == {"a": 1, "b": 1}


@pytest.mark.usefixtures("in_memory")
def test_tasks_of_celery_that_run_others_are_named_or_not_sent(project: Project) -> None:
    """``celery.starmap`` runs a task that no pattern has seen."""
    inner = {"task": "jobs.double", "args": [], "kwargs": {}, "options": {}}
    kwargs = {"task": inner, "it": [[1, "x"], [2, "y"]]}
    project.manifest("m.jsonl", [{"id": "s", "task": "celery.starmap", "kwargs": kwargs}])
    result = project.run("--manifest=m.jsonl", "--manifest-allow=*")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'celery.starmap' may not be sent: Celery's tasks that run*"])
    assert not project.ran()
    assert project.run("--manifest=m.jsonl", "--manifest-allow=celery.starmap").ret == 0
    assert project.ran() == {"x": 1, "y": 1}


@pytest.mark.live
def test_the_check_of_a_stack_tells_of_them(project: Project) -> None:
    """As an error, before a run would be refused."""
    project.manifest("m.jsonl", ENTRIES)
    result = project.run("--manifest-check", "--manifest=m.jsonl", "--manifest-allow=jobs.double")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["error * tasks *'jobs.nap' may not be sent*"])
