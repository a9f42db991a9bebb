"""What a broker refuses about a queue, and which names are nobody's."""

from __future__ import annotations

import pytest
from amqp.exceptions import (
    AccessRefused,
    ConnectionForced,
    PreconditionFailed,
    ResourceLocked,
)
from celery import Celery
from redis.exceptions import BusyLoadingError, NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pytest_manifest.broker.routing import refusal, reserved
from pytest_manifest.broker.transports import transport_of


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        NoPermissionError("No permissions to access a key"),
        PreconditionFailed("inequivalent arg 'durable'", (50, 10), "Queue.declare", 406),
        AccessRefused("access to queue 'x' refused", (50, 10), "Queue.declare", 403),
        ResourceLocked("cannot obtain exclusive access", (50, 10), "Queue.declare", 405),
    ],
)
def test_a_refusal_is_told_with_its_reason(error: Exception) -> None:
    """The broker answers, and will not have this queue."""
    assert str(error) in (refusal(error) or "")


@pytest.mark.parametrize(
    "error",
    [
        RedisTimeoutError("Timeout reading from socket"),
        BusyLoadingError("Redis is loading the dataset in memory"),
        ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        ResponseError("OOM command not allowed when used memory > 'maxmemory'"),
        ConnectionForced("broker shut down", (0, 0), "", 320),
        ConnectionRefusedError(),
    ],
)
def test_an_outage_is_no_refusal(error: Exception) -> None:
    """What may be over the next time is tried again."""
    assert refusal(error) is None


@pytest.mark.parametrize(
    ("name", "is_reserved"),
    [
        ("_kombu.binding.celery", True),
        ("unacked", True),
        ("unacked_index", True),
        ("w1@host.celery.pidbox", True),
        ("celery.pidbox", True),
        ("celeryev.0c2a", True),
        ("celery", False),
        ("celeryevents", False),
        ("unacked-mail", False),
    ],
)
def test_names_of_the_brokers_own(name: str, is_reserved: bool) -> None:
    """A job in such a queue would stop workers, or disturb what is said to them."""
    app = Celery("reserved", set_as_current=False)
    assert (reserved(name, app, transport_of("redis://h/0")) is not None) is is_reserved


def test_what_is_reserved_follows_the_app_and_the_broker() -> None:
    """An app may rename what is kept aside; RabbitMQ has no keys beside its queues."""
    app = Celery("reserved", set_as_current=False)
    app.conf.update(broker_transport_options={"unacked_key": "mine"}, event_queue_prefix="ev")
    assert reserved("mine", app, transport_of("redis://h/0"))
    assert reserved("ev.1", app, transport_of("redis://h/0"))
    assert not reserved("unacked", app, transport_of("redis://h/0"))
    assert not reserved("mine", app, transport_of("amqp://h"))
