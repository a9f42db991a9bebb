"""What whole sessions make of trees that are taken up again, that wait long, or that leave."""

from __future__ import annotations

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

STARTING = """
import os
from celery import Celery

app.conf.broker_transport_options = {"visibility_timeout": 600}

@app.task(name="jobs.stumble")
def stumble(key, child):
    count(key)
    app.send_task("jobs.hold", [child])
    if os.path.exists("stumbles"):
        raise ValueError("a stone")

@app.task(name="jobs.later")
def later(key, seconds):
    count(key)
    app.send_task("jobs.double", [1, f"{key}/1"], countdown=seconds)

@app.task(name="jobs.abroad")
def abroad(key):
    other = Celery("other", set_as_current=False)
    other.conf.broker_write_url = "memory://"
    other.send_task("jobs.double", [1, f"{key}/1"])
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + STARTING)
    return project


def test_an_entry_is_sent_again_when_its_old_tree_has_ended(project: Project, broker: str) -> None:
    """Its job failed, and a task that it had started runs on: the two trees never overlap."""
    held, stone = project.hold("c1"), project.path / "stumbles"
    stone.touch()
    entry = {"id": "e", "task": "jobs.stumble", "args": ["e", "c1"], "timeout": 90}
    project.manifest("m.jsonl", [{**entry, "idempotent": True}])
    options = "--manifest=m.jsonl", f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        project.run(*options, "--manifest-deadline=4").assert_outcomes(failed=1)
        assert project.verdicts() == {"e": "failed"}
        stone.unlink()
        preview = project.run(*options, "--manifest-resume", "--collect-only")
        waits = "waits for 'e': its job has ended, and tasks that it started may still run; then it"
        assert waits in preview.stdout.str()
        with pytest_beside(project, *options, "--manifest-resume") as process:
            eventually(lambda: not project.verdicts(), within=60, what="it is awaited again")
            assert project.ran() == {"e": 1, "c1": 1}
            held.unlink()
            output, _ = process.communicate(timeout=60)
    assert waits in output
    assert project.verdicts() == {"e": "passed"}
    assert project.ran() == {"e": 2, "c1": 2}


def test_a_countdown_that_the_broker_does_not_wait_for_is_warned_of(
    project: Project, broker: str
) -> None:
    """Nobody waits for it here, and it will run twice all the same."""
    entry = {"id": "e", "task": "jobs.later", "args": ["e", 900]}
    project.manifest("m.jsonl", [{**entry, "expect": {"descendants": "ignored"}}])
    with worker(project, broker, *INSTRUMENTED):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*task 'jobs.double', which a job started, has a countdown or an ETA of *600 s*"]
    )


def test_what_went_to_another_broker_is_unknown_in_the_end(project: Project, broker: str) -> None:
    """It cannot be looked for, so nobody calls it lost."""
    project.manifest("m.jsonl", [{"id": "e", "task": "jobs.abroad", "args": ["e"], "timeout": 1}])
    with worker(project, broker, *INSTRUMENTED):
        project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    assert project.verdicts() == {"e": "unknown"}
    with Ledger.open(project.ledgers()[-1]) as ledger:
        settled = ledger.verdicts.of_entry("e")
    assert settled is not None
    assert "sent to another broker than the run's, memory://" in settled.verdict.sentence
