"""The main job on a stack that is not ours: a broker by URL, and workers that somebody started."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

import celery
import pytest
import redis

from pytest_manifest.analysis.digest import digests_of
from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.plugin.test_doctor import codes, doctor
from tests.support import eventually

COUNTING = """
from celery.signals import task_prerun

@task_prerun.connect
def count_in_redis(**_):
    app.backend.client.incr("ran")
"""


@pytest.mark.live
@pytest.mark.parametrize("xdist", ["0", pytest.param("4", marks=pytest.mark.ring(2))])
def test_the_workers_own_count_is_the_number_of_entries(
    project: Project, broker: str, xdist: str
) -> None:
    """Two hundred entries run exactly two hundred times, by the workers' own count."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + COUNTING)
    project.doubles(count=200)
    with worker(project, broker, *INSTRUMENTED):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", "-n", xdist)
        result.assert_outcomes(passed=200)
        with redis.Redis.from_url(broker) as client:
            assert client.get("ran") == b"200"
    assert digests_of(project.path / ".manifest/runs")[0].celery == celery.__version__


@pytest.mark.live
@pytest.mark.ring(2)
def test_a_worker_that_knows_nothing_of_us_yields_verdicts(project: Project, broker: str) -> None:
    """A stock worker's plain results are enough to pass and to fail by."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 2}},
            {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no such film"}},
            {"id": "killed", "task": "jobs.die"},
            {
                "id": "wrong",
                "task": "jobs.double",
                "kwargs": {"n": 2},
                "expect": {"result": {"n": 5}},
            },
        ],
    )
    with worker(project, broker):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(["*no such film*", "*result.n*", "*SIGKILL*"])


@pytest.mark.ring(2)
@pytest.mark.live
def test_dispatch_only_then_audit(project: Project, broker: str) -> None:
    """Sent now, judged later: pending while nobody works, passed when somebody has."""
    project.doubles(count=5)
    url = f"--manifest-broker={broker}"
    sent = project.run("--manifest=m.jsonl", url, "--manifest-dispatch-only")
    assert sent.ret == 0
    sent.stdout.fnmatch_lines(
        ["*run *, 5 entries: no verdict yet", "*pytest --manifest=m.jsonl --manifest-audit*"]
    )
    assert not project.ran()

    again = project.run("--manifest=m.jsonl", url)
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*is unfinished*--manifest-audit=wait*--manifest-rerun*"])

    early = project.run("--manifest=m.jsonl", url, "--manifest-audit")
    early.assert_outcomes(errors=5)
    with worker(project, broker, *INSTRUMENTED):
        late = project.run("--manifest=m.jsonl", url, "--manifest-audit=wait", "-n", "2")
        late.assert_outcomes(passed=5)
        once_more = project.run("--manifest=m.jsonl", url, "--manifest-audit")
        once_more.assert_outcomes(passed=5)
    assert project.ran() == {f"d-{n}": 1 for n in range(5)}
    assert len(project.ledgers()) == 1


@pytest.mark.live
@pytest.mark.ring(2)
def test_a_stopped_run_is_detached_from_a_foreign_stack(project: Project, broker: str) -> None:
    """-x leaves what is queued to the workers, and says how to go on."""
    rows: list[dict[str, object]] = [{"id": "bad", "task": "jobs.fail", "kwargs": {"message": "x"}}]
    rows += [
        {"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0.2, "key": f"n-{n}"}}
        for n in range(10)
    ]
    project.manifest("m.jsonl", rows)
    url = f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        result = project.run("--manifest=m.jsonl", url, "-x")
        assert result.parseoutcomes()["failed"] == 1
        result.stdout.fnmatch_lines(
            ["*the workers go on without pytest*", "*--manifest-audit=wait*"]
        )
        audit = project.run("--manifest=m.jsonl", url, "--manifest-audit=wait")
        audit.assert_outcomes(passed=10, failed=1)
    assert set(project.ran().values()) == {1}


@pytest.mark.live
def test_nobody_works_and_the_run_ends_all_the_same(project: Project, broker: str) -> None:
    """Without workers every entry is judged when the run's deadline is over, and it is said why."""
    project.doubles(count=2)
    result = project.run(
        "--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-deadline=2s"
    )
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*deadline of 2 s is over*"])
    result.stdout.no_fnmatch_line("*not shown*")


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.rabbitmq
@pytest.mark.parametrize("store", ["redis", "rpc"])
def test_rabbitmq_with_either_result_store(
    project: Project, broker: str, rabbitmq_url: str, store: str
) -> None:
    """RabbitMQ as broker works with a Redis result store and with rpc://."""
    backend = broker if store == "redis" else "rpc://"
    project.doubles(count=8)
    with worker(project, rabbitmq_url, *INSTRUMENTED, backend=backend):
        result = project.run(
            "--manifest=m.jsonl",
            f"--manifest-broker={rabbitmq_url}",
            f"--manifest-backend={backend}",
            "-n",
            "2",
        )
    result.assert_outcomes(passed=8)
    assert project.ran() == {f"d-{n}": 1 for n in range(8)}


SLOWLY = """

@app.task(name="jobs.slowly", bind=True)
def slowly(self, key):
    count(key)
    if not self.request.retries:
        raise self.retry(queue="slow", countdown=0)
"""
SEARCHED: Final = 16
"""Seconds in which a job is searched for, given up and sent again: two looks after a quiet time."""


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("kind", "receipts", "code"),
    [
        ("redis", INSTRUMENTED, "no_consumer"),
        ("redis", (), "unknown_queue"),
        pytest.param("amqp", INSTRUMENTED, "no_consumer", marks=pytest.mark.rabbitmq),
    ],
    ids=["redis", "redis-stock", "amqp"],
)
def test_a_next_try_that_waits_in_a_queue_of_its_own_is_not_lost(
    project: Project,
    broker: str,
    rabbitmq_url: str,
    kind: str,
    receipts: Sequence[str],
    code: str,
) -> None:
    """A task chooses that queue itself, and no worker serves it yet.

    Our own workers report which it is; of stock ones the result store says that a retry was asked
    for.
    """
    url = broker if kind == "redis" else rabbitmq_url
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + SLOWLY)
    row = {"id": "a", "task": "jobs.slowly", "kwargs": {"key": "a"}}
    project.manifest("m.jsonl", [{**row, "idempotent": True, "retries": 1}])
    at = f"--manifest-broker={url}", f"--manifest-backend={broker}"
    with (
        worker(project, url, *receipts, backend=broker),
        pytest_beside(project, "--manifest=m.jsonl", *at) as session,
    ):
        eventually(lambda: project.ran() == {"a": 1}, within=60, what="its first try has begun")
        until = time.monotonic() + SEARCHED
        while time.monotonic() < until and project.ran() == {"a": 1}:
            time.sleep(0.2)
        project.write("url.txt", url)
        assert code in codes(doctor(project)[1])
        with worker(project, url, *receipts, "-Q", "slow", backend=broker, name="slow"):
            printed, _ = session.communicate(timeout=60)
    assert session.returncode == 0, printed
    assert project.ran() == {"a": 2}


@pytest.mark.live
@pytest.mark.ring(2)
def test_what_was_given_up_is_not_sent_beside_itself_after_an_audit(
    project: Project, broker: str
) -> None:
    """Its next try waits in a queue that the app has, and nobody serves yet."""
    known = '\napp.conf.task_queues = [Queue("celery"), Queue("slow")]\n'
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", f"from kombu import Queue\n{jobs}{known}{SLOWLY}")
    project.write("url.txt", broker)
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.slowly", "kwargs": {"key": "a"}}])
    batch = "--manifest=m.jsonl", f"--manifest-broker={broker}"
    with worker(project, broker, "-Q", "celery"):
        options = (*batch, "--manifest-app=jobs:app", "--manifest-deadline=20s")
        with pytest_beside(project, *options) as session:
            eventually(lambda: project.ran() == {"a": 1}, within=60, what="it waits for its retry")
            assert "no_consumer" in codes(doctor(project)[1])
            assert session.wait(60) == pytest.ExitCode.TESTS_FAILED
        audited = project.run(*batch, "--manifest-audit")
        audited.assert_outcomes(failed=1)
        assert "--manifest-audit=wait" in audited.stdout.str()
        refused = project.run(*batch, "--lf")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        assert "may still be queued or running" in refused.stderr.str()
    with worker(project, broker, "-Q", "slow", name="slow"):
        project.run(*batch, "--manifest-audit=wait").assert_outcomes(passed=1)
    assert project.ran() == {"a": 2}


@pytest.mark.live
@pytest.mark.ring(2)
def test_two_at_once_send_once(project: Project, broker: str) -> None:
    """Of two pytest processes that begin together on one manifest, one sends and one is refused."""
    project.doubles(count=5)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--manifest=m.jsonl",
        "--manifest-dispatch-only",
    ]
    both = [
        subprocess.Popen(
            [*command, f"--manifest-broker={broker}"],
            cwd=project.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    codes = sorted(process.wait(timeout=60) for process in both)
    assert codes == [pytest.ExitCode.OK, pytest.ExitCode.USAGE_ERROR]
    with redis.Redis.from_url(broker) as client:
        assert client.llen("celery") == 5


@pytest.mark.live
@pytest.mark.ring(2)
def test_an_audit_of_a_part_ends(project: Project, broker: str) -> None:
    """Entries that the run never had are errors, under xdist too, and nothing waits for ever."""
    project.doubles(count=4)
    url = f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        project.run("--manifest=m.jsonl", url, "-k", "d-0 or d-1").assert_outcomes(
            passed=2, deselected=2
        )
        result = project.run("--manifest=m.jsonl", url, "--manifest-audit", "-n", "2")
    result.assert_outcomes(passed=2, errors=2)


@pytest.mark.live
@pytest.mark.ring(2)
def test_a_late_audit_finds_what_came_in_time(project: Project, broker: str) -> None:
    """Entries whose deadline is long over, and that succeeded before it, pass an audit."""
    rows = [
        {"id": f"e-{n}", "task": "jobs.double", "kwargs": {"n": n}, "deadline": 1}
        for n in range(600)
    ]
    project.manifest("m.jsonl", rows)
    url = f"--manifest-broker={broker}"
    with worker(project, broker):
        project.run("--manifest=m.jsonl", url, "--manifest-dispatch-only")
        with redis.Redis.from_url(broker) as client:
            eventually(
                lambda: len(list(client.scan_iter("celery-task-meta-*"))) == 600,
                within=60,
                what="all have run",
            )
    project.run("--manifest=m.jsonl", url, "--manifest-audit=wait").assert_outcomes(passed=600)


@pytest.mark.live
@pytest.mark.parametrize(
    "options", [("--manifest-rerun", "--manifest-dispatch-only"), ("--manifest-audit",)]
)
def test_rpc_results_cannot_be_looked_at_later(
    project: Project, broker: str, options: tuple[str, ...]
) -> None:
    """Where results come back to one process only, leaving them to a later one is refused."""
    project.doubles(count=1)
    project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-dispatch-only")
    result = project.run(
        "--manifest=m.jsonl",
        f"--manifest-broker={broker}",
        "--manifest-backend=rpc://",
        *options,
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*rpc:// go only to the process that sent the jobs*"])


@pytest.mark.live
def test_the_ledger_says_what_was_sent(project: Project, broker: str) -> None:
    """After --manifest-dispatch-only the ledger has every attempt as sent, with its time."""
    project.doubles(count=3)
    project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-dispatch-only")
    (path,) = eventually(project.ledgers, what="a ledger")
    with Ledger.open(path) as ledger:
        rows = list(ledger.attempts.all())
        assert ledger.info.status == "detached"
    assert [(row.entry, row.state) for row in rows] == [(f"d-{n}", "sent") for n in range(3)]
    assert all(row.sent_at is not None for row in rows)


@pytest.mark.live
def test_an_app_that_is_always_eager_sends_nothing(project: Project, broker: str) -> None:
    """Its tasks run where they are called, so a batch would say nothing of its workers."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", f"{jobs}\n\napp.conf.task_always_eager = True\n")
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*task_always_eager*switch it off*"])
    assert not project.ran()
    with redis.Redis.from_url(broker) as client:
        assert not client.exists("celery", "unacked")
