"""The message of an entry is what its task's own ``apply_async`` would have sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any, Final

import pytest
from celery import Celery, Task
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.transport import memory

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress

RUN: Final = "20261124T150000-0a1b2c3d"
BROKER: Final = "memory://localhost/"
MODULE: Final = "app_of_a_message"
POST: Final = Exchange("post", type="topic")
QUEUES: Final = ("celery", "mails", "letters")
OURS: Final = ("timelimit", "argsrepr", "kwargsrepr", "ignore_result", "origin", "manifest_")
"""Beginnings of headers that say for how long a job may run, and whose message it is."""
TRANSPORTS: Final = ("delivery_tag", "reply_to", "expiration")
"""Properties of a message, not of its job. The last one has RabbitMQ drop it in silence."""
LATER: Final = datetime(2099, 1, 1, tzinfo=timezone.utc)


def queues() -> list[Queue]:
    """The queues of the app, on a direct exchange and on one of topics."""
    return [
        Queue("celery", Exchange("celery"), "celery"),
        Queue("mails", Exchange("mails"), "mails"),
        Queue("letters", POST, "post.#"),
    ]


def options(**values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Any of these options, or none."""
    return st.fixed_dictionaries({}, optional=values)


PRIORITY: Final = st.integers(0, 9)
SERIALIZER: Final = st.sampled_from(["json", "pickle"])
OF_TASK: Final = options(
    queue=st.sampled_from(QUEUES),
    routing_key=st.sampled_from(["post.a", "mails"]),
    priority=PRIORITY,
    expires=st.sampled_from([600, LATER, LATER.isoformat()]),
    serializer=SERIALIZER,
    compression=st.sampled_from(["zlib", "bzip2"]),
    delivery_mode=st.sampled_from([1, 2]),
    time_limit=st.just(20),
    soft_time_limit=st.just(10),
    mandatory=st.booleans(),
    ignore_result=st.booleans(),
    shadow_name=st.just(lambda task, *_: f"shown as {task.name}"),
)
BY_EXCHANGE: Final = {"exchange": "post", "routing_key": "post.c"}
OF_ROUTE: Final = options(
    queue=st.sampled_from(QUEUES),
    priority=PRIORITY,
    routing_key=st.just("post.b"),
    serializer=SERIALIZER,
    headers=st.just({"tenant": "a"}),
    retry=st.booleans(),
)
OF_APP: Final = options(
    task_default_priority=PRIORITY,
    task_default_queue=st.sampled_from(QUEUES),
    task_compression=st.just("zlib"),
    task_serializer=SERIALIZER,
    task_default_delivery_mode=st.sampled_from([1, 2]),
)
OF_ENTRY: Final = options(
    queue=st.sampled_from(QUEUES),
    priority=PRIORITY,
    eta=st.just(LATER),
    expires=st.just(LATER + timedelta(days=1)),
)


def by_arguments(
    name: str,
    args: list[object],
    kwargs: dict[str, object],
    options: dict[str, object],
    task: Task | None = None,
    **_: object,
) -> dict[str, object] | None:
    """Route by what the job is about, and by what its task and its caller say."""
    known = task is not None and {"priority", "serializer", "compression"} <= options.keys()
    return {"priority": 4} if known and args else None


@st.composite
def apps(draw: st.DrawFn) -> Celery:
    """An app with one task, of which all that Celery asks for such things may speak."""
    app = Celery("message", broker=BROKER, set_as_current=False, fixups=())
    app.conf.update(draw(OF_APP), task_queues=queues())
    routes: dict[str, object] = {"t": draw(OF_ROUTE)}
    app.conf.task_routes = draw(st.sampled_from([None, routes, (by_arguments, routes)]))
    app.conf.task_annotations = draw(st.sampled_from([None, {"t": draw(OF_TASK)}]))
    kind = type("Base", (Task,), {"abstract": True, **draw(OF_TASK)})
    own = draw(OF_TASK) | draw(st.sampled_from([{}, BY_EXCHANGE]))

    @app.task(name="t", base=kind, shared=False, **own)  # type: ignore[untyped-decorator]  # Celery has no types
    def task(*_args: object, **_kwargs: object) -> None: ...

    return app


@contextmanager
def named(app: Celery) -> Iterator[StackAddress]:
    """Give the app a name by which it is found, like any other."""
    module = sys.modules[MODULE] = ModuleType(MODULE)
    module.app = app  # type: ignore[attr-defined]  # a module made for it
    try:
        yield StackAddress(BROKER, "cache+memory://", f"{MODULE}:app", is_private=False)
    finally:
        del sys.modules[MODULE]


@contextmanager
def empty_broker(app: Celery) -> Iterator[None]:
    """Begin and end with a broker that has the app's queues, and nothing in them."""
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()
    with app.connection_for_write() as connection:
        for queue in queues():
            queue(connection.default_channel).declare()
    try:
        yield
    finally:
        memory.Channel.queues.clear()
        memory.Transport.global_state.clear()


def taken() -> list[dict[str, Any]]:
    """Take all messages out of the broker, each with its queue."""
    return [
        {"of": name, **queue.get_nowait()}
        for name, queue in memory.Channel.queues.items()
        for _ in range(queue.qsize())
    ]


def told(message: Mapping[str, Any]) -> dict[str, object]:
    """What a message says, but for what is ours; a relative time is as good as any other."""
    headers = {
        name: value for name, value in message["headers"].items() if not name.startswith(OURS)
    }
    if headers["expires"] is not None and not headers["expires"].startswith("2099"):
        headers["expires"] = "relative"
    properties = {
        name: value for name, value in message["properties"].items() if name not in TRANSPORTS
    }
    rest = {name: value for name, value in message.items() if name != "properties"}
    return json.loads(json.dumps({**rest, "headers": headers, "properties": properties}))  # type: ignore[no-any-return]  # json.loads gives Any


@pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")
@settings(deadline=None)
@given(apps(), OF_ENTRY, st.sampled_from([[], ["tea", {"cups": 2}]]))
def test_it_is_what_apply_async_would_have_sent(
    app: Celery, said: dict[str, Any], args: list[Any]
) -> None:
    """But for our headers, and for what the entry sets itself."""
    attempt = attempt_of(RUN, Entry(id="e", task="t", args=args, **said), 1)
    theirs = {**said, "eta": said.get("eta")}
    with named(app) as address, empty_broker(app):
        app.tasks["t"].apply_async(args, {}, task_id=attempt.task_id, retry=False, **theirs)
        expected = taken()
        with closing(Publisher(address, stream="s", ttl=60)) as publisher:
            result = publisher.publish([attempt], datetime.now(timezone.utc))
        got = taken()
    if expected:
        assert (result.certain, result.error, result.refused) == ([attempt.task_id], None, {})
    assert [told(one) for one in got] == [told(one) for one in expected]
