"""Whether a job may have run is told by what it left, never by the name of its end."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing

import pytest
import redis
from celery import Celery

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.stream_records import STREAM_FIELD
from tests.live.broker_support import database
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

REJECTING = """
from celery.exceptions import Reject

@app.task(name="jobs.reject")
def reject(key):
    count(key)
    raise Reject("no more of this", requeue=False)
"""


def hold(key: str) -> dict[str, object]:
    return {"id": key, "task": "jobs.hold", "args": [key]}


def test_what_only_the_store_calls_revoked_is_still_queued(project: Project, broker: str) -> None:
    """The worker that heard of the revocation is killed, and the next one knows nothing of it."""
    held = project.hold("a")
    project.manifest("m.jsonl", [hold(key) for key in "abcd"])
    url = f"--manifest-broker={broker}"
    one = ("--prefetch-multiplier=1", *INSTRUMENTED)
    with worker(project, broker, *one, slots=1) as first, redis.Redis.from_url(broker) as client:
        with pytest_beside(
            project,
            "--manifest=m.jsonl",
            url,
            "--override-ini=manifest_on_interrupt=revoke",
            "--override-ini=manifest_grace=0",
        ) as process:
            eventually(
                lambda: project.ran() and client.llen("celery") == 2,
                within=60,
                what="one job runs, one is taken and two wait",
            )
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert project.verdicts() == dict.fromkeys("bcd", "withdrawn")
        if not client.keys("celery-task-meta-*"):  # Celery before 5.7: as its workers do since
            store_revocations(project, broker, "bcd")
        assert len(client.keys("celery-task-meta-*")) == 3
        os.killpg(first.pid, signal.SIGKILL)
    held.unlink()
    with pytest_beside(
        project, "--manifest=m.jsonl", url, "--manifest-resume", "--manifest-repair"
    ) as again:
        assert again.stdout is not None
        next(line for line in again.stdout if line.startswith("resume: "))
        with worker(project, broker, *one, slots=1, name="second"):
            text, _ = again.communicate(timeout=90)
    assert "1 crashed, 3 passed" in text
    assert project.ran() == dict.fromkeys("abcd", 1)


def store_revocations(project: Project, broker: str, keys: str) -> None:
    """Store that these were revoked, as a worker does that hears of it."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        sent = {row.entry: row.task_id for row in ledger.attempts.newest()}
    with closing(Celery(broker=broker, backend=broker, set_as_current=False)) as app:
        for key in keys:
            app.backend.mark_as_revoked(sent[key], reason="revoked", store_result=True)


@pytest.mark.parametrize("kind", [INSTRUMENTED, ()], ids=["instrumented", "stock"])
def test_what_worked_before_it_was_turned_away_is_not_sent_again(
    project: Project, broker: str, kind: tuple[str, ...]
) -> None:
    """It rejected its message at last, or was terminated; in a database nothing tells of starts."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + REJECTING)
    project.hold("a")
    project.manifest("m.jsonl", [hold("a"), {"id": "r", "task": "jobs.reject", "args": ["r"]}])
    store = f"db+sqlite:///{project.path}/results.sqlite"
    stack = (f"--manifest-broker={broker}", f"--manifest-backend={store}")
    options = ("--manifest=m.jsonl", *stack)
    with worker(project, broker, *kind, backend=store):
        with pytest_beside(project, *options) as process:
            eventually(lambda: len(project.ran()) == 2, within=60, what="both have begun")
            with closing(Celery(broker=broker, set_as_current=False)) as app:
                task_id = running(app)
                app.control.revoke(task_id, terminate=True, signal="SIGKILL")
            text, _ = process.communicate(timeout=60)
        assert project.verdicts()["a"] == "revoked", text
        result = project.run(*options, "--manifest-resume")
    assert project.ran() == {"a": 1, "r": 1}
    for name in "ar":
        result.stdout.fnmatch_lines([f"resume: leaves '{name}': *it may have run*"])


def running(app: Celery) -> str:
    """The id of the job that is held; the other one may not have been turned away yet."""

    def ask() -> list[str]:
        said = app.control.inspect(timeout=2).active() or {}
        return [row["id"] for rows in said.values() for row in rows if row["name"] == "jobs.hold"]

    (task_id,) = eventually(ask, within=60, what="the worker says what it runs")
    return str(task_id)


def test_that_the_store_was_emptied_is_not_forgotten(project: Project, broker: str) -> None:
    """What was said in it before is gone for good, though it holds what is said from then on."""
    project.manifest("m.jsonl", [hold("h"), hold("a"), {**hold("b"), "idempotent": True}])
    options = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    first_held, held = project.hold("h"), project.hold("a")
    with (
        worker(project, broker, *INSTRUMENTED, slots=1) as first,
        pytest_beside(project, *options) as process,
    ):
        eventually(project.ran, within=60, what="the first job has begun")
        process.send_signal(signal.SIGSTOP)  # what is said of the second it never reads
        first_held.unlink()
        eventually(lambda: "a" in project.ran(), within=60, what="the second one has begun")
        os.killpg(first.pid, signal.SIGKILL)
        process.kill()
    held.unlink()
    with redis.Redis.from_url(broker) as client:
        client.flushall()
    with worker(project, broker, *INSTRUMENTED, name="second"):
        for _ in range(2):
            project.run(*options, "--manifest-resume")
    assert project.ran() == {"h": 1, "a": 1, "b": 1}


def position(project: Project) -> str | None:
    """Return up to which of its records a run has read its stream."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return ledger.info.get_meta("stream_position")


def test_what_an_emptied_store_is_told_since_is_read(project: Project, broker: str) -> None:
    """Though the clock of its server has been set back: the stream's ids are times."""
    held = project.hold("a")
    project.manifest("m.jsonl", [hold("a")])
    backend = database(broker, 1)
    stack = (f"--manifest-broker={broker}", f"--manifest-backend={backend}")
    with (
        worker(project, broker, *INSTRUMENTED, backend=backend),
        redis.Redis.from_url(backend) as store,
        pytest_beside(project, "--manifest=m.jsonl", *stack) as process,
    ):
        eventually(project.ran, within=60, what="the job has begun")
        (stream,) = store.keys("manifest:*:receipts")
        ahead = f"{int(time.time() * 1000) + 600_000}-0"
        store.xadd(stream, {STREAM_FIELD: json.dumps({"kind": "of another version"})}, id=ahead)
        eventually(lambda: position(project) == ahead, within=60, what="that is read")
        store.flushdb()
        held.unlink()
        text, _ = process.communicate(timeout=90)
    assert project.verdicts() == {"a": "passed"}, text
    assert "the result store was emptied" in text
    with Ledger.open(project.ledgers()[-1]) as ledger:
        (end,) = ledger.queries.all_verdicts()
    assert end.receipt is not None
    assert end.receipt.source == "worker", "the plain result says less"


def test_what_a_dead_worker_had_is_told_of_while_it_is_waited_for(
    project: Project, broker: str
) -> None:
    """Not at the end, an hour later; and as it may be busy, nothing is claimed of it."""
    project.hold("a")
    project.manifest("m.jsonl", [hold(key) for key in "abc"])
    one = ("--prefetch-multiplier=1", *INSTRUMENTED)
    with (
        worker(project, broker, *one, slots=1) as first,
        redis.Redis.from_url(broker) as client,
        pytest_beside(project, "--manifest=m.jsonl", f"--manifest-broker={broker}") as process,
    ):
        eventually(
            lambda: project.ran() and client.hlen("unacked") == 1 and client.llen("celery") == 1,
            within=60,
            what="one job runs, one is taken and one waits",
        )
        os.killpg(first.pid, signal.SIGKILL)
        with worker(project, broker, *one, slots=1, name="second"):
            assert process.stdout is not None
            said = next(line for line in process.stdout if "answer" in line)
    assert said.startswith(
        "note: no worker that answers has 1 job, 'b' first, taken from the queue"
    )
    assert "outside@localhost did not answer: one that is busy may run them yet" in said
