"""Where results are: in the app's own store, and what workers say of theirs is believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
import redis

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker

pytestmark = [pytest.mark.live, pytest.mark.ring(2), pytest.mark.timeout(240)]

OWN_CLASS = """
from pathlib import Path

from celery.backends.filesystem import FilesystemBackend


class Store(FilesystemBackend):
    def __init__(self, url=None, **more):
        super().__init__(url=f"file://{Path(__file__).parent}/results", **more)
"""
TASK_STORE = """
from celery.backends.redis import RedisBackend


@app.task(name="jobs.own", backend=RedisBackend(app=app, url="redis://:s3cret@other.host:6379/0"))
def own(n, key=None):
    return double(n, key)
"""
OWN_END = """
from celery.exceptions import Ignore

@app.task(name="jobs.early", bind=True)
def early(self, how):
    self.update_state(state="SUCCESS", meta={"key": how})
    count(how)
    time.sleep(0.7)  # in which it is looked for
    if how == "fails":
        raise ValueError(how)
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "ignores":
        raise Ignore
    return {"key": how}
"""


def keep_results_in(project: Project, store: str, more: str = "") -> None:
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", f"{jobs}\napp.conf.result_backend = {store!r}\n{more}")


def waiting(broker: str) -> int:
    with redis.Redis.from_url(broker) as client:
        return int(client.llen("celery"))


@pytest.mark.parametrize("kind", ["sql", "class"])
def test_the_apps_own_store_is_read(project: Project, broker: str, kind: str) -> None:
    """A Redis broker is not taken for the store of an app that keeps its results elsewhere."""
    project.write("stores.py", OWN_CLASS)
    (project.path / "results").mkdir()
    names = {"sql": f"db+sqlite:///{project.path}/results.sqlite", "class": "stores:Store"}
    keep_results_in(project, names[kind])
    project.doubles(count=3)

    with worker(project, broker, backend=names[kind]):
        result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")

    result.assert_outcomes(passed=3)
    assert set(project.ran().values()) == {1}


def test_an_end_that_a_task_stores_itself_is_none(project: Project, broker: str) -> None:
    """What its worker tells of its end is; one that raises Ignore has said by it how it ended."""
    store = f"db+sqlite:///{project.path}/results.sqlite"
    keep_results_in(project, store, OWN_END)
    expected = {"fails": "failed", "dies": "crashed", "ignores": "passed", "passes": "passed"}
    project.manifest(
        "m.jsonl", [{"id": how, "task": "jobs.early", "args": [how]} for how in expected]
    )

    with worker(project, broker, *INSTRUMENTED, backend=store):
        project.run("--manifest=m.jsonl", f"--manifest-broker={broker}")

    assert project.verdicts() == expected
    assert project.ran() == dict.fromkeys(expected, 1)


def test_another_store_than_the_workers_is_refused(project: Project, broker: str) -> None:
    """Nothing is sent where results would be looked for in vain: said with both names."""
    elsewhere = f"{broker.removesuffix('/0')}/1"
    project.doubles(count=3)
    sql = f"db+sqlite:///{project.path}/results.sqlite"
    guessed: Mapping[str, list[str]] = {
        broker: [],
        sql: [f"--manifest-backend={sql}"],
    }
    with worker(project, broker, backend=elsewhere):
        for name, options in guessed.items():
            result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", *options)
            assert result.ret == pytest.ExitCode.USAGE_ERROR
            said = result.stderr.str()
            assert "nothing was sent" in said
            assert name.rpartition("@")[2] in said
            assert elsewhere.rpartition("@")[2] in said
            assert broker.split("@")[0].removeprefix("redis://:") not in said
        assert not project.ran()
        assert not waiting(broker)
        right = f"--manifest-backend={elsewhere}"
        project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", right).assert_outcomes(
            passed=3
        )


def test_workers_without_a_store_are_refused_with_what_helps(project: Project, broker: str) -> None:
    """To name a store here does not make them keep results; what is said does."""
    project.doubles(count=2)
    with worker(project, broker, backend=""):
        for options in ([], [f"--manifest-backend={broker}"]):
            result = project.run("--manifest=m.jsonl", f"--manifest-broker={broker}", *options)
            assert result.ret == pytest.ExitCode.USAGE_ERROR
            said = result.stderr.str()
            assert "nothing was sent" in said
            assert (
                "keeps no results, so how jobs end is not known: start it with 'celery --result-"
                in said
            )
            assert "--manifest-backend" not in said, "that would give the same error again"
        assert not project.ran()
        assert not waiting(broker)
    app = [sys.executable, "-m", "celery", "-A", "jobs", f"--result-backend={broker}"]
    with worker(project, broker, backend="", program=app):
        project.run("--manifest=m.jsonl", f"--manifest-broker={broker}").assert_outcomes(passed=2)


@pytest.mark.ring(1)
def test_a_broker_that_keeps_no_results_is_refused_with_what_helps(project: Project) -> None:
    """Before anybody is asked: a store named here alone would not make workers keep results."""
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", "--manifest-broker=amqp://nowhere.invalid//")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*workers without one are started with 'celery --result-backend=URL'*"]
    )


@pytest.mark.ring(1)
def test_a_task_with_a_store_of_its_own_is_refused(project: Project, broker: str) -> None:
    """Its results would never be found; on a private stack they are."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + TASK_STORE)
    project.manifest("m.jsonl", [{"id": "a", "task": "jobs.own", "kwargs": {"n": 2}}])

    result = project.run(
        "--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-dispatch-only"
    )

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*nothing was sent: task jobs.own*store of its own*other.host*"])
    assert "s3cret" not in result.stderr.str() + result.stdout.str()
    assert not waiting(broker)
