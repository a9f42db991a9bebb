"""An entry whose queue cannot be had: its own fault, and nobody else's."""

from __future__ import annotations

import pytest
import redis
from kombu import Connection

from tests.plugin.conftest import Project

pytestmark = pytest.mark.live

BESIDE = "beside"


def entries(project: Project, *queues: str, routed: bool = False) -> None:
    """One entry for each of these queues, and three that go where all others go."""
    rows: list[dict[str, object]] = [
        {"id": f"odd-{n}", "task": "jobs.double", "kwargs": {"n": n, "key": f"odd-{n}"}, "queue": q}
        for n, q in enumerate(queues)
    ]
    rows += [
        {"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n, "key": f"d-{n}"}}
        for n in range(3)
    ]
    if routed:
        rows.append({"id": "nap", "task": "jobs.nap", "kwargs": {"sec": 0, "key": "nap"}})
    project.manifest("m.jsonl", rows)


def test_names_of_the_brokers_own_on_the_private_stack(project: Project) -> None:
    """The entries are refused with the reason, by entry or by route; the others run, once."""
    project.write(
        "jobs.py",
        (project.path / "jobs.py").read_text("utf-8")
        + '\napp.conf.task_routes = {"jobs.nap": {"queue": "unacked"}}\n',
    )
    names = ("_kombu.binding.celery", "celery.pidbox", "celeryev.1", "elsewhere")
    entries(project, *names, routed=True)
    result = project.run("--manifest=m.jsonl", "-v")
    result.assert_outcomes(passed=4, failed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*queue '_kombu.binding.celery', and that is where kombu keeps*",
            "*queue 'celery.pidbox', and that is a mailbox*",
            "*queue 'unacked', and that is where kombu keeps*",
        ]
    )
    assert project.ran() == {"odd-3": 1, "d-0": 1, "d-1": 1, "d-2": 1}


@pytest.mark.ring(2)
def test_a_key_of_another_type(project: Project, broker: str) -> None:
    """A queue whose name is somebody's key on the broker is refused by it; the others are sent."""
    with redis.Redis.from_url(broker) as client:
        client.set(BESIDE, "a value")
        entries(project, BESIDE)
        url = f"--manifest-broker={broker}"
        result = project.run("--manifest=m.jsonl", url, "--manifest-deadline=3s")
        result.assert_outcomes(failed=1, errors=3)
        assert client.get(BESIDE) == b"a value"
        assert client.llen("celery") == 3
    result.stdout.fnmatch_lines(["*queue 'beside', and the broker refuses it: *WRONGTYPE*"])
    result.stdout.fnmatch_lines(["*3 pending*"])


@pytest.mark.ring(2)
@pytest.mark.rabbitmq
def test_a_queue_that_was_declared_otherwise(
    project: Project, broker: str, rabbitmq_url: str
) -> None:
    """RabbitMQ's 406 is about one queue: its channel is closed, and the others are sent."""
    with Connection(rabbitmq_url) as connection:
        channel = connection.default_channel
        channel.queue_declare(queue=BESIDE, durable=False, auto_delete=False)
        channel.queue_purge(queue="celery") if _exists(connection, "celery") else None
        try:
            entries(project, BESIDE)
            options = (f"--manifest-broker={rabbitmq_url}", f"--manifest-backend={broker}")
            result = project.run("--manifest=m.jsonl", *options, "--manifest-deadline=3s")
            result.assert_outcomes(failed=1, errors=3)
            assert channel.queue_declare(queue="celery", passive=True).message_count == 3
        finally:
            channel.queue_delete(queue=BESIDE)
            channel.queue_purge(queue="celery")
    result.stdout.fnmatch_lines(["*queue 'beside', and the broker refuses it: *406*"])
    result.stdout.fnmatch_lines(["*3 pending*"])


def _exists(connection: Connection, queue: str) -> bool:
    with connection.channel() as channel:
        try:
            channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors:
            return False
    return True
