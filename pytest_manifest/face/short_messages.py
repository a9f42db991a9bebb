"""One message for all that an xdist worker tells of tests that it has run in short.

xdist sends six for each test that has passed (its start, three reports, its end, and that another
may come), which are packed and unpacked in Python. Here they are sent as one, that of a few tests
which follow one another at once together, and taken apart in front of the controller's queue, so
that nobody before or behind that can tell.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Queue
from typing import Any, Final, Self, TypeAlias

import pytest

UNPACKED: Final = "unpacked"
"""By this name among what a worker is told the controller says of how many tests it takes a message
apart, 0 for none."""
_TAKING_BACK: Final = frozenset({"load", "worksteal"})
"""The distributions by which a test is run again whose worker has crashed: by others the oldest
that the controller has not heard of stays failed, so that it has to hear of each."""
TOGETHER: Final = 8
"""Tests whose messages are sent as one: few enough for a controller that hands out twenty."""
PROMPTLY: Final = 0.05
"""Seconds after which what is kept is sent, be it of few tests."""
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
_HELD: Final = frozenset({"location", "keywords", "user_properties", "sections"})
"""What holds other values."""

Facts: TypeAlias = dict[str, Any]
"""What xdist sends by name: anything, for it ships no types, and plugins add what they like."""
Event: TypeAlias = tuple[str, Facts]
"""The name of what xdist sends, and its arguments."""


class ShortMessages:
    """What an xdist worker sends of tests that it runs in short."""

    def __init__(self, interactor: Any, together: int = TOGETHER) -> None:
        """``interactor``: what sends in an xdist worker, by a method ``sendevent``, which is taken
        the place of while something is kept; it has no type, as it is xdist's. ``together``: of how
        many tests a message may be."""
        self._interactor = interactor
        self._together = together
        self._thread = threading.get_ident()
        self._send: Callable[..., None] = interactor.sendevent
        self._events: list[Event] = []
        self._packed: list[str] = []
        self._since = 0.0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, config: pytest.Config, together: int) -> Self | None:
        """None in another process, with another xdist, and where others write reports down."""
        if not together or not _is_left_to_pytest(config, "pytest_report_to_serializable"):
            return None
        for plugin in config.pluginmanager.get_plugins():
            if type(plugin).__name__ == "WorkerInteractor" and hasattr(plugin, "sendevent"):
                return cls(plugin, together)
        return None

    def begin(self) -> None:
        """What is sent from now on is kept until the end of the test, or until something else is
        sent; then until some more tests have ended, unless there is none to follow at once."""
        self._thread = threading.get_ident()
        if self._interactor.sendevent != self._send_after:
            self._send = self._interactor.sendevent
        self._interactor.sendevent = self._keep

    def flush(self) -> None:
        """Send what is kept of tests that have ended. For any thread."""
        with self._lock:
            packed, self._packed = self._packed, []
        if packed:
            self._send("testreport", data={"$report_type": _KIND, "tests": f"[{','.join(packed)}]"})

    def _keep(self, name: str, **facts: object) -> None:
        if threading.get_ident() != self._thread:  # xdist's, which answers the controller
            self._send_after(name, **facts)
            return
        self._events.append((name, facts))
        expected = _EVENTS[len(self._events) - 1]
        if name == expected and name != _EVENTS[-1]:
            return
        events, self._events = self._events, []
        packed = _pack(events)
        if packed is None:
            self._interactor.sendevent = self._send
            self.flush()
            for kept, its_facts in events:
                self._send(kept, **its_facts)
        else:
            self._add(packed)

    def _add(self, packed: str) -> None:
        """Keep what is told of a test, or send it with what was kept before."""
        now = time.monotonic()
        with self._lock:
            if not self._packed:
                self._since = now
            self._packed.append(packed)
            number = len(self._packed)
        # First this: whoever takes tests away from the queue sends something afterwards.
        self._interactor.sendevent = self._send_after
        if number >= self._together or now > self._since + PROMPTLY or not self._has_more():
            self._interactor.sendevent = self._send
            self.flush()

    def _send_after(self, name: str, **facts: object) -> None:
        """Send something else, after what was kept."""
        self.flush()
        self._send(name, **facts)

    def _has_more(self) -> bool:
        """Whether another test can be begun without waiting for the controller."""
        queue = getattr(self._interactor, "torun", None)
        if queue is None:
            return False
        with queue.lock() as tests:
            return bool(tests)


class PackedTests(pytest.TestReport):
    """All of some tests, in the place of a report."""

    def __init__(self, tests: Sequence[tuple[Sequence[pytest.TestReport], Facts]]) -> None:
        """``tests``: the reports of each, and what is said at its end."""
        last = tests[-1][0][-1]
        super().__init__(last.nodeid, last.location, {}, "passed", None, "teardown")
        self.tests = tests


class Unpacking:
    """A plugin in the controller, to be there before its workers are started."""

    @classmethod
    def of(cls, config: pytest.Config) -> Self | None:
        """None with another xdist, whose messages would not be taken apart, and where others read
        reports."""
        queue = getattr(config.pluginmanager.get_plugin("dsession"), "queue", None)
        if not isinstance(queue, Queue) or not _is_left_to_pytest(
            config, "pytest_report_from_serializable"
        ):
            return None
        unpack_in(queue)
        return cls(TOGETHER if config.getvalue("dist") in _TAKING_BACK else 1)

    def __init__(self, together: int) -> None:
        self.together = together

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_from_serializable(
        self, config: pytest.Config, data: Facts
    ) -> PackedTests | None:
        if data.get("$report_type") != _KIND:
            return None
        hook = config.hook.pytest_report_from_serializable
        tests = []
        for packed in json.loads(data["tests"]):
            *reports, complete = _unpack(packed)
            tests.append(([hook(config=config, data=one) for one in reports], complete))
        return PackedTests(tests)


def unpack_in(queue: Queue[Event]) -> None:
    """Have the events of a queue taken apart as they are taken out."""
    ask = queue.get
    waiting: deque[Event] = deque()

    def get(block: bool = True, timeout: float | None = None) -> Event:
        if not waiting:
            waiting.extend(_events(ask(block, timeout)))
        return waiting.popleft()

    queue.get = get  # type: ignore[method-assign]  # an event is seen by nobody before xdist's session


def _events(event: Event) -> Iterator[Event]:
    """What xdist would have been sent for each test."""
    name, facts = event
    packed = facts.get("rep")
    if not isinstance(packed, PackedTests):
        yield event
        return
    node = facts["node"]
    for reports, complete in packed.tests:
        first = reports[0]
        place = {"node": node, "nodeid": first.nodeid, "location": first.location}
        yield "logstart", dict(place)
        for report in reports:
            yield name, {"node": node, "rep": report}
        yield "logfinish", place
        yield _EVENTS[-1], {"node": node, **complete}


def _pack(events: Sequence[Event]) -> str | None:
    """What is sent of a test as JSON, of the later reports what differs from the first; None where
    something else is sent too, or JSON lacks what somebody has put into them."""
    if tuple(name for name, _ in events) != _EVENTS:
        return None
    first, *later = (facts["data"] for _, facts in events[1:4])
    if not _is_plain(first):
        return None
    changes = []
    for data in later:
        change = _change(first, data)
        if change is None:
            return None
        changes.append(change)
    return json.dumps([first, *changes, events[-1][1]])


def _is_plain(data: Facts) -> bool:
    """Whether a report is one of pytest's, and JSON carries all of it, but for known tuples."""
    if data.get("$report_type") != "TestReport" or not data.keys() >= _HELD:
        return False
    location, keywords, rows = data["location"], data["keywords"], data["user_properties"]
    return (
        type(location) is tuple
        and type(keywords) is dict
        and type(rows) is list
        and all(type(row) is tuple and len(row) == 2 and type(row[0]) is str for row in rows)
        and all(type(name) is str for name in keywords)
        and data["sections"] == []
        and _are_plain(location)
        and _are_plain(keywords.values())
        and _are_plain(value for _, value in rows)
        and _are_plain(value for name, value in data.items() if name not in _HELD)
    )


def _change(first: Facts, data: Facts) -> Facts | None:
    """What another report of the same test has of its own; None where that is more than a few plain
    values. What both have in common is the same object."""
    if data.keys() != first.keys():
        return None
    change = {}
    for name, value in data.items():
        known = first[name]
        if name not in _HELD:
            if type(value) not in _PLAIN:
                return None
            if value != known or type(value) is not type(known):
                change[name] = value
        elif value is not known and not (
            type(value) is list
            and len(value) == len(known)
            and all(one is other for one, other in zip(value, known, strict=True))
        ):
            return None
    return change


def _are_plain(values: Iterable[object]) -> bool:
    return all(type(value) in _PLAIN for value in values)


def _unpack(packed: Sequence[Facts]) -> Iterator[Facts]:
    """The three reports, and what is said at the end."""
    first, *changes, complete = packed
    first["location"] = tuple(first["location"])
    first["user_properties"] = [(name, value) for name, value in first["user_properties"]]
    yield dict(first)
    for change in changes:
        yield first | change
    yield complete


def _is_left_to_pytest(config: pytest.Config, name: str) -> bool:
    """Whether nobody else has a say in a hook."""
    return all(
        getattr(one.plugin, "__name__", "").startswith("_pytest.")
        for one in getattr(config.hook, name).get_hookimpls()
    )
