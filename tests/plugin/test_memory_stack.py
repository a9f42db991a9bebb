"""``--manifest-broker=memory://``: a batch in pytest's own process, without any server."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_a_batch_runs_in_memory(project: Project, workers: tuple[str, ...]) -> None:
    """Each entry is a test and runs once, in the process that dispatches; a failed one is shown."""
    project.doubles(count=5)
    project.manifest("bad.jsonl", [{"id": "b", "task": "jobs.fail", "args": ["no luck", "b"]}])
    result = project.run("--manifest=m.jsonl", "--manifest=bad.jsonl", MEMORY, *workers)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["The task raised ValueError: no luck on memory@*"])
    assert project.ran() == {f"d-{n}": 1 for n in range(5)} | {"b": 1}


def test_a_session_ends_although_a_job_hangs(project: Project) -> None:
    """The deadline judges the job, and pytest does not wait for its thread."""
    project.manifest("m.jsonl", [{"id": "n", "task": "jobs.nap", "args": [300]}])
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-deadline=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*deadline*"])


def test_the_log_of_other_jobs_is_not_shown_under_an_entry(project: Project) -> None:
    """They run in pytest's own process while a test is reported; their lines are in receipts."""
    project.write(
        "noise.py",
        """
import logging

from celery import Celery

app = Celery("noise")


@app.task
def tell(name):
    logging.getLogger("noise").warning("said by %s", name)
    if name == "n-0":
        raise ValueError("no luck")
""",
    )
    rows = [{"id": f"n-{n}", "task": "noise.tell", "args": [f"n-{n}"]} for n in range(30)]
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", "--manifest-app=noise:app", MEMORY, "-rA")
    result.assert_outcomes(passed=29, failed=1)
    result.stdout.no_fnmatch_line("*Captured log*")
    result.stdout.fnmatch_lines(["*said by n-0"])
