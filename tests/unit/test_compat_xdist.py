"""What is relied on of pytest-xdist's private parts: each test fails where xdist has changed."""

from __future__ import annotations

from queue import Empty, Queue

import pytest

from pytest_manifest.compat.xdist import Events, tick_while_waiting

CONFTEST = """
import pytest
from pytest_manifest.compat.xdist import events_of, tick_while_waiting

seen = []

@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config):
    def tick():
        seen.append("tick")
        wake()
        return 0.01
    wake = tick_while_waiting(events_of(config), tick, lambda: seen.append("woken"))

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"saw {sorted(set(seen))}")
"""


def test_the_controller_s_loop_waits_at_its_queue(pytester: pytest.Pytester) -> None:
    """A session of xdist ticks, is woken, and runs its tests."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_one(): pass")
    done = pytester.runpytest_subprocess("-n1")
    done.stdout.fnmatch_lines(["saw ['tick', 'woken']", "*1 passed*"])


def test_it_ticks_as_often_as_it_is_asked_to() -> None:
    """Until an event comes, or its time is over."""
    ticks: list[None] = []

    def tick() -> float:
        ticks.append(None)
        if len(ticks) == 3:
            queue.put("event")
        return 0.001

    queue: Events = Queue()
    tick_while_waiting(queue, tick, lambda: None)
    assert queue.get(timeout=60.0) == "event"
    assert len(ticks) == 3
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    with pytest.raises(Empty):
        queue.get(block=False)


def test_who_wakes_it_is_heard_before_the_next_event() -> None:
    """Whatever is waited for; what wakes is no event itself."""
    woken: list[str] = []
    queue: Events = Queue()
    wake = tick_while_waiting(queue, lambda: 60.0, lambda: woken.append("woken"))
    wake()
    queue.put("event")
    assert queue.get(timeout=60.0) == "event"
    assert woken == ["woken"]
