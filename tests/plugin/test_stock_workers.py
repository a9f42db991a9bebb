"""A worker that knows nothing of us says neither when it begins a job nor that it ended without a
result: of what has left no trace nobody knows whether it ran, and the verdict says just that."""

from __future__ import annotations

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
    reason = "it may have run and raised Ignore, stored a state"
    assert result.stdout.str().count(reason) == len(NO_TRACE)
    ran = [*NO_TRACE, *ENDED, "replaced's next hop"]
    assert project.ran() == dict.fromkeys(ran, 1)
