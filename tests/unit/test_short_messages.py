"""What an xdist worker sends of a test that it has run in short."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest

from pytest_manifest.face import short_messages
from pytest_manifest.face.short_messages import TOGETHER, ShortMessages

Event: TypeAlias = tuple[str, dict[str, object]]

PLACE = ("m.jsonl", 1, "entry[a]")
START: Event = ("logstart", {"nodeid": "a", "location": PLACE})
FINISH: Event = ("logfinish", {"nodeid": "a", "location": PLACE})
COMPLETE: Event = ("runtest_protocol_complete", {"item_index": 3, "duration": 0.1})


class Interactor:
    """As xdist has one in a worker."""

    def __init__(self) -> None:
        self.sent: list[Event] = []

    def sendevent(self, name: str, **facts: object) -> None:
        self.sent.append((name, facts))


class Queue:
    """As xdist has one of the tests that a worker has been given."""

    def __init__(self, tests: list[int]) -> None:
        self.tests = tests

    @contextmanager
    def lock(self) -> Iterator[list[int]]:
        yield self.tests


class QueuedInteractor(Interactor):
    """One that has been given tests."""

    def __init__(self, tests: int) -> None:
        super().__init__()
        self.torun = Queue(list(range(tests)))

    def sizes(self) -> list[int]:
        """How many tests each message is of, 0 for others."""
        return [_size(facts) for _, facts in self.sent]


def _size(facts: dict[str, object]) -> int:
    data = facts.get("data")
    return len(json.loads(data["tests"])) if isinstance(data, dict) and "tests" in data else 0


def reports(**more: object) -> list[Event]:
    same = {
        "$report_type": "TestReport",
        "nodeid": "a",
        "location": PLACE,
        "keywords": {"entry": 1},
        "user_properties": [],
        "sections": [],
        "outcome": "passed",
        "longrepr": None,
        **more,
    }
    phases = ("setup", "call", "teardown")
    return [("testreport", {"data": {**same, "when": when}}) for when in phases]


def send(interactor: Interactor, *events: Event) -> None:
    for name, facts in events:
        interactor.sendevent(name, **facts)


def test_all_of_a_test_is_one_message() -> None:
    interactor = Interactor()
    messages = ShortMessages(interactor)
    for _ in range(2):
        messages.begin()
        send(interactor, START, *reports(), FINISH)
        send(interactor, COMPLETE)
    send(interactor, ("workerfinished", {}))
    assert [name for name, _ in interactor.sent] == ["testreport", "testreport", "workerfinished"]


@pytest.mark.parametrize("after", range(6))
def test_what_comes_in_between_is_sent_after_what_was_kept(after: int) -> None:
    """In its place, and so is what follows; nothing is kept any more."""
    events: list[Event] = [START, *reports(), FINISH, COMPLETE]
    events.insert(after, ("warning_recorded", {"when": "runtest"}))
    interactor = Interactor()
    ShortMessages(interactor).begin()
    send(interactor, *events)
    assert interactor.sent == events


@pytest.mark.parametrize("after", range(6))
def test_what_another_thread_sends_goes_at_once(after: int) -> None:
    """xdist answers the controller in one, while a test is told of."""
    interactor = Interactor()
    ShortMessages(interactor).begin()
    answer: Event = ("unscheduled", {"indices": [1]})
    for number, event in enumerate([START, *reports(), FINISH, COMPLETE]):
        if number == after:
            thread = threading.Thread(target=send, args=(interactor, answer))
            thread.start()
            thread.join()
        send(interactor, event)
    assert interactor.sent[0] == answer
    assert [name for name, _ in interactor.sent[1:]] == ["testreport"]


@pytest.mark.parametrize(
    "more",
    [
        {"sections": [("Captured log", "text")]},
        {"longrepr": ("m.jsonl", 1, "why")},
        {"user_properties": [("name", object())]},
        {"location": [*PLACE]},
        {"$report_type": "Mine"},
    ],
    ids=["section", "longrepr", "property", "location", "type"],
)
def test_what_is_not_as_usual_is_sent_as_usual(more: dict[str, object]) -> None:
    interactor = Interactor()
    ShortMessages(interactor).begin()
    events: list[Event] = [START, *reports(**more), FINISH, COMPLETE]
    send(interactor, *events)
    assert interactor.sent == events


def run(interactor: QueuedInteractor, messages: ShortMessages, tests: int) -> None:
    """Run so many tests in short; each is taken from the queue before it is run."""
    for _ in range(tests):
        if interactor.torun.tests:
            interactor.torun.tests.pop()
        messages.begin()
        send(interactor, START, *reports(), FINISH, COMPLETE)


def test_tests_that_follow_one_another_are_told_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In messages of some, and at once where the next has to be waited for."""
    monkeypatch.setattr(short_messages, "PROMPTLY", 60.0)
    interactor = QueuedInteractor(2 * TOGETHER + 3)
    run(interactor, ShortMessages(interactor), 2 * TOGETHER + 4)
    assert interactor.sizes() == [TOGETHER, TOGETHER, 3, 1]


def test_nothing_is_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_messages, "PROMPTLY", 0.0)
    interactor = QueuedInteractor(9)
    messages = ShortMessages(interactor)
    run(interactor, messages, 1)
    assert interactor.sizes() == []
    run(interactor, messages, 1)
    assert interactor.sizes() == [2]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_else_is_sent_comes_after_tests_that_have_ended(elsewhere: bool) -> None:
    """Also what a thread sends that has taken the waiting tests away."""
    interactor = QueuedInteractor(9)
    messages = ShortMessages(interactor)
    run(interactor, messages, 2)
    other: Event = ("unscheduled", {"indices": [1]})
    if elsewhere:
        thread = threading.Thread(target=send, args=(interactor, other))
        thread.start()
        thread.join()
    else:
        send(interactor, other)
    assert interactor.sizes() == [2, 0]
    assert interactor.sent[-1] == other
    interactor.torun.tests.clear()
    run(interactor, messages, 1)
    assert interactor.sizes() == [2, 0, 1]


def test_what_waits_sends_what_is_kept() -> None:
    interactor = QueuedInteractor(9)
    messages = ShortMessages(interactor)
    run(interactor, messages, 2)
    messages.flush()
    messages.flush()
    assert interactor.sizes() == [2]


def test_an_unusual_test_comes_after_those_that_have_ended() -> None:
    interactor = QueuedInteractor(9)
    messages = ShortMessages(interactor)
    run(interactor, messages, 2)
    messages.begin()
    unusual: list[Event] = [START, *reports(sections=[("a", "b")]), FINISH, COMPLETE]
    send(interactor, *unusual)
    assert interactor.sizes() == [2, *[0] * 6]
    assert interactor.sent[1:] == unusual
    run(interactor, messages, 1)
    send(interactor, ("workerfinished", {}))
    assert interactor.sizes()[-2:] == [1, 0]
