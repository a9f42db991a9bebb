"""Workers that say nothing: busy ones that hold a job, and stock ones that nobody ever saw."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import pytest
import redis
from celery import Celery

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, unacknowledged, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]


def hold(key: str, **more: object) -> Mapping[str, object]:
    return {"id": key, "task": "jobs.hold", "args": [key], **more}


def test_what_a_busy_worker_holds_is_not_put_back(project: Project, broker: str) -> None:
    """It keeps the job for its time, and meanwhile runs another's and answers nothing."""
    foreign = project.hold("foreign")
    project.manifest("m.jsonl", [hold("b", countdown=3)])
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with (
        worker(project, broker, "-P", "solo", *INSTRUMENTED, name="busy", slots=1),
        redis.Redis.from_url(broker) as client,
        closing(Celery(broker=broker, backend=broker, set_as_current=False)) as app,
    ):
        with pytest_beside(project, *command) as first:
            eventually(lambda: client.hlen("unacked") == 1, within=60, what="the job is taken")
            app.send_task("jobs.hold", args=["foreign"])
            eventually(project.ran, within=60, what="the worker is busy")
            first.kill()
        with (
            worker(project, broker, *INSTRUMENTED, name="second", slots=1),
            pytest_beside(project, *command, "--manifest-resume", "--manifest-repair") as again,
        ):
            assert again.stdout is not None
            said = next(line for line in again.stdout if line.startswith("resume: "))
            foreign.unlink()
            text, _ = again.communicate(timeout=90)
            eventually(lambda: not _held(app), within=60, what="nobody holds anything")
    assert project.ran() == {"foreign": 1, "b": 1}, text
    assert said == "resume: waits for 'b': it may still be queued or running\n"
    assert again.returncode == pytest.ExitCode.OK


def _held(app: Celery) -> bool:
    said = app.control.inspect(timeout=2).scheduled() or {}
    return len(said) < 2 or any(said.values())


def test_what_a_stock_worker_had_that_nobody_saw_is_not_sent_again(
    project: Project, broker: str
) -> None:
    """It came after the dispatch, began a job without a word, and died in it."""
    held, _ = project.hold("a"), project.hold("c")
    project.manifest("m.jsonl", [hold("a"), hold("c")])
    command = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    one = "--prefetch-multiplier=1"
    with (
        worker(project, broker, "-P", "solo", one, *INSTRUMENTED, name="ours", slots=1),
        redis.Redis.from_url(broker) as client,
        strangers_connections(broker),
    ):
        with pytest_beside(project, *command) as first:
            eventually(
                lambda: project.ran() and client.llen("celery") == 1, within=60, what="one waits"
            )
            first.send_signal(signal.SIGSTOP)  # nobody looks from here on
            with worker(project, broker, one, name="stock", slots=1) as stock:
                eventually(lambda: project.ran()["c"], within=60, what="it has begun the other")
                # Else the broker has it still, and it is neither put back nor given up.
                eventually(lambda: "c" not in unacknowledged(client), what="it has told so")
                os.killpg(stock.pid, signal.SIGKILL)
            first.kill()
        held.unlink()
        result = project.run(*command, "--manifest-resume", "--manifest-repair")
    assert project.ran() == {"a": 1, "c": 1}
    result.stdout.fnmatch_lines(["resume: leaves 'c': *it may have run*"])


@contextmanager
def strangers_connections(broker: str) -> Iterator[None]:
    """Idle ones that have waited for a message, as a worker's, or listen to something else."""
    with (
        redis.Redis.from_url(broker) as client,
        client.client() as waited,  # it keeps one connection
        client.pubsub() as listens,
    ):
        waited.brpop(["nothing"], timeout=0.01)
        listens.psubscribe("something*")
        assert listens.get_message(timeout=10)
        yield
