"""Nobody takes the jobs: the run ends in time with what to do, and never beside a busy worker."""

from __future__ import annotations

from contextlib import closing

import pytest
from celery import Celery

from tests.plugin.conftest import INI, Project
from tests.plugin.outside import pytest_beside, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]


def wait_for(project: Project, seconds: str) -> None:
    project.write("pytest.ini", f"{INI}manifest_no_worker = {seconds}\n")


def test_a_run_without_any_worker_ends_and_can_go_on(project: Project, broker: str) -> None:
    """Its jobs wait in their queue, so who starts a worker goes on, and each runs once."""
    wait_for(project, "3s")
    project.doubles(count=3)
    at = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    alone = project.run(*at)
    assert alone.ret == pytest.ExitCode.TESTS_FAILED
    assert set(project.verdicts().values()) == {"pending"}
    text = alone.stdout.str()
    assert "no worker has answered for 3 s, and no job runs" in text
    assert "start a worker (celery -A APP worker -Q celery)" in text
    with worker(project, broker):
        project.run(*at, "--manifest-resume").assert_outcomes(passed=3)
    assert project.ran() == {f"d-{n}": 1 for n in range(3)}


def test_nobody_on_rabbitmq(project: Project, rabbitmq_url: str, broker: str) -> None:
    """Its queue has no consumer."""
    wait_for(project, "3s")
    project.doubles(count=2)
    at = (f"--manifest-broker={rabbitmq_url}", f"--manifest-backend={broker}")
    alone = project.run("--manifest=m.jsonl", *at)
    assert set(project.verdicts().values()) == {"pending"}
    assert "no worker has answered for 3 s, and no job runs" in alone.stdout.str()


def test_workers_of_other_queues_do_not_count(project: Project, broker: str) -> None:
    """They answer, and are named."""
    wait_for(project, "3s")
    project.doubles(count=2)
    with worker(project, broker, "-Q", "elsewhere"):
        alone = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    said = "no job runs (of other queues: outside@localhost)"
    assert said in alone.stdout.str()
    assert not project.ran()


def test_a_busy_worker_and_one_that_begins_late_are_waited_for(
    project: Project, broker: str
) -> None:
    """One whose only process runs another's job answers nothing, for longer than is waited."""
    wait_for(project, "2s")
    foreign = project.hold("foreign")
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.double", "args": [1, "a"]}])
    with (
        worker(project, broker, "-P", "solo", slots=1),
        closing(Celery(broker=broker, backend=broker, set_as_current=False)) as app,
    ):
        app.send_task("jobs.hold", args=["foreign"])
        eventually(project.ran, within=60, what="the worker is busy")
        options = ("--manifest=m.jsonl", "-v", "--manifest-progress=log")
        with pytest_beside(project, *options, f"--manifest-broker={broker}") as session:
            assert session.stdout is not None
            seen = [line for line in session.stdout if _freed(line, foreign.unlink)]
            assert session.wait(60) == pytest.ExitCode.OK, "".join(seen)
    assert project.verdicts() == {"a": "passed"}


def _freed(line: str, free: object) -> bool:
    if "no worker has answered for" in line and callable(free):
        free(missing_ok=True)
    return True


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_worker_that_cannot_decode_the_messages_is_told(
    project: Project, broker: str, request: pytest.FixtureRequest, kind: str
) -> None:
    """It throws each away, and answers nothing but a question that it can decode."""
    wait_for(project, "3s")
    project.doubles(count=4)
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write(
        "jobs.py",
        f"{jobs}\nimport sys\nif 'worker' in sys.argv:\n    app.conf.accept_content = ['yaml']\n",
    )
    url = broker if kind == "redis" else request.getfixturevalue("rabbitmq_url")
    at = (f"--manifest-broker={url}", f"--manifest-backend={broker}", "--manifest-deadline=60")
    with worker(project, url, backend=broker):
        alone = project.run("--manifest=m.jsonl", *at)
    assert set(project.verdicts().values()) == {"unknown"}
    text = alone.stdout.str()
    assert "1 worker answered in yaml, and none in json, the format of the app's messages" in text
    assert "its log says ContentDisallowed" in text
    assert not project.ran()
