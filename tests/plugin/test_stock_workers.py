"""A worker that knows nothing of us says neither when it begins a job nor that it ended without a
result: of what has left no trace nobody knows whether it ran, and the verdict says just that."""

from __future__ import annotations

import billiard
import celery
import pytest

from tests.plugin.conftest import Project
from tests.plugin.outside import worker

LEAVING = """
from celery.exceptions import Ignore

@app.task(name="jobs.ignore")
def ignore(key):
    count(key)
    raise Ignore()

@app.task(name="jobs.ship", bind=True)
def ship(self, key):
    count(key)
    self.update_state(state="SHIPPED")
    raise Ignore()

@app.task(name="jobs.hand_over", bind=True)
def hand_over(self, key, queue):
    count(key)
    raise self.replace(double.si(1, f"{key}'s next hop").set(queue=queue))
"""
NO_TRACE = {
    "ignored": ("jobs.ignore",),
    "own state": ("jobs.ship",),
    "between hops": ("jobs.hand_over", "nobody-reads-this"),
}
ENDED = {"plain": ("jobs.double",), "replaced": ("jobs.hand_over", "celery")}


@pytest.mark.ring(2)
@pytest.mark.live
def test_what_leaves_no_end_behind_is_unknown_and_not_lost(project: Project, broker: str) -> None:
    """Each has run, once; who believes that it was lost sends it again."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + LEAVING)
    entries = [
        {"id": key, "task": task, "args": [1, key] if task == "jobs.double" else [key, *more]}
        for key, (task, *more) in {**NO_TRACE, **ENDED}.items()
    ]
    project.manifest("m.jsonl", entries)
    with worker(project, broker):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    result.assert_outcomes(passed=len(ENDED), errors=len(NO_TRACE))
    told = {**dict.fromkeys(NO_TRACE, "unknown"), **dict.fromkeys(ENDED, "passed")}
    assert project.verdicts() == told
    reason = "it may have raised Ignore, stored a state"
    assert result.stdout.str().count(reason) == len(NO_TRACE)
    ran = [*NO_TRACE, *ENDED, "replaced's next hop"]
    assert project.ran() == dict.fromkeys(ran, 1)


EXITING = """
@app.task(name="jobs.exit_once", acks_late=True, reject_on_worker_lost=True)
def exit_once(key):
    count(key)
    if Path(__file__).with_name("ran.txt").read_text().count(key) == 1:
        raise SystemExit(3)
"""
DELIVERS_AGAIN = celery.VERSION >= (5, 7) or billiard.VERSION < (4, 3)
"""Whether a late-acknowledged job that has left its process is delivered again."""


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_late_job_that_exits_ran_once_on_older_celery(project: Project, broker: str) -> None:
    """Celery takes it for a failure there, and cannot store it: it leaves no trace, either."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + EXITING)
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.exit_once", "args": ["a"]}])
    with worker(project, broker):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    found = project.verdicts()["a"], project.ran()["a"]
    assert found == (("passed", 2) if DELIVERS_AGAIN else ("unknown", 1))
    assert ("been handed on, or exited" in result.stdout.str()) is not DELIVERS_AGAIN


@pytest.mark.ring(2)
@pytest.mark.live
def test_that_times_are_not_measured_is_said_before_the_run(project: Project, broker: str) -> None:
    """The entry will be unknown, however quick its job is; with --manifest-strict nothing is
    sent."""
    timed = {"id": "timed", "task": "jobs.double", "args": [1, "timed"]}
    project.manifest("m.jsonl", [{**timed, "expect": {"max_runtime": 60}}])
    at = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    said = "'timed': 'expect' has max_runtime or max_wait, and outside@localhost measure no times"
    with worker(project, broker):
        refused = project.run(*at, "--manifest-strict")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        assert said in refused.stderr.str()
        assert not project.ran()
        checked = project.run("--manifest-check=json", *at)
        assert said in checked.stdout.str()
        warned = project.run(*at)
    assert f"note: {said}" in warned.stdout.str()
    assert project.verdicts() == {"timed": "unknown"}


QUIET = """
app.conf.task_ignore_result = True

@app.task(name="jobs.again", bind=True)
def again(self, key):
    count(key)
    if not self.request.retries:
        raise self.retry(countdown=0.1)
"""


@pytest.mark.ring(2)
@pytest.mark.live
def test_tasks_that_ignore_results(project: Project, broker: str) -> None:
    """Celery keeps their ends from 5.6 on, and those of retries from 5.7 on: before, nothing is
    sent, or it is said; and nobody waits for what the store will never have."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + QUIET)
    once = {"id": "once", "task": "jobs.double", "args": [1, "once"]}
    twice = {"id": "twice", "task": "jobs.again", "args": ["twice"], "timeout": 500}
    project.manifest("m.jsonl", [once, twice])
    with worker(project, broker):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    said = "jobs.again, jobs.double: results are ignored, and with a Celery before"
    if celery.VERSION < (5, 6):
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert said in result.stderr.str()
        assert not project.ran()
        return
    assert (said in result.stdout.str()) is (celery.VERSION < (5, 7))
    end = "passed" if celery.VERSION >= (5, 7) else "unknown"
    assert project.verdicts() == {"once": "passed", "twice": end}
    assert ("or 5.7 where it was retried" in result.stdout.str()) is (end == "unknown")
    assert project.ran() == {"once": 1, "twice": 2}
