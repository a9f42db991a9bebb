"""Messages by which a job goes on, as the worker that runs it sends them, in both protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from kombu import Queue

from pytest_manifest.schema import wire
from pytest_manifest.worker.job import Execution, delivery_of
from pytest_manifest.worker.signals import on_publish

OWN = "0123abcd-1"
PROTOCOLS = pytest.mark.parametrize("protocol", [1, 2])


class Running:
    """A job that is in its first try, and the records that its worker sent of it."""

    def __init__(self) -> None:
        sent = {wire.HEADER_RUN: "20261124T150000-0123abcd", wire.HEADER_ENTRY: "entry"}
        delivery = delivery_of(Context({"id": OWN, "task": "add", wire.HEADER_ATTEMPT: 1, **sent}))
        assert delivery is not None
        self.execution = Execution(delivery, [1], {})
        self.records: list[dict[str, Any]] = []
        self.execution.announce = lambda record: self.records.append(json.loads(record))


@pytest.fixture
def running() -> Iterator[Running]:
    """Have it run while the test does."""
    one = Running()
    one.execution.begin()
    yield one
    one.execution.end(killed=False)


def _published(protocol: int, task_id: str, **fields: Any) -> dict[str, Any]:
    """Give the headers of a message of this protocol, as Celery sends it then."""
    amqp = Celery(set_as_current=False).amqp
    make = amqp.as_task_v1 if protocol == 1 else amqp.as_task_v2
    message = make(task_id, "add", (1,), {}, **fields)
    on_publish(headers=message.headers, body=message.body)
    return dict(message.headers)


@PROTOCOLS
def test_a_retry_carries_the_job_and_what_came_of_its_tries(
    protocol: int, running: Running
) -> None:
    """And is recorded as the end of this one, with the time at which the next is due."""
    due = datetime(2026, 11, 24, 16, tzinfo=timezone.utc)
    headers = _published(protocol, OWN, retries=1, eta=due)
    assert headers[wire.HEADER_ENTRY] == "entry"
    assert [one["retries"] for one in headers[wire.HEADER_RETRIED]] == [0]
    [record] = running.records
    assert (record["how"], record["next_at"]) == ("retry", wire.timestamp(due))


@pytest.mark.parametrize(("retries", "how"), [(1, "retry"), (0, "task")])
def test_where_a_job_goes_on_is_recorded(running: Running, retries: int, how: str) -> None:
    """The queue of a retry, or of a replacement, need not be that of the first message."""
    headers: dict[str, object] = {"id": OWN, "task": "add", "retries": retries}
    on_publish(headers=headers, body=((), {}, {}), routing_key="key", declare=[Queue("slow")])
    [record] = running.records
    assert (record["how"], record["queue"]) == (how, "slow")


@PROTOCOLS
def test_a_replacement_carries_the_job_one_hop_on(protocol: int, running: Running) -> None:
    """It has the job's own id, and begins its tries anew."""
    headers = _published(protocol, OWN)
    assert headers[wire.HEADER_HOP] == 1
    assert wire.HEADER_RETRIED not in headers
    assert [one["how"] for one in running.records] == ["task"]


@PROTOCOLS
def test_another_job_that_the_task_sends_is_not_ours(protocol: int, running: Running) -> None:
    """Its result is nobody's receipt."""
    assert wire.HEADER_RUN not in _published(protocol, "other")
    assert running.records == []
