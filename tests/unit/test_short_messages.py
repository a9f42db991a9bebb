"""What an xdist worker sends of a test that it has run in short."""

from __future__ import annotations

import threading
from typing import TypeAlias

import pytest

from pytest_manifest.face.short_messages import ShortMessages

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
