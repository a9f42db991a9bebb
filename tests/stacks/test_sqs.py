"""Amazon's queues, as moto plays them: nobody can be asked, and each queue has its own timeout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest

from pytest_manifest.broker.checks import demand_of
from pytest_manifest.broker.preflight import Preflight, preflight
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from tests.contract.work import run_work, verdicts_of
from tests.live.broker_support import publishing
from tests.stacks.servers import sqs

pytestmark = pytest.mark.live
REGION = "us-east-1"


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """URL of a private server, whose queue ``celery`` holds a message for 7 s."""
    with sqs() as server:
        port = urlsplit(server.broker).port
        client = boto3.client(
            "sqs",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        client.create_queue(QueueName="celery", Attributes={"VisibilityTimeout": "7"})
        client.close()
        yield server.broker


def _preflight(broker: str, *entries: Entry) -> Preflight:
    with publishing(StackAddress(broker, "cache+memory://", None, False)) as publisher:
        return preflight(publisher, demand_of(entries))


def _names(publisher: Publisher) -> set[str]:
    with publisher.control.channel() as channel:
        urls = channel.sqs().list_queues().get("QueueUrls", [])
    return {url.rpartition("/")[2] for url in urls}


def test_that_nobody_can_be_asked_is_said(broker: str) -> None:
    """That no answer came would sound as if workers were missing."""
    [warning] = _preflight(broker, Entry(id="one", task="jobs.add")).said("warning")
    assert "sqs:// carries no remote control" in warning


def test_the_queue_says_how_long_it_waits(broker: str) -> None:
    """Its own timeout holds, whatever the app has configured for new ones."""
    held = Entry(id="one", task="jobs.add", countdown=10)
    [refusal] = _preflight(broker, held).holding
    assert "after 7 s" in refusal.message
    assert "raise the VisibilityTimeout of the queue" in refusal.message


def test_a_timeout_that_cannot_be_read_is_told(broker: str) -> None:
    """The app's own is taken for it, which may be longer than the queue's."""
    there = {"url": "http://127.0.0.1:1/000000000000/gone", "region": REGION}
    options = {"region": REGION, "predefined_queues": {"celery": there}}
    held = Entry(id="one", task="jobs.add", countdown=10)
    with publishing(StackAddress(broker, "cache+memory://", None, False)) as publisher:
        publisher.app.conf.broker_transport_options = options
        found = preflight(publisher, demand_of([held]))
    assert found.holding == []
    [warning] = [one for one in found.said("warning") if "cannot be read" in one]
    assert "queue 'celery'" in warning
    assert "1800 s count here" in warning


def test_a_queue_that_is_not_there_is_made_with_the_apps(broker: str) -> None:
    """kombu's default is half an hour."""
    held = Entry(id="one", task="jobs.add", queue="other", countdown=10)
    assert _preflight(broker, held).holding == []


def test_no_queue_is_made_for_answers(broker: str) -> None:
    """Nor anything sent to whom nobody listens."""
    with publishing(StackAddress(broker, "cache+memory://", None, False)) as publisher:
        preflight(publisher, demand_of([Entry(id="one", task="jobs.add")]))
        publisher.revoke(["some-task"])
        assert _names(publisher) == {"celery"}


def test_what_nobody_reports_when_time_is_over_is_pending(
    broker: str, valkey: str, tmp_path: Path
) -> None:
    """Whether a worker is started would be asked in vain."""
    address = StackAddress(broker, valkey, None, is_private=False)
    entry = Entry(id="one", task="jobs.add")
    verdict = verdicts_of(run_work(address, tmp_path, {"one": entry}, deadline=1.0))["one"].verdict
    assert verdict.verdict == "pending"
    assert "no worker can be asked on this broker" in verdict.sentence
    assert "may still be queued or running" in verdict.sentence
