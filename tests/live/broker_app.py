"""A stock Celery project, for tests: routes, priorities and tasks, and no word of this package."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar, cast
from uuid import UUID

from celery import Celery, chain, chord, group
from celery.exceptions import Ignore
from kombu import Exchange, Queue
from kombu.utils.json import register_type

app = Celery("tests.live.broker_app", set_as_current=False)
app.conf.update(
    task_default_queue="standard",
    task_routes={
        "stock.heavy": {"queue": "heavy", "priority": 7},
        "elsewhere.astray": {"queue": "news", "routing_key": "weather.rain"},
        "elsewhere.void": {"exchange": "void", "routing_key": "x"},
        "elsewhere.heavy": {"queue": "heavy", "priority": 7},
        "stock.topical": {"queue": "news", "routing_key": "news.sport"},
    },
    task_queues=[
        Queue("standard"),
        Queue("heavy"),
        Queue("news", Exchange("news", type="topic"), routing_key="news.#"),
    ],
    task_default_priority=2,
    broker_transport_options={
        "priority_steps": [0, 2, 5, 9],
        "global_keyprefix": "proj-",
        "visibility_timeout": int(os.environ.get("TEST_VISIBILITY_TIMEOUT", "3600")),
    },
    result_backend_transport_options={"global_keyprefix": "proj-"},
    result_serializer=os.environ.get("TEST_RESULT_SERIALIZER", "json"),
    result_accept_content=["json", "pickle"],
    result_extended=os.environ.get("TEST_RESULT_EXTENDED") == "1",
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=True,
)


F = TypeVar("F", bound=Callable[..., object])


def task(name: str, **options: object) -> Callable[[F], F]:
    """Register a task with this app only: a shared one would join every app of a test process."""
    return cast("Callable[[F], F]", app.task(shared=False, name=name, **options))


class OddError(Exception):
    """An exception with two arguments."""


@task("stock.echo")
def echo(value: object) -> object:
    """Return what was given."""
    return value


@task("stock.heavy", acks_late=True)
def heavy(value: object) -> object:
    """Go to a queue and a priority of its own."""
    return value


@task("stock.topical")
def topical(value: object = None) -> str:
    """Go through a topic exchange."""
    return "sport"


@task("stock.own", soft_time_limit=8)
def own(value: object) -> object:
    """Have a limit of its own."""
    return value


@task("stock.fail")
def fail() -> None:
    """Raise an exception that has two arguments."""
    raise OddError("no", 7)


@task("stock.kinds")
def kinds() -> dict[object, object]:
    """Return one of each type that kombu writes as JSON, and one that only this process knows."""
    register_type(Fraction, "fraction", lambda value: str(value), Fraction)
    return {
        "at": datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc),
        "day": date(2026, 11, 24),
        "price": Decimal("1.10"),
        "key": UUID(int=1),
        "text": b"bytes",
        "raw": b"\xff",
        "pair": (1, (2.5, None)),
        "share": Fraction(1, 3),
        7: True,
    }


@task("stock.own_mark")
def own_mark() -> dict[str, object]:
    """Return what looks like a type that kombu marks."""
    return {"__type__": "nobody's", "__value__": [1]}


@task("stock.not_a_number")
def not_a_number() -> float:
    """Return what JSON does not have, and Python's writes all the same."""
    return float("nan")


@task("stock.replaced", bind=True)
def replaced(self: Any, how: str) -> None:
    """Hand the job on, in each of the ways that Celery knows."""
    one, two = (app.signature("stock.echo", (n,), immutable=True) for n in (4, 5))
    ways = {
        "task": one,
        "chain": chain(two, one),
        "group": group(two, one),
        "chord": chord([two, two], one),
    }
    raise self.replace(ways[how])


@task("stock.patient", bind=True, max_retries=1)
def patient(self: Any, seconds: float) -> str:
    """Wait between two tries for longer than either may take."""
    if not self.request.retries:
        raise self.retry(countdown=seconds)
    return "tried twice"


@task("stock.ignore")
def ignore() -> None:
    """Leave no result at all."""
    raise Ignore


@task("stock.sleep")
def sleep(seconds: float) -> float:
    """Keep the worker busy."""
    time.sleep(seconds)
    return seconds


@task("stock.die")
def die() -> None:
    """Kill the process that runs it."""
    os._exit(3)
