"""Workers that are killed with all they have begun: that is known at once, and acted upon."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

import celery
import pytest
import redis

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, unacknowledged, worker
from tests.processes import ELSEWHERE
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of a worker, of its pool, and of the command that runs it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.mark.parametrize(("prefix", "seconds"), [((), 60), (ELSEWHERE, 90)])
def test_what_a_dead_worker_had_taken_is_put_back_before_any_timeout(
    project: Project, broker: str, prefix: Sequence[str], seconds: int
) -> None:
    """Another of a new name takes over, as after each deployment. The entries' timeout is as by
    default, five minutes; the run's deadline is far shorter, and is not needed."""
    names = ["a", "b", "c"]
    entries = [{"id": n, "task": "jobs.double", "args": [1, n], "countdown": 6} for n in names]
    project.manifest("m.jsonl", entries)
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-repair")
    with (
        worker(project, broker, *INSTRUMENTED, name="old-pod", prefix=prefix) as old,
        redis.Redis.from_url(broker) as client,
        pytest_beside(project, *command, f"--manifest-deadline={seconds}") as session,
    ):
        eventually(lambda: unacknowledged(client) == {*names}, within=60, what="it has taken all")
        kill(old)
        with worker(project, broker, *INSTRUMENTED, name="new-pod"):
            text, _ = session.communicate(timeout=seconds + 60)
    assert project.verdicts() == dict.fromkeys(names, "passed"), text
    assert project.ran() == dict.fromkeys(names, 1)
    assert session.returncode == pytest.ExitCode.OK


def test_what_a_stock_worker_may_have_begun_is_put_back_where_one_insists(
    project: Project, broker: str
) -> None:
    """The broker would do so only when its visibility timeout is over."""
    names = ["a", "b", "c"]
    entries = [{"id": n, "task": "jobs.double", "args": [1, n], "countdown": 8} for n in names]
    project.manifest("m.jsonl", entries)
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with (
        worker(project, broker, name="old-pod") as old,
        redis.Redis.from_url(broker) as client,
        pytest_beside(project, *command) as session,
    ):
        eventually(lambda: unacknowledged(client) == {*names}, within=60, what="it has taken all")
        kill(old)
        session.send_signal(signal.SIGINT)
        session.communicate(timeout=60)
    with worker(project, broker, name="new-pod"):
        insists = "--manifest-resume=unsafe"
        result = project.run(*command, insists, "--manifest-deadline=25")
        assert (
            f"to go on: pytest --manifest=m.jsonl {insists} --manifest-repair"
            in result.stdout.str()
        )
        result = project.run(*command, insists, "--manifest-repair", "--manifest-deadline=60")
    assert project.verdicts() == dict.fromkeys(names, "passed"), result.stdout.str()
    assert project.ran() == dict.fromkeys(names, 1)


def test_a_job_whose_worker_was_killed_has_crashed_and_not_run_too_long(
    project: Project, broker: str
) -> None:
    """Its process is dead on this very machine; what may run twice is sent again."""
    held = [project.hold("once"), project.hold("safe")]
    project.manifest(
        "m.jsonl",
        [
            {"id": "once", "task": "jobs.hold", "args": ["once"], "timeout": 1},
            {
                "id": "safe",
                "task": "jobs.hold",
                "args": ["safe"],
                "timeout": 1,
                "idempotent": True,
                "retries": 1,
            },
        ],
    )
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-deadline=90")
    with (
        worker(project, broker, *INSTRUMENTED, name="old-pod") as old,
        pytest_beside(project, *command) as session,
    ):
        eventually(lambda: len(project.ran()) == 2, within=60, what="both have begun")
        kill(old)
        for file in held:
            file.unlink()
        with worker(project, broker, *INSTRUMENTED, name="new-pod"):
            text, _ = session.communicate(timeout=120)
    assert project.verdicts() == {"once": "crashed", "safe": "passed"}, text
    assert project.ran() == {"once": 1, "safe": 2}
    assert "which had begun it, is gone" in text
    assert "ran longer than its timeout" not in text


RETRIED = """
@app.task(name="jobs.poison", retry_on_worker_lost=True, max_retries=5, default_retry_delay=0)
def poison(key):
    count(key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="jobs.weak", retry_on_worker_lost=True, max_retries=5, default_retry_delay=0)
def weak(key):
    count(key)
    if Path(__file__).with_name("ran.txt").read_text().count(key) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"key": key}


@app.task(name="jobs.slow", acks_late=True, acks_on_timeout=False, time_limit=1)
def slow(key):
    count(key)
    time.sleep(30)
"""


KNOWS = celery.VERSION >= (5, 7)
"""Whether Celery has the options; earlier it takes no notice of them."""


@pytest.mark.parametrize("is_private", [True, False])
def test_deaths_count_whoever_sends_the_job_again(
    project: Project, broker: str, is_private: bool
) -> None:
    """Celery retries it, up to five times; the third death is the last one."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + RETRIED)
    names = "poison", "weak", "slow"
    entries = [{"id": name, "task": f"jobs.{name}", "args": [name]} for name in names]
    project.manifest("m.jsonl", entries)
    command = ("--manifest=m.jsonl", "--manifest-deadline=120")
    if is_private:
        result = project.run(*command)
    else:
        with worker(project, broker, *INSTRUMENTED):
            result = project.run(*command, f"--manifest-broker={broker}")
    ends = ("quarantined", "passed") if KNOWS else ("crashed", "crashed")
    assert project.verdicts() == {"poison": ends[0], "weak": ends[1], "slow": "timed_out"}
    ran = project.ran()
    # The third death is known before its retry is taken, or while that begins.
    assert ran["poison"] in ((3, 4) if KNOWS else (1,))
    assert ran["weak"] == (3 if KNOWS else 1)
    assert ("3 processes died of it" in result.stdout.str()) is KNOWS
