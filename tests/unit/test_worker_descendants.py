"""Tasks that a job starts: their messages' headers, what is told of them, and what is announced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context
from celery.signals import task_postrun

from pytest_manifest.schema import wire
from pytest_manifest.worker.announcements import (
    End,
    announce_rest,
    children_of,
    wants_children,
)
from pytest_manifest.worker.children import Children, Message
from pytest_manifest.worker.handoff import job_headers
from pytest_manifest.worker.job import Execution, delivery_of
from pytest_manifest.worker.receipt import finished_record, origin, started_record
from pytest_manifest.worker.signals import on_publish, on_published

OWN, ROOT = "0123abcd-1", "0123abcd-0"
RUN = "20261124T150000-0123abcd"
PROTOCOLS = pytest.mark.parametrize("protocol", [1, 2])
HEADERS: dict[str, object] = {
    wire.HEADER_RUN: RUN,
    wire.HEADER_ENTRY: "entry",
    wire.HEADER_ATTEMPT: 1,
    wire.HEADER_STREAM: "stream",
    wire.HEADER_TTL: 60,
    wire.HEADER_ROOT: ROOT,
    wire.HEADER_PARENT: ROOT,
    wire.HEADER_EXECUTION: "execution",
}


class Running:
    """A descendant that runs, and the records that its worker sent."""

    def __init__(self) -> None:
        request = Context({"id": OWN, "task": "add", **HEADERS})
        delivery = delivery_of(request)
        assert delivery is not None
        self.request = request
        self.delivery = delivery
        self.execution = Execution(delivery, [1], {})
        self.records: list[dict[str, Any]] = []
        self.is_down = False
        self.execution.children = self.children = children_of(delivery, self._announce)
        self.execution.announce = lambda record: self._announce("stream", 60, record)

    def _announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        if self.is_down:
            raise ConnectionError("the store is away")
        assert (stream, ttl) == ("stream", 60)
        self.records.append(json.loads(record))

    def at_end(self) -> dict[str, Any]:
        end: dict[str, Any] = json.loads(json.dumps(self.children.at_end()))
        return end

    def told(self) -> list[dict[str, Any]]:
        return [one for record in self.records for one in record["children"]]


@pytest.fixture
def running() -> Iterator[Running]:
    """Have it run while the test does."""
    one = Running()
    one.execution.begin()
    yield one
    one.execution.end(killed=False)


def publish(protocol: int, task_id: str, **fields: Any) -> dict[str, Any]:
    """Give the headers of a message of this protocol, as Celery sends it then."""
    amqp = Celery(set_as_current=False).amqp
    make = amqp.as_task_v1 if protocol == 1 else amqp.as_task_v2
    own = fields.pop("headers", {})
    message = make(task_id, "add", (1,), {}, **fields)
    message.headers.update(own)
    on_publish(headers=message.headers, body=message.body, routing_key="queue")
    return dict(message.headers)


@PROTOCOLS
def test_a_child_has_the_headers_of_its_job(protocol: int, running: Running) -> None:
    """And is told of before it is sent."""
    headers = publish(protocol, "child")
    ours = {name: value for name, value in headers.items() if name.startswith("manifest")}
    assert wire.parse_timestamp(ours.pop(wire.HEADER_SENT_AT)) is not None
    expected = {**HEADERS, wire.HEADER_PARENT: OWN}
    del expected[wire.HEADER_EXECUTION]
    assert ours == expected
    [record] = running.records
    assert wire.parse_timestamp(record.pop("spawned_at")) is not None
    assert record == {
        "kind": "spawned",
        "run": RUN,
        "entry": "entry",
        "attempt": 1,
        "root": ROOT,
        "parent": OWN,
        "execution": "execution",
        "children": [
            {"task_id": "child", "task": "add", "how": "call", "queue": "queue", "chords": []}
        ],
    }


@PROTOCOLS
def test_a_child_that_the_broker_took_is_sent(protocol: int, running: Running) -> None:
    """One that it did not take is not."""
    for task_id in ("first", "second"):
        publish(protocol, task_id)
    body = {"id": "first"} if protocol == 1 else ()
    on_published(headers={"id": "first"} if protocol == 2 else {}, body=body)
    assert running.children.at_end()["unsent"] == ["second"]
    assert running.children.at_end() == {"unsent": ["second"]}
    assert running.children.count == 2


def test_a_message_that_carries_a_job_is_no_child(running: Running) -> None:
    """It has our headers already, and goes where its job goes."""
    carried = job_headers(running.delivery, 1)
    headers = publish(2, "another", headers=carried)
    assert headers[wire.HEADER_PARENT] == ROOT
    assert running.records == []


def test_headers_that_a_task_hands_on_are_made_a_childs(running: Running) -> None:
    """All of its message's: they do not make the child's one more execution of its own."""
    copied = {**HEADERS, wire.HEADER_RETRIED: [{}], wire.HEADER_HOP: 2}
    headers = publish(2, "child", headers=copied)
    assert headers[wire.HEADER_PARENT] == OWN
    assert not headers.keys() & {
        wire.HEADER_EXECUTION,
        wire.HEADER_RETRIED,
        wire.HEADER_HOP,
        wire.HEADER_RECEIVED_AT,
    }
    assert [one["task_id"] for one in running.told()] == ["child"]


@PROTOCOLS
def test_a_retry_stays_a_descendant(protocol: int, running: Running) -> None:
    """And says what its try has not sent."""
    publish(protocol, "child")
    headers = publish(protocol, OWN, retries=1)
    assert (headers[wire.HEADER_ROOT], headers[wire.HEADER_PARENT]) == (ROOT, ROOT)
    assert running.records[-1]["kind"] == "handed_on"
    assert running.records[-1]["unsent"] == ["child"]


def test_records_say_where_a_descendant_comes_from(running: Running) -> None:
    """Its start and its end; those of an entry's own job do not."""
    start = json.loads(started_record(running.execution))
    assert (start["root"], start["parent"]) == (ROOT, ROOT)
    end = json.loads(finished_record("x", {}, rest=origin(running.delivery)))
    assert (end["root"], end["parent"]) == (ROOT, ROOT)
    own = delivery_of(Context({"id": ROOT, **HEADERS, wire.HEADER_PARENT: None}))
    assert own is not None
    assert origin(own) == {}


def test_a_store_that_is_away_is_told_at_the_end(running: Running) -> None:
    """The message goes out all the same; its record is in that of the end."""
    running.is_down = True
    assert wire.HEADER_RUN in publish(2, "child")
    running.is_down = False
    publish(2, "other")
    [late] = running.at_end()["spawned"]
    assert [one["task_id"] for one in late["children"]] == ["child"]


def test_a_job_that_goes_on_has_no_end_to_tell_by(running: Running) -> None:
    """What the store did not take before is told before the message that carries it on."""
    running.is_down = True
    publish(2, "child")
    running.is_down = False
    publish(2, OWN, retries=1)
    assert [record["kind"] for record in running.records] == ["spawned", "handed_on"]
    assert running.children.at_end() == {"unsent": ["child"]}


def test_children_are_wanted_where_they_can_be_told() -> None:
    """By a run that asks, and that has a stream."""

    def wanted(**headers: object) -> bool:
        delivery = delivery_of(Context({"id": OWN, **HEADERS, **headers}))
        assert delivery is not None
        return wants_children(delivery)

    assert wanted()
    assert not wanted(manifest_root=None)
    assert not wanted(manifest_stream="")


def nothing(*_: object) -> None:
    """Be a task."""


def by_id(task_id: str) -> None:
    """Be an errback that Celery sends as a task."""


class Canvas:
    """An app whose messages go nowhere, and its signatures."""

    def __init__(self) -> None:
        self.app = Celery(
            "canvas", broker="memory://", backend="cache+memory://", set_as_current=False
        )
        for name in ("a", "b", "c"):
            self.app.task(nothing, name=name, shared=False)
        self.app.task(by_id, name="errback", shared=False)
        self.a, self.b, self.c = (self.app.tasks[name].si() for name in "abc")
        self.errback = self.app.tasks["errback"].s()


@pytest.fixture
def canvas() -> Canvas:
    return Canvas()


def after(running: Running, canvas: Canvas, end: End, **fields: Any) -> list[dict[str, Any]]:
    """Announce what follows an end of the running task, whose message has these fields."""
    vars(running.request).update(fields)
    announce_rest(running.children, canvas.app, running.request, end, speaks_on=False)
    found: list[dict[str, Any]] = running.at_end().get("announced", [])
    return found


BODIES = pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda one: one.c, ["c"]),
        (lambda one: chain(one.b, one.c, app=one.app), ["b"]),
        (lambda one: group(one.b, one.c, app=one.app), ["b", "c"]),
        (lambda one: chord([one.a, one.b], one.c, app=one.app), ["a", "b"]),
    ],
    ids=["task", "chain", "group", "chord"],
)


@BODIES
def test_a_chords_body_is_announced(
    running: Running, canvas: Canvas, make: Any, names: list[str]
) -> None:
    """By its messages' ids; the first of them fulfil it, told as what they are."""
    body = make(canvas)
    body.freeze("body")
    [one] = after(running, canvas, End.SUCCESS, group="g", chord=body)
    told = one["key"], one["how"], one["task"], one["count"]
    assert told == ("g", "chord_body", names[0], len(names))
    assert "is_off" not in one
    for task_id in one["task_ids"]:
        publish(2, task_id)
    publish(2, "of a handler")
    assert [child.get("fulfils") for child in running.told()] == ["g"] * len(names) + [None]
    assert [child["how"] for child in running.told()][: len(names)] == ["chord_body"] * len(names)


@pytest.mark.parametrize("end", [End.FAILURE, End.OTHER])
def test_a_member_that_does_not_succeed_takes_the_body_away(
    end: End, running: Running, canvas: Canvas
) -> None:
    """However it ended, with all that waits for that body."""
    canvas.c.freeze("body")
    canvas.c.set(chord=canvas.b, group_id="outer")
    found = after(running, canvas, end, group="g", chord=canvas.c)
    assert {one["key"]: one["is_off"] for one in found} == {"g": True, "outer": True}


def test_a_chain_that_stops_takes_the_body_of_its_last_task_away(
    running: Running, canvas: Canvas
) -> None:
    """That is the chord's member, and never runs."""
    canvas.b.set(chord=canvas.c, group_id="g")
    [one] = after(running, canvas, End.FAILURE, chain=[canvas.b, canvas.a])
    assert (one["key"], one["is_off"]) == ("g", True)


def test_a_body_that_carries_a_job_is_not_announced(running: Running, canvas: Canvas) -> None:
    """The job itself is waited for."""
    canvas.c.set(headers=job_headers(running.delivery, 1))
    assert after(running, canvas, End.SUCCESS, group="g", chord=canvas.c) == []


def test_errbacks_are_announced(running: Running, canvas: Canvas) -> None:
    """By their number: they have no ids before they are sent."""
    errbacks = [canvas.errback, canvas.errback.clone()]
    [one] = after(running, canvas, End.FAILURE, errbacks=errbacks)
    expected = {"key": "execution", "how": "errback", "task": "errback", "count": 2}
    assert one == {**expected, "task_ids": []}
    for task_id in ("first", "second", "third"):
        running.children.adopt(sent("errback", task_id), {})
    assert [child.get("fulfils") for child in running.told()] == ["execution", "execution", None]


def test_errbacks_of_other_ends_are_not(running: Running, canvas: Canvas) -> None:
    """Celery runs them after failures only."""
    assert after(running, canvas, End.OTHER, errbacks=[canvas.errback]) == []
    assert after(running, canvas, End.SUCCESS, errbacks=[canvas.errback]) == []


def test_errbacks_of_a_body_are_announced_by_members_that_fail(
    running: Running, canvas: Canvas
) -> None:
    """Whichever member ends last sends them, also one that succeeded."""
    canvas.c.freeze("body")
    canvas.c.link_error(canvas.errback)
    fields = {"group": "g", "chord": canvas.c}
    found = after(running, canvas, End.FAILURE, **fields)
    assert {(one["key"], one["how"]) for one in found} == {
        ("g", "chord_body"),
        ("g/errbacks", "errback"),
    }
    [one] = after(running, canvas, End.SUCCESS, **fields)
    assert one["how"] == "chord_body"
    running.children.adopt(sent("errback", "sent", parent_id="body"), {})
    [child] = running.told()
    assert (child["how"], child["fulfils"]) == ("errback", "g/errbacks")


@pytest.mark.parametrize("is_here", [True, False])
def test_receivers_of_a_tasks_end_are_announced(
    running: Running, canvas: Canvas, *, is_here: bool
) -> None:
    """Where they are called in this process: another one does not tell when they are through."""

    def receiver(**_: object) -> None:
        """Might start a task."""

    vars(running.request)["task"] = canvas.a.task
    task_postrun.connect(receiver)
    try:
        announce_rest(running.children, canvas.app, running.request, End.SUCCESS, speaks_on=is_here)
    finally:
        task_postrun.disconnect(receiver)
    announced = running.at_end().get("announced", [])
    assert [(one["how"], one["key"]) for one in announced] == [
        ("after", "execution/after")
    ] * is_here
    running.children.close()
    assert [one.get("closes") for one in running.records] == ["execution/after"] * is_here


def test_what_cannot_be_announced_changes_nothing(running: Running, canvas: Canvas) -> None:
    """A chord of a form that nobody knows is logged."""
    assert after(running, canvas, End.SUCCESS, group="g", chord={"subtask_type": "chain"}) == []


def sent(task: str, task_id: str, parent_id: str = OWN) -> Message:
    return Message(task_id, task, None, parent_id, None, None)


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({}, "call"),
        ({"group_id": "g"}, "group"),
        ({"group_id": "g", "chord": {"task": "c"}}, "chord"),
    ],
)
def test_how_a_child_is_started(running: Running, fields: dict[str, Any], how: str) -> None:
    """As far as its message tells."""
    publish(2, "child", **fields)
    assert [one["how"] for one in running.told()] == [how]


def test_links_and_what_follows_are_told_as_such(running: Running, canvas: Canvas) -> None:
    """By what the task's own message asked for."""
    canvas.a.set(task_id="next")
    link = canvas.app.signature("add")
    running.children = Children({"parent": OWN}, {}, running.records.append, [link], canvas.a)
    running.execution.children = running.children
    publish(2, "next", chord={"task": "c"})
    publish(2, "some")
    assert [one["how"] for one in running.told()] == ["chain", "link"]
