"""``pytest --manifest-check``: a stack is looked at, nothing is sent, nothing is left."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from pytest_manifest.broker.rules import ASKING
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.support import eventually

CHECK = "--manifest-check"
JSON = "--manifest-check=json"
MORE = """

@app.task(name="jobs.slow", acks_late=True, time_limit=7200)
def slow():
    pass


app.conf.task_routes = {"jobs.elsewhere": {"queue": "remote"}}


@app.task(name="jobs.elsewhere")
def elsewhere():
    pass
"""


def contents(url: str) -> dict[bytes, bytes | None]:
    """All keys and values, without the one in which kombu has the time of the last sign of life."""
    with redis.Redis.from_url(url) as client:
        keys = set(client.scan_iter()) - {b"_kombu.binding_deadlines"}
        return {key: client.dump(key) for key in keys}


def found(result: pytest.RunResult, level: str) -> dict[str, str]:
    """The findings of a level: check -> message."""
    document = json.loads(result.stdout.str())
    return {one["check"]: one["message"] for one in document["findings"] if one["level"] == level}


@pytest.mark.live
def test_a_sound_stack_passes_and_stays_as_it_is(project: Project, broker: str) -> None:
    """Exit code 0; the broker's keys are the same before and after, and there is no ledger."""
    with worker(project, broker, *INSTRUMENTED):
        before = contents(broker)
        result = project.run(CHECK, f"--manifest-broker={broker}")
        assert contents(broker) == before
    assert result.ret == 0
    result.stdout.fnmatch_lines(["manifest: broker redis://*", "ok * workers *outside@localhost*"])
    result.stdout.fnmatch_lines(["ok * tasks *each known to a worker", "*; nothing was sent"])
    assert not (project.path / ".manifest").exists()
    assert not project.ran()


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_worker_that_answers_late_is_waited_for(project: Project, broker: str) -> None:
    """Who listens is asked once more, for longer: the first time nobody has an answer in time."""
    with (
        worker(project, broker, *INSTRUMENTED) as process,
        redis.Redis.from_url(broker) as client,
        client.pubsub() as questions,
        ThreadPoolExecutor(1) as beside,
    ):
        questions.psubscribe("*pidbox*")
        questions.get_message(timeout=60)

        def go_on_after_the_first_question() -> None:
            asked = questions.get_message(ignore_subscribe_messages=True, timeout=60)
            time.sleep(ASKING + 1)
            process.send_signal(signal.SIGCONT)
            assert asked is not None

        # It says that it is ready a moment before it listens for questions.
        listens = lambda: client.pubsub_numpat() > 1  # noqa: E731 - beside this test
        eventually(listens, what="a worker that listens")
        process.send_signal(signal.SIGSTOP)
        gone_on = beside.submit(go_on_after_the_first_question)
        result = project.run(CHECK, f"--manifest-broker={broker}")
        gone_on.result()
    result.stdout.fnmatch_lines(["ok * workers *outside@localhost*"])


@pytest.mark.ring(2)
@pytest.mark.live
def test_each_fault_of_a_stack_is_found(project: Project, broker: str) -> None:
    """A task that was not deployed, a queue nobody consumes, a limit that is too long."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + MORE)
    with worker(project, broker):
        project.write("jobs.py", jobs + MORE + "\n\n@app.task(name='jobs.new')\ndef new(): pass\n")
        result = project.run(JSON, f"--manifest-broker={broker}")
        document = json.loads(result.stdout.str())
        errors = found(result, "error")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "jobs.new" in errors["tasks"]
        assert "'remote'" in errors["queues"]
        assert "jobs.slow" in errors["limits"]
        assert "outside@localhost" in found(result, "unchecked")["receipts"]
        assert document["counts"]["error"] == 3
        assert broker not in result.stdout.str()
        project.doubles(count=1)
        narrow = project.run(JSON, "--manifest=m.jsonl", f"--manifest-broker={broker}")
    assert narrow.ret == 0, "of a manifest only what it needs counts"
    assert json.loads(narrow.stdout.str())["ok"] is True


@pytest.mark.live
@pytest.mark.parametrize("leaves_a_name", [False, True])
def test_workers_that_share_a_name_are_refused(
    project: Project, broker: str, *, leaves_a_name: bool
) -> None:
    """Beside a second one with its own name nothing is said; with one name nothing is sent.

    Also where the broker keeps the name of one that was killed.
    """
    at = f"--manifest-broker={broker}"
    if leaves_a_name:
        with worker(project, broker, name="killed") as killed:
            os.killpg(killed.pid, signal.SIGKILL)
    project.doubles(count=2)
    with worker(project, broker):
        with worker(project, broker, name="second"):
            project.run("--manifest=m.jsonl", at).assert_outcomes(passed=2)
        with worker(project, broker):
            checked = project.run(JSON, at)
            project.manifest("n.jsonl", [{"id": "n", "task": "jobs.fail", "args": ["no", "n"]}])
            refused = project.run("--manifest=n.jsonl", at)
    assert "outside@localhost" in found(checked, "error")["workers"]
    refused.stderr.fnmatch_lines(["*more workers are connected than have names*"])
    assert "n" not in project.ran()


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_manifest_is_held_against_the_stack(project: Project, broker: str) -> None:
    """Its tasks, its queues, and how long its messages would be held."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.dubble"},
            {"id": "b", "task": "jobs.double", "queue": "nowhere"},
            {"id": "c", "task": "jobs.double", "countdown": 7200},
        ],
    )
    with worker(project, broker):
        result = project.run(JSON, "--manifest=m.jsonl", f"--manifest-broker={broker}")
    errors = found(result, "error")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean jobs.double" in errors["tasks"]
    assert "'nowhere'" in errors["queues"]
    assert "entry 'c'" in errors["limits"]


@pytest.mark.ring(2)
@pytest.mark.live
def test_a_stack_without_workers_or_broker(project: Project, broker: str) -> None:
    """No worker answers; then the broker is away, and then the result store alone."""
    alone = project.run(JSON, f"--manifest-broker={broker}")
    assert alone.ret == pytest.ExitCode.USAGE_ERROR
    assert "no worker answered" in found(alone, "error")["workers"]
    away = project.run(JSON, "--manifest-broker=redis://:hunter2@127.0.0.1:1/0")
    assert away.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot be used" in found(away, "error")["broker"]
    assert "hunter2" not in away.stdout.str()
    own = (f"--manifest-broker={broker}", "--manifest-backend=redis://127.0.0.1:1/1")
    assert "cannot be used" in found(project.run(JSON, *own), "error")["store"]


def test_an_app_without_a_broker_is_checked_on_a_private_stack(project: Project) -> None:
    """Whether its workers start and know its tasks; the stack is gone afterwards."""
    result = project.run(JSON)
    assert result.ret == 0
    document = json.loads(result.stdout.str())
    assert document["stack"]["kind"] == "private"
    assert "jobs.double" in document["workers"][0]["tasks"]
    assert not (project.path / ".manifest").exists()


@pytest.mark.parametrize(
    ("text", "check", "said"),
    [
        ("import no_such_module\n", "app", "'no_such_module'"),
        (
            "from celery import Celery\napp = Celery('jobs', include=['no_such_tasks'])\n",
            "app",
            "'no_such_tasks'",
        ),
        (
            "from celery import Celery\napp = Celery('jobs', task_always_eager=True)\n",
            "app",
            "task_always_eager",
        ),
        ("import sys\nprint('{')\nsys.exit()\n", "app", "ends the program"),
    ],
    ids=["missing", "include", "eager", "exits"],
)
def test_an_app_that_is_no_use_is_an_error(
    project: Project, text: str, check: str, said: str
) -> None:
    """Found without any stack that would have to answer, whatever it prints."""
    project.write("jobs.py", text)
    result = project.run(JSON, "--manifest-broker=redis://127.0.0.1:1/0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    messages = [x["message"] for x in json.loads(result.stdout.str())["findings"]]
    assert any(said in message for message in messages)
    assert check in found(result, "error")


def test_a_check_goes_with_nothing_that_runs_or_judges(project: Project) -> None:
    """One sentence."""
    project.doubles(count=1)
    result = project.run(CHECK, "--manifest=m.jsonl", "--manifest-audit")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--manifest-check sends and judges nothing*"])
