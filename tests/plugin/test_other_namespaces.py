"""A worker whose pids mean nothing here: another PID namespace under the same host name."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.processes import ELSEWHERE
from tests.support import eventually


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_job_that_runs_in_another_namespace_is_not_dead(project: Project, broker: str) -> None:
    """Its worker is busy and says nothing, and its pid is none, or another's, out here."""
    held = project.hold("a")
    project.manifest(
        "m.jsonl", [{"id": "a", "task": "jobs.hold", "args": ["a"], "idempotent": True}]
    )
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with (
        worker(project, broker, "-P", "solo", *INSTRUMENTED, prefix=ELSEWHERE),
        pytest_beside(project, *command) as first,
    ):
        eventually(project.ran, within=60, what="the job has begun")
        first.kill()
        with (
            worker(project, broker, "-Q", "other", *INSTRUMENTED, name="idle"),
            pytest_beside(project, *command, "--manifest-resume") as second,
        ):
            assert second.stdout is not None
            said = next(line for line in second.stdout if line.startswith("resume: "))
            held.unlink()
            second.communicate(timeout=60)
        assert said == "resume: waits for 'a': it may still be queued or running\n"
        assert second.returncode == pytest.ExitCode.OK
    assert project.ran() == {"a": 1}
