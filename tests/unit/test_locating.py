"""Where jobs are: what two looks prove together, and what the nodes' answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import attempt_of, new_run_id
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.locating import open_locator, queues_of
from pytest_manifest.broker.locating.base import BrokerSnapshot, JobLocations, StartedOn, compare
from pytest_manifest.broker.locating.redis import parse_json, task_id_of, unacked_message
from pytest_manifest.broker.locating.worker_replies import QUIET_TIME, WorkerPoller
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.errors import StackError
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress

IDS = ("a", "b", "c", "d")
NODES = ("w1", "w2", "w3")

ids, nodes = st.sampled_from(IDS), st.sampled_from(NODES)
tags = st.frozensets(st.sampled_from(("t1", "t2")), min_size=1)
some_nodes = st.frozensets(nodes)


@st.composite
def looks(draw: st.DrawFn) -> BrokerSnapshot:
    answered = draw(some_nodes)
    return BrokerSnapshot(
        queued=draw(st.dictionaries(ids, st.just("celery"), max_size=2)),
        unacked=draw(st.dictionaries(ids, tags, max_size=2)),
        reserved=draw(st.dictionaries(ids, nodes, max_size=1)),
        running=draw(st.dictionaries(ids, nodes, max_size=1)),
        unresponsive=draw(some_nodes) - answered,
        answered=answered,
        blind_spot=draw(st.sampled_from(("", "", "it cannot be seen"))),
    )


starts = st.dictionaries(
    ids,
    st.builds(StartedOn, st.none() | nodes, st.sampled_from((None, True, False))),
)
BUSY = BrokerSnapshot(answered=frozenset(NODES))
QUIET = BrokerSnapshot(unresponsive=frozenset({"w2"}), answered=frozenset({"w1", "w3"}))


def place(
    first: BrokerSnapshot,
    second: BrokerSnapshot,
    start: StartedOn | None = None,
    task_id: str = "a",
) -> str | Mapping[str, frozenset[str]]:
    """The name of the one place that has the task id."""
    started = {} if start is None else {task_id: start}
    located = compare(first, second, [task_id], started=started)
    (name,) = [name for name in JobLocations.__slots__ if task_id in getattr(located, name)]
    return str(name)


@given(looks(), looks(), starts)
def test_each_task_is_in_one_place(
    first: BrokerSnapshot, second: BrokerSnapshot, started: Mapping[str, StartedOn]
) -> None:
    """The five parts of what was located have every task id once between them."""
    located = compare(first, second, IDS, started=started)
    parts = [getattr(located, name) for name in JobLocations.__slots__]
    assert sorted(task_id for part in parts for task_id in part) == sorted(IDS)


@given(looks(), looks(), starts)
def test_what_was_seen_last_counts(
    first: BrokerSnapshot, second: BrokerSnapshot, started: Mapping[str, StartedOn]
) -> None:
    """Queued or with a worker in the second look: that is where it is, whatever else is known."""
    located = compare(first, second, IDS, started=started)
    assert located.queued == second.queued.keys()
    assert (
        located.with_worker
        == (second.reserved.keys() | second.running.keys()) - second.queued.keys()
    )


@given(looks(), looks(), starts)
def test_an_orphan_was_taken_twice_and_is_held_by_nobody(
    first: BrokerSnapshot, second: BrokerSnapshot, started: Mapping[str, StartedOn]
) -> None:
    """Under the same tags both times, while no node that may hold it was silent."""
    located = compare(first, second, IDS, started=started)
    for task_id in IDS:
        common = first.unacked.get(task_id, frozenset()) & second.unacked.get(task_id, frozenset())
        start = started.get(task_id, StartedOn(None, None))
        dead = {start.worker} if start.alive is False else set()
        nobodys = (
            not start.alive
            and task_id not in second.queued
            and all(
                task_id not in {*look.reserved, *look.running}
                and look.unresponsive <= dead
                and (look.answered or look.unresponsive)
                for look in (first, second)
            )
        )
        expected = common if nobodys else frozenset()
        assert located.unacked_by_dead.get(task_id, frozenset()) == expected


@given(looks(), looks(), starts)
def test_nowhere_is_said_of_what_nobody_can_have(
    first: BrokerSnapshot, second: BrokerSnapshot, started: Mapping[str, StartedOn]
) -> None:
    """In no place, twice, where everything was seen and every node that may have it answered."""
    located = compare(first, second, IDS, started=started)
    for task_id in IDS:
        start = started.get(task_id)
        places = [
            {*look.queued, *look.unacked, *look.reserved, *look.running} for look in (first, second)
        ]
        absent = not any(task_id in seen for seen in places) and not (
            first.blind_spot or second.blind_spot
        )
        if start is not None and start.alive is False:
            sure = True
        elif start is not None and start.worker is not None:
            sure = all(start.worker in look.answered for look in (first, second))
        else:
            sure = all(look.answered and not look.unresponsive for look in (first, second))
        assert (task_id in located.missing) == (absent and sure)


TAKEN = BrokerSnapshot(unacked={"a": frozenset({"t1", "t2"})}, answered=frozenset({"w1"}))
RETAKEN = BrokerSnapshot(unacked={"a": frozenset({"t3"})}, answered=frozenset({"w1"}))
HOLDING = BrokerSnapshot(unacked=TAKEN.unacked, reserved={"a": "w1"}, answered=TAKEN.answered)
SILENT = BrokerSnapshot(
    unacked=TAKEN.unacked, unresponsive=frozenset({"w2"}), answered=TAKEN.answered
)
NOBODY = BrokerSnapshot()
WAITING = BrokerSnapshot(queued={"a": "celery"}, answered=TAKEN.answered)
RUNNING = BrokerSnapshot(running={"a": "w1"}, answered=TAKEN.answered)
HIDDEN = BrokerSnapshot(answered=TAKEN.answered, blind_spot="it cannot be seen")
CONNECTED = BrokerSnapshot(
    unacked=TAKEN.unacked, answered=TAKEN.answered, maybe_alive=frozenset({"w2"})
)


@pytest.mark.parametrize(
    ("first", "second", "start", "expected"),
    [
        (TAKEN, TAKEN, None, "unacked_by_dead"),
        (TAKEN, RETAKEN, None, "unknown"),
        (HOLDING, TAKEN, None, "unknown"),
        (SILENT, SILENT, StartedOn("w2", False), "unacked_by_dead"),
        (SILENT, SILENT, StartedOn("w2", True), "unknown"),
        (SILENT, SILENT, StartedOn("w1", False), "unknown"),
        (BUSY, BUSY, None, "missing"),
        (QUIET, BUSY, None, "unknown"),
        (BUSY, TAKEN, None, "unknown"),
        (NOBODY, NOBODY, None, "unknown"),
        (QUIET, QUIET, StartedOn("w1", None), "missing"),
        (QUIET, QUIET, StartedOn("w2", None), "unknown"),
        (QUIET, QUIET, StartedOn("w2", True), "unknown"),
        (QUIET, QUIET, StartedOn("w2", False), "missing"),
        (QUIET, QUIET, StartedOn(None, None), "unknown"),
        (NOBODY, NOBODY, StartedOn("w9", False), "missing"),
        (BUSY, BUSY, StartedOn("w9", None), "unknown"),
        (QUIET, QUIET, StartedOn(None, False), "missing"),
        (BUSY, BUSY, StartedOn(None, True), "missing"),
        (QUIET, QUIET, StartedOn(None, True), "unknown"),
        (BUSY, WAITING, None, "queued"),
        (BUSY, RUNNING, None, "with_worker"),
        (BUSY, HOLDING, None, "with_worker"),
        (WAITING, BUSY, None, "unknown"),
        (RUNNING, BUSY, None, "unknown"),
        (BUSY, HIDDEN, None, "unknown"),
        (HIDDEN, BUSY, None, "unknown"),
        (CONNECTED, TAKEN, None, "unknown"),
        (TAKEN, CONNECTED, StartedOn("w2", True), "unknown"),
        (CONNECTED, CONNECTED, StartedOn("w2", False), "unacked_by_dead"),
        # A worker may be gone for all else, and a child of it run the job to its end.
        (TAKEN, TAKEN, StartedOn("w1", True), "unknown"),
        (TAKEN, TAKEN, StartedOn("w2", True, has_left=True), "unknown"),
        (TAKEN, TAKEN, StartedOn("w2", None), "unacked_by_dead"),
        (TAKEN, TAKEN, StartedOn("w2", None, has_left=True), "unknown"),
        (TAKEN, TAKEN, StartedOn("w2", False, has_left=True), "unacked_by_dead"),
    ],
)
def test_places_of_typical_jobs(
    first: BrokerSnapshot, second: BrokerSnapshot, start: StartedOn | None, expected: str
) -> None:
    """Silence, a dead process and another tag say what they say, and no more."""
    assert place(first, second, start) == expected


def test_an_orphan_has_the_tags_that_both_looks_saw() -> None:
    """What was taken anew between them is not given back."""
    again = BrokerSnapshot(unacked={"a": frozenset({"t2", "t3"})}, answered=frozenset({"w1"}))
    assert compare(TAKEN, again, ["a"], started={}).unacked_by_dead == {"a": {"t2"}}


class FakeControl:
    """Answers as it is told, and keeps whether that was enough."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.was_enough: list[bool] = []

    def call(
        self,
        questions: Mapping[str, object],
        *,
        timeout: float,
        enough: Callable[[Answers, float], bool],
    ) -> Answers:
        self.was_enough = [enough(self.answers, quiet) for quiet in (0.0, QUIET_TIME)]
        return self.answers


def workers(control: FakeControl, *known: str) -> WorkerPoller:
    return WorkerPoller(cast("Publisher", SimpleNamespace(control=control)), known)


def answers(**replies: dict[str, object]) -> Answers:
    return {"scheduled": {}, "reserved": {}, "active": {}, **replies}


def test_half_an_answer_is_silence() -> None:
    """What the node did say still counts; an error, or two questions of three, proves nothing."""
    control = FakeControl(
        answers(
            scheduled={"w1": [], "w2": [], "w3": {"error": "no such thing"}},
            reserved={"w1": [], "w2": [{"id": "a"}], "w3": []},
            active={"w1": [{"id": "b"}, {"id": "other's"}], "w3": []},
        )
    )
    said = workers(control, "w1", "w2", "w3").poll(IDS)
    assert said.answered == {"w1"}
    assert said.unresponsive == {"w2", "w3"}
    assert (said.reserved, said.running) == ({"a": "w2"}, {"b": "w1"})
    assert control.was_enough == [False, False]


def test_a_new_node_is_waited_for_and_remembered() -> None:
    """One that nobody knew of has answered; from then on its silence counts."""
    scheduled = [{"eta": "soon", "request": {"id": "a"}}]
    control = FakeControl(
        answers(scheduled={"w9": scheduled}, reserved={"w9": []}, active={"w9": []})
    )
    asked = workers(control)
    said = asked.poll(IDS)
    assert said.answered == {"w9"}
    assert (said.unresponsive, said.reserved) == (frozenset(), {"a": "w9"})
    assert control.was_enough == [False, True]
    control.answers = answers()
    assert asked.poll(IDS).unresponsive == {"w9"}
    assert control.was_enough == [False, False]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"headers": {"id": "a"}, "properties": {"correlation_id": "b"}}, "a"),
        ({"headers": {}, "properties": {"correlation_id": "b"}}, "b"),
        ({"headers": None}, None),
        ([], None),
    ],
)
def test_the_task_id_of_an_envelope(message: object, expected: str | None) -> None:
    """By its headers, or by what the first version of the protocol has; else none."""
    assert task_id_of(message) == expected


@pytest.mark.parametrize("raw", [None, b"{", b"[]", b"7"])
def test_a_strange_value_among_the_taken_is_no_message(raw: object) -> None:
    """Whatever somebody else has put there is passed over."""
    assert unacked_message(raw) is None
    assert task_id_of(parse_json(raw)) is None


def test_an_unreachable_broker_is_a_sentence() -> None:
    """It names the broker, without its password, and what to do."""
    url = "redis://:secret@127.0.0.1:1/0"
    publisher = Publisher(StackAddress(url, url, None, is_private=False), stream="", ttl=60)
    locator = open_locator(publisher, ["celery"], [])
    for act in (lambda: locator.snapshot(IDS), lambda: locator.restore({"a": frozenset({"t"})})):
        with pytest.raises(
            StackError, match=r"127\.0\.0\.1:1.*check that the broker is up"
        ) as info:
            act()
        assert "secret" not in str(info.value)


def test_jobs_in_memory_are_found_in_their_queue() -> None:
    """The queues of kombu's in-memory broker are in this process, so all of them can be seen."""
    where = StackAddress("memory://", "cache+memory://", None, is_private=True)
    publisher = Publisher(where, stream="", ttl=60)
    entry = Entry(id="e", task="t", queue="locating")
    [attempt] = [attempt_of(new_run_id(), entry, 1)]
    try:
        assert publisher.publish([attempt], datetime.now(timezone.utc)).error is None
        locator = open_locator(publisher, queues_of(publisher, [entry]), [])
        look = locator.snapshot([attempt.task_id, "other"])
        assert (look.queued, look.blind_spot) == ({attempt.task_id: "locating"}, "")
        assert (locator.restore({}), locator.discard({})) == ([], [])
    finally:
        with publisher.control.channel() as channel:
            channel.queue_delete("locating")
        publisher.close()


def test_other_brokers_say_what_they_do_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the workers can be asked there, so a job that they do not have may still wait."""
    (tmp_path / "data_in").mkdir()  # where that transport keeps its messages
    monkeypatch.chdir(tmp_path)
    where = StackAddress("filesystem://", "cache+memory://", None, is_private=False)
    publisher = Publisher(where, stream="", ttl=60)
    try:
        look = open_locator(publisher, ["celery"], []).snapshot(["a"])
        assert look.blind_spot == (
            "a broker reached by filesystem:// does not show which messages wait in a queue"
        )
        assert place(look, look) == "unknown"
    finally:
        publisher.close()
