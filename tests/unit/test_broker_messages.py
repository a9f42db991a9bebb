"""Messages, built without a broker."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.broker.messages import MessageBuilder, Outgoing
from pytest_manifest.broker.routing import AppRouting, queue_name
from pytest_manifest.schema import Entry

RUN = "20261124T150000-0a1b2c3d"
SENT_AT = datetime(2026, 11, 24, 16, 0, tzinfo=timezone(timedelta(hours=1)))


def app_with(**conf: object) -> Celery:
    """Return an app that knows no broker."""
    app = Celery("messages", set_as_current=False, fixups=())
    app.conf.update(conf)
    return app


def refusal(entry: Entry, app: Celery) -> str:
    """Why no message is made of this entry, between two others of which there is one."""
    builder = MessageBuilder(app, AppRouting(app, app.tasks), stream="s", ttl=60)
    plain = [Entry(id=name, task="u") for name in ("before", "behind")]
    tried = [attempt_of(RUN, one, 1) for one in (plain[0], entry, plain[1])]
    built, refused = builder.build(tried, SENT_AT)
    assert [one.attempt for one in built] == [tried[0], tried[2]]
    assert list(refused) == [tried[1].task_id]
    return refused[tried[1].task_id].phrase()


def build(entry: Entry, app: Celery | None = None, *, rpc: bool = False) -> Outgoing:
    """Build the message of one entry."""
    app = app or app_with()
    builder = MessageBuilder(app, AppRouting(app, app.tasks), stream="s", ttl=60, rpc=rpc)
    [outgoing], refused = builder.build([attempt_of(RUN, entry, 2)], SENT_AT)
    assert refused == {}
    return outgoing


def headers(outgoing: Outgoing) -> dict[str, Any]:
    """Return Celery's headers of a message."""
    message: Any = outgoing.message
    return dict(message.headers)


@pytest.mark.parametrize(
    ("entry", "eta", "expires"),
    [
        (Entry(id="e", task="t"), None, None),
        (Entry(id="e", task="t", countdown=0, expires=0), None, SENT_AT),
        (
            Entry(id="e", task="t", countdown=1.5, expires=9),
            SENT_AT + timedelta(seconds=1.5),
            SENT_AT + timedelta(seconds=9),
        ),
        (
            Entry(
                id="e",
                task="t",
                eta=datetime(2027, 1, 1, tzinfo=timezone.utc),
                expires=datetime(2027, 1, 2, tzinfo=timezone.utc),
            ),
            datetime(2027, 1, 1, tzinfo=timezone.utc),
            datetime(2027, 1, 2, tzinfo=timezone.utc),
        ),
    ],
)
def test_times_count_from_the_sending(
    entry: Entry, eta: datetime | None, expires: datetime | None
) -> None:
    """Relative times become absolute ones from ``sent_at``; absolute ones stay."""
    found = headers(build(entry))

    assert [found["eta"], found["expires"]] == [
        None if moment is None else moment.isoformat() for moment in (eta, expires)
    ]


def test_our_headers() -> None:
    """Run, entry, attempt, sending time (UTC, µs), stream and its lifetime travel along."""
    assert build(Entry(id="é", task="t")).options["headers"] == {
        "manifest_run": RUN,
        "manifest_entry": "é",
        "manifest_attempt": 2,
        "manifest_sent_at": "2026-11-24T15:00:00.000000+00:00",
        "manifest_stream": "s",
        "manifest_ttl": 60,
        "manifest_root": attempt_of(RUN, Entry(id="é", task="t"), 2).task_id,
    }


def test_headers_of_a_route_stay() -> None:
    """Headers that the app's route adds travel beside ours."""
    app = app_with(task_routes={"t": {"queue": "q", "headers": {"tenant": "a"}}})
    found = build(Entry(id="e", task="t"), app).options["headers"]

    assert isinstance(found, dict)
    assert (found["tenant"], found["manifest_run"]) == ("a", RUN)


def test_timeout_is_the_hard_limit() -> None:
    """The smaller of the entry's timeout and the task's own; a whole number travels as one, and a
    soft limit never beyond the hard one."""
    app = app_with()

    @app.task(name="t", time_limit=9, soft_time_limit=4, shared=False)  # type: ignore[untyped-decorator]  # celery ships no types
    def task() -> None: ...

    assert headers(build(Entry(id="e", task="t", timeout=30.0), app))["timelimit"] == [9, 4]
    assert headers(build(Entry(id="e", task="t", timeout=5.0), app))["timelimit"] == [5, 4]
    assert headers(build(Entry(id="e", task="t", timeout=0.5), app))["timelimit"] == [0.5, 0.5]
    assert headers(build(Entry(id="e", task="t"), app))["timelimit"] == [9, 4]


def test_replies_go_to_the_queue_of_the_run() -> None:
    """With rpc:// the worker is told the run's own reply queue, else none."""
    message: Any = build(Entry(id="e", task="t"), rpc=True).message
    assert message.properties["reply_to"] == "manifest-replies-0a1b2c3d"
    message = build(Entry(id="e", task="t")).message
    assert message.properties["reply_to"] == ""


def test_shown_arguments_are_short() -> None:
    """What Flower and worker logs show of the arguments is cut; the entry's id never is."""
    found = headers(build(Entry(id="e", task="t", args=["x" * 10_000], kwargs={})))

    assert len(found["argsrepr"]) == 103
    assert found["kwargsrepr"] == f"[e] {{}}  # run {RUN}"


def test_routes_by_table_and_by_function() -> None:
    """Tables are looked up by name, functions with the arguments; a queue of the entry wins."""

    def by_arguments(name: str, args: list[Any], kwargs: Any, options: Any, **_: Any) -> Any:
        return {"queue": f"q{args[0]}"} if name == "f" else None

    app = app_with(task_routes=([("t.*", {"queue": "table"})], by_arguments))
    routed = {
        (task, queue, n): queue_name(
            build(Entry(id="e", task=task, args=[n], queue=queue), app).options
        )
        for task, queue, n in [("t.a", None, 1), ("f", None, 1), ("f", None, 2), ("f", "own", 2)]
    }

    assert list(routed.values()) == ["table", "q1", "q2", "own"]
    assert queue_name(build(Entry(id="e", task="other", args=[1]), app).options) == "celery"


def test_options_of_one_message_do_not_reach_another() -> None:
    """Messages routed alike get options of their own, with their own priority."""
    app = app_with(task_default_priority=1)
    routing = AppRouting(app, app.tasks)
    first = routing(Entry(id="a", task="t", priority=9))
    first["queue"] = "spoilt"

    assert routing(Entry(id="b", task="t"))["priority"] == 1
    assert queue_name(routing(Entry(id="b", task="t"))) == "celery"


def test_unknown_queue_is_named_with_the_known_ones() -> None:
    """An app that creates no missing queues refuses others, with the names it has."""
    app = app_with(task_create_missing_queues=False, task_default_queue="only")
    reason = refusal(Entry(id="e", task="t", queue="other"), app)
    assert re.search(r"entry 'e' goes to a queue .* task_queues are: only", reason)


@pytest.mark.parametrize(
    ("argument", "serializer"),
    [(object(), "yaml"), (1, "no such"), (lambda: 0, "pickle")],
    ids=["object", "serializer", "pickle"],
)
def test_what_cannot_be_serialised_is_named(argument: object, serializer: str) -> None:
    """An argument that the app's serializer refuses is the fault of its entry, and of no other."""
    fields: dict[str, Any] = {"args": [argument], "kwargs": {}, "timeout": 1.0}
    entry = Entry.model_construct(id="bad one", task="t", **fields)
    app = app_with(task_routes={"t": {"serializer": serializer}})
    assert refusal(entry, app).startswith("no message for t can be made of it")


def test_a_router_that_raises_refuses_what_it_was_asked_for() -> None:
    """The app's own code may raise anything about one entry; the next one has its message."""

    def route(name: str, *_: object, **__: object) -> None:
        if name == "t":
            raise RuntimeError("no way for t")

    reason = refusal(Entry(id="e", task="t"), app_with(task_routes=(route,)))
    assert reason == "no message for t can be made of it (RuntimeError: no way for t)"


@pytest.mark.parametrize(("protocol", "names_root"), [(1, False), (2, True)])
def test_a_root_is_named_where_workers_can_do_with_one(protocol: int, names_root: bool) -> None:
    """Workers of protocol 1 would run the last of a chain that replaces the job several times."""
    outgoing = build(Entry(id="e", task="t"), app_with(task_protocol=protocol))
    given: Any = outgoing.options["headers"]
    sent = {**headers(outgoing), **given}
    assert (sent["root_id"] == outgoing.attempt.task_id) is names_root
    assert (sent["root_id"] is None) is not names_root
