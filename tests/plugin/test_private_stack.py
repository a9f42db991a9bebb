"""A private stack beside the app's own broker, of which it must neither read nor write a byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from pytest_manifest.broker import celery_settings
from tests.plugin.conftest import Project
from tests.plugin.outside import data_of_a_killed_run

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

APP = """
import os
from pathlib import Path

from celery import Celery, Task
from celery.backends.redis import RedisBackend

PRODUCTION = "{url}"


class Shop(Celery):
    backend_cls = PRODUCTION


app = Shop("jobs", broker=PRODUCTION, backend=PRODUCTION)
for name in {variables}:  # as a .env file that is read with override
    os.environ[name] = PRODUCTION


class Settings:
    broker_read_url = PRODUCTION
    broker_write_url = PRODUCTION
    worker_state_db = str(Path(__file__).with_name("production-state"))


app.config_from_object(Settings)


@app.on_after_configure.connect
def configure(sender, **_):
    sender.conf.update(broker_url=PRODUCTION, broker_read_url=PRODUCTION, result_backend=PRODUCTION)


class Kept(Task):
    backend = RedisBackend(app=app, url=PRODUCTION)


def count(key):
    with Path(__file__).with_name("ran.txt").open("a") as file:
        file.write(f"{{key}}\\n")


@app.task(name="jobs.double")
def double(n, key=None):
    count(key or n)
    return {{"n": 2 * n, "type": "number"}}


@app.task(name="jobs.kept", base=Kept)
def kept(n, key=None):
    double(n, key)
    follow.delay(key)
    return {{"n": 2 * n}}


@app.task(name="jobs.own", backend=RedisBackend(app=app, url=PRODUCTION))
def own(n, key=None):
    return double(n, key)


@app.task(name="jobs.follow", ignore_result=True)
def follow(key):
    count(f"after {{key}}")
"""

PRIVATE = "--manifest-broker=private"

HOSTILE = """
from pathlib import Path

from celery import Celery

app = Celery("jobs")


class Settings:
    CELERY_BROKER_URL = "{url}"
    CELERY_BROKER_USER = "nobody"
    CELERY_BROKER_TRANSPORT_OPTIONS = {{
        "global_keyprefix": "shop:",
        "master_name": "main",
        "sentinel_kwargs": {{"password": "no"}},
        "priority_steps": [0, 5],
    }}
    CELERY_BROKER_USE_SSL = {{"ssl_cert_reqs": "required"}}
    CELERY_RESULT_BACKEND = "{url}"
    CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {{"global_keyprefix": "shop:", "master_name": "main"}}
    CELERY_REDIS_BACKEND_USE_SSL = {{"ssl_cert_reqs": "required"}}
    CELERY_REDIS_USERNAME = "nobody"
    CELERY_WORKER_POOL = "gevent"
    CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
    CELERY_CONTROL_EXCHANGE = "shop"


app.config_from_object(Settings, namespace="CELERY")


@app.task(name="jobs.double")
def double(n, key=None):
    with Path(__file__).with_name("ran.txt").open("a") as file:
        file.write(f"{{key or n}}\\n")
    return {{"n": 2 * n}}
"""


@contextmanager
def untouched(url: str) -> Iterator[None]:
    """A production broker with jobs in its queue: nobody comes, nothing is taken, nothing added."""
    with Celery("shop", broker=url, set_as_current=False) as shop:
        for number in range(3):
            shop.send_task("jobs.double", (number,), {"key": "foreign"})
    with redis.Redis.from_url(url) as client:
        before, visits = _contents(client), _visits(client)
        assert before
        yield
        assert _contents(client) == before
        assert _visits(client) == visits


def _contents(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter()}


def _visits(client: redis.Redis) -> int:
    return int(client.info("stats")["total_connections_received"])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.ring(2))])
def test_everything_by_which_an_app_names_its_broker(
    project: Project, broker: str, method: str
) -> None:
    """By URLs for reading and writing, variables, late settings, classes and single tasks; also in
    processes of a pool that begin anew and know nothing of their worker's."""
    app = APP.format(url=broker, variables=celery_settings.VARIABLES)
    project.write("jobs.py", f"{app}\n\napp.conf.worker_pool_start_method = {method!r}\n")
    tasks = ["double", "kept", "own"]
    project.manifest(
        "m.jsonl",
        [
            {
                "id": name,
                "task": f"jobs.{name}",
                "kwargs": {"n": 4, "key": name},
                "timeout": 30,
                "expect": {"result": {"n": 8}},
            }
            for name in tasks
        ],
    )

    with untouched(broker):
        result = project.run("--manifest=m.jsonl", PRIVATE, "--manifest-deadline=40")

    result.assert_outcomes(passed=3)

    assert project.ran().keys() - {"after kept"} == set(tasks)
    assert not list(project.path.glob("production-state*"))


def test_an_app_that_cannot_be_imported_is_said_as_of_any_stack(project: Project) -> None:
    """Celery in the worker takes what it raises for a name that is not there."""
    project.write("jobs.py", "settings = None\napp = settings.rstrip()\n")
    project.doubles(count=1)

    result = project.run("--manifest=m.jsonl", PRIVATE)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = "AttributeError: 'NoneType' object has no attribute 'rstrip' at jobs.py:2; mend that"
    result.stderr.fnmatch_lines([f"ERROR: the Celery app 'jobs:app' cannot be imported: {said}"])


def test_an_app_whose_broker_is_hard_to_talk_to(project: Project, broker: str) -> None:
    """Key prefix, TLS, user, Sentinel, another pool, no remote control: none of it matters."""
    production = urlsplit(broker)._replace(scheme="rediss").geturl()
    project.write("jobs.py", HOSTILE.format(url=production))
    project.doubles(count=3)

    with untouched(broker):
        result = project.run("--manifest=m.jsonl", PRIVATE, "--manifest-deadline=40")

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*no worker answered*")
    assert project.ran() == {"d-0": 1, "d-1": 1, "d-2": 1}


def test_tasks_in_memory_keep_no_results_elsewhere(project: Project, broker: str) -> None:
    """The stack in memory leads the app's tasks away from their own stores, too."""
    project.write("jobs.py", APP.format(url=broker, variables=celery_settings.VARIABLES))
    entries = [{"id": n, "task": f"jobs.{n}", "kwargs": {"n": 4}} for n in ("own", "kept")]
    project.manifest("m.jsonl", entries)

    with untouched(broker):
        result = project.run("--manifest=m.jsonl", "--manifest-broker=memory://")

    result.assert_outcomes(passed=2)


CHILDREN = """
from jobs import app


@app.task(name="jobs.index", ignore_result=True)
def index(n):
    pass


@app.task(name="jobs.mail", ignore_result=True)
def mail(n):
    pass


@app.task(name="jobs.order")
def order(n):
    for number in range(3):
        index.apply_async((number,), queue="later")
    mail.apply_async((n,), countdown=600)
    return {"n": n}
"""


@pytest.mark.parametrize(
    "options",
    [pytest.param((), marks=pytest.mark.ring(2)), ("--manifest-broker=memory://",)],
    ids=["own", "memory"],
)
def test_children_that_go_with_the_stack_are_told(
    project: Project, options: tuple[str, ...]
) -> None:
    """Jobs that passed jobs have sent, and nobody waits for: by name and number, at the end."""
    project.write("children.py", CHILDREN)
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + "\nimport children\n")
    ignored = {"descendants": "ignored"}
    rows = [{"id": "a", "task": "jobs.order", "kwargs": {"n": 1}, "expect": ignored}]
    project.manifest("m.jsonl", [*rows, {"id": "b", "task": "jobs.double", "kwargs": {"n": 1}}])

    result = project.run("--manifest=m.jsonl", "-q", *options)

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*4 jobs that jobs of this session had sent (3 jobs.index, 1*"])
    result.stdout.no_fnmatch_line("*jobs.double*")


@pytest.mark.ring(2)
def test_what_waits_in_queues_of_its_own_is_run_by_a_resume(project: Project) -> None:
    """Also where the resume itself has nothing to send: its new workers consume these queues."""
    project.hold("a")
    rows: list[dict[str, object]] = [{"id": "a", "task": "jobs.hold", "args": ["a"]}]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(3)]
    project.manifest("m.jsonl", [{**row, "queue": "bulk", "timeout": 60} for row in rows])
    data_of_a_killed_run(project)
    project.run("--manifest=m.jsonl", "--manifest-resume")
    found = project.verdicts()
    assert [found[f"d-{n}"] for n in range(3)] == ["passed"] * 3
    assert project.ran() == {"a": 1, "0": 1, "1": 1, "2": 1}
