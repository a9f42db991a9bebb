"""``pytest --manifest-check`` on brokers that are no Redis: RabbitMQ, and Amazon's queues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import boto3
import pytest
from kombu import Connection

from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.stacks.servers import sqs

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]
JSON = "--manifest-check=json"
HEAVY = "check-heavy"
QUORUM = f"""

from kombu import Queue

app.conf.task_queues = [
    Queue("celery"), Queue("{HEAVY}", queue_arguments={{"x-queue-type": "quorum"}})
]


@app.task(name="jobs.late", acks_late=True, time_limit=7200)
def late():
    pass
"""
DELAYING = 28
"""Queues that Celery declares for delayed messages, where the app has a quorum queue."""


def findings(result: pytest.RunResult) -> set[tuple[str, str, str]]:
    """Level, check and message of each."""
    found = json.loads(result.stdout.str())["findings"]
    return {(one["level"], one["check"], one["message"]) for one in found}


def one_of(result: pytest.RunResult, level: str, check: str, words: str) -> str:
    """The one finding of this level and check that has these words."""
    [message] = [
        text
        for at, about, text in findings(result)
        if (at, about) == (level, check) and words in text
    ]
    return message


def counts(url: str, *names: str) -> dict[str, int | None]:
    """Waiting messages of each queue, None where there is no such queue."""
    found: dict[str, int | None] = {}
    with Connection(url) as connection:
        for name in names:
            try:
                with connection.channel() as channel:
                    declared = channel.queue_declare(queue=name, passive=True)
            except connection.channel_errors:
                found[name] = None
            else:
                found[name] = declared.message_count
    return found


@pytest.fixture
def rabbitmq(rabbitmq_url: str) -> Iterator[str]:
    """URL of a RabbitMQ that has none of the queues afterwards."""
    yield rabbitmq_url
    delaying = [f"celery_delayed_{number}" for number in range(DELAYING)]
    with Connection(rabbitmq_url) as connection:
        for name in ["celery", HEAVY, *delaying]:
            connection.default_channel.queue_delete(name)


@pytest.mark.rabbitmq
def test_rabbitmq_is_asked_what_it_would_do(project: Project, rabbitmq: str, broker: str) -> None:
    """What is held for too long, a queue nobody consumes."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs + QUORUM)
    project.manifest(
        "m.jsonl",
        [
            {"id": "soon", "task": "jobs.double", "queue": HEAVY, "countdown": 60},
            {"id": "much later", "task": "jobs.nap", "countdown": 2000},
            {"id": "long", "task": "jobs.late"},
            {"id": "lost", "task": "jobs.hold", "queue": "nowhere"},
        ],
    )
    at = (f"--manifest-broker={rabbitmq}", f"--manifest-backend={broker}")
    with worker(project, rabbitmq, *INSTRUMENTED, "-Q", f"celery,{HEAVY}", backend=broker):
        result = project.run(JSON, "--manifest=m.jsonl", *at)
        app_alone = project.run(JSON, *at)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert {check for level, check, _ in findings(result) if level == "error"} == {"queues"}
    assert "jobs.hold" in one_of(result, "error", "queues", "'nowhere'")
    assert "for 2000 s" in one_of(result, "warning", "limits", "jobs.nap")
    assert "for 7200 s" in one_of(result, "warning", "limits", "jobs.late")
    assert app_alone.ret == 0
    assert one_of(app_alone, "ok", "queues", "consumed")
    assert counts(rabbitmq, "celery", HEAVY, "nowhere") == {"celery": 0, HEAVY: 0, "nowhere": None}


@contextmanager
def amazon(broker: str, **timeouts: str) -> Iterator[dict[str, str]]:
    """Queues of a server at this URL, made with these timeouts (s): name -> URL."""
    client = boto3.client(
        "sqs",
        endpoint_url=f"http://127.0.0.1:{urlsplit(broker).port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    made = {
        name: client.create_queue(QueueName=name, Attributes={"VisibilityTimeout": seconds})
        for name, seconds in timeouts.items()
    }
    yield {name: said["QueueUrl"] for name, said in made.items()}
    listed = client.list_queues().get("QueueUrls", [])
    client.close()
    assert {url.rpartition("/")[2] for url in listed} == set(timeouts), "the check made none"


def test_sqs_says_what_it_can_and_what_it_cannot_is_told(project: Project, broker: str) -> None:
    """Nobody can be asked; each queue has its timeout, and one that cannot be read is a warning."""
    with sqs() as server, amazon(server.broker, celery="7") as urls:
        keys = {"region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}
        queues = {
            "celery": {**keys, "url": urls["celery"]},
            "gone": {**keys, "url": urls["celery"] + "-gone"},
        }
        options = {"region": "us-east-1", "visibility_timeout": 500, "predefined_queues": queues}
        jobs = (project.path / "jobs.py").read_text("utf-8")
        project.write("jobs.py", f"{jobs}\n\napp.conf.broker_transport_options = {options!r}\n")
        project.manifest(
            "m.jsonl",
            [
                {"id": "held", "task": "jobs.double", "countdown": 10},
                {"id": "elsewhere", "task": "jobs.nap", "queue": "gone"},
            ],
        )
        at = (f"--manifest-broker={server.broker}", f"--manifest-backend={broker}")
        result = project.run(JSON, "--manifest=m.jsonl", *at)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert one_of(result, "unchecked", "workers", "sqs:// carries no remote control")
    refusal = one_of(result, "error", "limits", "entry 'held'")
    assert "after 7 s" in refusal
    assert "raise the VisibilityTimeout of the queue" in refusal
    warning = one_of(result, "warning", "limits", "queue 'gone' cannot be read")
    assert "GetQueueAttributes" in warning
