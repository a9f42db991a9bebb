"""When a run's time is over on the private stack: what has a verdict does not begin any more."""

from __future__ import annotations

from contextlib import suppress

import psutil
import pytest
import redis

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.reports import starts_by_task
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]


def private_broker(pid: int) -> str:
    """The URL of the broker of the stack that this pytest has started."""
    workers = [p for p in psutil.Process(pid).children(recursive=True) if "celery" in p.cmdline()]
    return workers[0].environ()["CELERY_BROKER_URL"]


def nothing_waits(broker: str) -> bool:
    """Also where the broker has ended."""
    with suppress(redis.ConnectionError), redis.Redis.from_url(broker) as client:
        return not client.llen("celery")
    return True


def test_what_waits_is_taken_back_and_runs_once_when_the_run_is_gone_on_with(
    project: Project,
) -> None:
    """The one that runs ends in its grace and keeps its verdict; no other one begins after it."""
    held = project.hold("a")
    rows = [{"id": key, "task": "jobs.hold", "args": [key], "idempotent": True} for key in "ab"]
    rows += [{"id": f"c-{n}", "task": "jobs.double", "args": [n]} for n in range(30)]
    manifest = project.manifest("m.jsonl", rows)
    options = ("--manifest=m.jsonl", "--manifest-deadline=1s", "--override-ini=manifest_grace=60s")
    with pytest_beside(project, *options) as process:
        eventually(project.ran, within=100, what="the first job has begun")
        broker = private_broker(process.pid)
        eventually(lambda: nothing_waits(broker), within=100, what="the queue is empty")
        manifest.touch()  # as a checkout does; its bytes are what they were
        held.unlink()
        text, _ = process.communicate(timeout=100)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED
    assert project.ran() == {"a": 1}
    assert project.verdicts() == {"a": "passed"} | {
        row["id"]: "timed_out" for row in rows if row["id"] != "a"
    }
    assert "it was taken back before a worker had reported its start" in text
    assert "to go on: pytest --manifest=m.jsonl --manifest-resume" in text
    result = project.run("--manifest=m.jsonl", "--manifest-resume")
    result.assert_outcomes(passed=len(rows))
    assert set(project.ran().values()) == {1}
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert len(starts_by_task(ledger)) == len(rows)
