"""One message for all that an xdist worker tells of a test that it has run in short.

xdist sends six for each test that has passed (its start, three reports, its end, and that another
may come), which are packed and unpacked in Python. Here they are sent as one, and taken apart in
front of the controller's queue, so that nobody before or behind that can tell.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Queue
from typing import Any, Final, Self, TypeAlias

import pytest

UNPACKED: Final = "unpacked"
"""By this name among what a worker is told the controller says that it takes messages apart."""
_KIND: Final = "manifest-short"
_EVENTS: Final = (
    "logstart",
    "testreport",
    "testreport",
    "testreport",
    "logfinish",
    "runtest_protocol_complete",
)
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_MISSING: Final = object()

Event: TypeAlias = tuple[str, dict[str, Any]]
"""The name of what xdist sends, and its arguments, of which it tells no types."""


class ShortMessages:
    """What an xdist worker sends of tests that it runs in short."""

    def __init__(self, interactor: Any) -> None:
        """``interactor``: what sends in an xdist worker, by a method ``sendevent``."""
        self._interactor = interactor
        self._send: Callable[..., None] = interactor.sendevent
        self._events: list[Event] = []

    @classmethod
    def of(cls, config: pytest.Config) -> Self | None:
        """None in another process, and with another xdist."""
        for plugin in config.pluginmanager.get_plugins():
            if type(plugin).__name__ == "WorkerInteractor" and hasattr(plugin, "sendevent"):
                return cls(plugin)
        return None

    def begin(self) -> None:
        """What is sent from now on goes as one message, at the end of the test, or when something
        else is sent."""
        self._send = self._interactor.sendevent
        self._interactor.sendevent = self._keep

    def _keep(self, name: str, **facts: object) -> None:
        self._events.append((name, facts))
        expected = _EVENTS[len(self._events) - 1]
        if name == expected and name != _EVENTS[-1]:
            return
        self._interactor.sendevent = self._send
        events, self._events = self._events, []
        packed = _pack(events)
        if packed is None:
            for kept, its_facts in events:
                self._send(kept, **its_facts)
        else:
            self._send("testreport", data={"$report_type": _KIND, "test": packed})


class PackedTest(pytest.TestReport):
    """All of a test, in the place of a report."""

    def __init__(self, reports: Sequence[pytest.TestReport], complete: dict[str, Any]) -> None:
        """``complete``: what is said at the end of a test."""
        last = reports[-1]
        super().__init__(last.nodeid, last.location, {}, "passed", None, "teardown")
        self.reports = reports
        self.complete = complete


class Unpacking:
    """A plugin in the controller, to be there before its workers are started."""

    @classmethod
    def of(cls, config: pytest.Config) -> Self | None:
        """None with another xdist, whose messages would not be taken apart."""
        queue = getattr(config.pluginmanager.get_plugin("dsession"), "queue", None)
        if not isinstance(queue, Queue):
            return None
        unpack_in(queue)
        return cls()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_from_serializable(
        self, config: pytest.Config, data: dict[str, Any]
    ) -> PackedTest | None:
        if data.get("$report_type") != _KIND:
            return None
        *reports, complete = _unpack(data["test"])
        hook = config.hook.pytest_report_from_serializable
        return PackedTest([hook(config=config, data=one) for one in reports], complete)


def unpack_in(queue: Queue[Any]) -> None:
    """Have the events of a queue taken apart as they are taken out."""
    ask = queue.get
    waiting: deque[Event] = deque()

    def get(block: bool = True, timeout: float | None = None) -> Event:
        if not waiting:
            waiting.extend(_events(ask(block, timeout)))
        return waiting.popleft()

    queue.get = get  # type: ignore[method-assign]  # an event is seen by nobody before xdist's session


def _events(event: Event) -> Iterator[Event]:
    """What xdist would have been sent for a test."""
    name, facts = event
    test = facts.get("rep")
    if not isinstance(test, PackedTest):
        yield event
        return
    node = facts["node"]
    place = {"node": node, "nodeid": test.nodeid, "location": test.location}
    yield "logstart", dict(place)
    for report in test.reports:
        yield name, {"node": node, "rep": report}
    yield "logfinish", place
    yield _EVENTS[-1], {"node": node, **test.complete}


def _pack(events: Sequence[Event]) -> str | None:
    """What is sent of a test as JSON, of the later reports what differs from the first; None where
    something else is sent too, or JSON lacks what somebody has put into them."""
    if tuple(name for name, _ in events) != _EVENTS:
        return None
    first, *later = (facts["data"] for _, facts in events[1:4])
    if first["longrepr"] is not None or first["sections"] or not _is_plain(first):
        return None
    changes = []
    for data in later:
        change = {key: value for key, value in data.items() if first.get(key, _MISSING) != value}
        if data.keys() != first.keys() or not all(type(v) in _PLAIN for v in change.values()):
            return None
        changes.append(change)
    return json.dumps([first, *changes, events[-1][1]])


def _is_plain(data: dict[str, Any]) -> bool:
    """Whether a report's values are the same when JSON has carried them, but for known tuples."""
    for key, value in data.items():
        if type(value) in _PLAIN or key in ("location", "sections"):
            continue
        if key == "keywords":
            inner: Any = value.values()
        elif key == "user_properties" and all(type(row) is tuple for row in value):
            inner = (one for _, one in value)
        else:
            return False
        if not all(type(one) in _PLAIN for one in inner):
            return False
    return True


def _unpack(text: str) -> Iterator[dict[str, Any]]:
    """The three reports, and what is said at the end."""
    first, *changes, complete = json.loads(text)
    first["location"] = tuple(first["location"])
    first["user_properties"] = [(name, value) for name, value in first["user_properties"]]
    yield dict(first)
    for change in changes:
        yield first | change
    yield complete
