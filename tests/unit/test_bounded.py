"""Calls that end, whatever the other side does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from pytest_manifest.broker import bounded
from pytest_manifest.broker.bounded import (
    OVERTIME,
    BoundedCaller,
    PeerTimeoutError,
    WaitBudget,
    refuse_if_abandoned,
)
from pytest_manifest.broker.connection import PublishConnection
from pytest_manifest.errors import StackError

NOTHING: dict[str, int] = {}
URL = "redis://:secret@h:1/0"
FOR_EVER = 600.0
"""Far beyond what any of these tests takes, unless a wait has no end."""


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """What a silent peer waits for; those that were left behind are let go at the end."""
    event = threading.Event()
    yield event
    event.set()


def wait_for(event: threading.Event) -> bool:
    return event.wait(FOR_EVER)


def test_a_call_gives_what_it_returns_or_raises() -> None:
    """All calls are made by one thread, which is not the caller's."""
    caller = BoundedCaller(URL)
    threads = {caller.call(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    with pytest.raises(KeyError, match="gone"):
        caller.call(lambda: NOTHING["gone"])
    assert caller.call(lambda: caller.call(lambda: 1)) == 1  # one within another
    caller.close(lambda: None)


def test_a_silent_peer_is_given_up_and_forgotten(silence: threading.Event) -> None:
    """Its thread is left behind with what it had; the next call is made by another one."""
    forgotten: list[str] = []
    caller = BoundedCaller(URL, on_abandon=lambda: forgotten.append("connection"))
    with pytest.raises(PeerTimeoutError, match="does not answer") as caught:
        caller.call(lambda: wait_for(silence), 0.05)
    assert isinstance(caught.value, StackError)
    assert "secret" not in str(caught.value)
    assert forgotten == ["connection"]
    assert caller.call(lambda: "well") == "well"


def test_an_abandoned_thread_sends_nothing_of_what_it_gathered(
    silence: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Redis the messages of a chunk leave together, as the block ends that gathers them."""
    left: queue.SimpleQueue[bool] = queue.SimpleQueue()

    @contextmanager
    def together(*_: object) -> Iterator[None]:
        try:
            yield
        except PeerTimeoutError:
            left.put(False)
            raise
        left.put(True)

    monkeypatch.setattr("pytest_manifest.broker.connection.published_together", together)
    link = PublishConnection.__new__(PublishConnection)
    link._producer, link._unbound, link._flags = None, set(), {}
    link._confirms = MagicMock()
    link._send = MagicMock(side_effect=lambda *_, **__: wait_for(silence))
    caller = BoundedCaller(URL)
    with pytest.raises(PeerTimeoutError):
        caller.call(lambda: link.send([MagicMock(options={})]), 0.05)
    silence.set()
    assert left.get(timeout=FOR_EVER) is False


def test_an_abandoned_thread_calls_no_more(silence: threading.Event) -> None:
    """Whatever it would use next belongs to those who go on without it."""
    caller = BoundedCaller(URL)
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def go_on_too_late() -> None:
        refuse_if_abandoned()  # not yet
        wait_for(silence)
        try:
            refuse_if_abandoned()
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(None)

    with pytest.raises(PeerTimeoutError):
        caller.call(go_on_too_late, 0.05)
    silence.set()
    refused = outcome.get(timeout=FOR_EVER)
    assert isinstance(refused, PeerTimeoutError)
    assert "nobody waits" in str(refused)


def test_a_time_limit_of_a_library_counts_as_silence(silence: threading.Event) -> None:
    """What a socket has waited in vain is not waited again and again when time is over."""
    patience = WaitBudget()
    patience.end_at(time.monotonic())
    caller = BoundedCaller(URL, patience)

    def slow_socket() -> None:
        silence.wait(0.05)
        raise ConnectionError("no answer") from TimeoutError()

    with pytest.raises(ConnectionError):
        caller.call(slow_socket)
    with pytest.raises(PeerTimeoutError):
        caller.call(lambda: wait_for(silence))


def test_when_time_is_over_nobody_waits_long_in_vain(silence: threading.Event) -> None:
    """However many calls are left, together they take a few seconds; a healthy peer gets each."""
    patience = WaitBudget()
    patience.end_at(time.monotonic())
    patience.overtime = 0.5
    caller = BoundedCaller(URL, patience)
    before = time.monotonic()
    for _ in range(10):
        with pytest.raises(PeerTimeoutError):
            caller.call(lambda: wait_for(silence))
    assert time.monotonic() - before < FOR_EVER / 10
    assert caller.call(lambda: "well") == "well"


def test_all_that_one_peer_keeps_us_waiting_is_one_sum(
    silence: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty calls in vain, when time is over, take hardly longer than the first (virtual time)."""
    clock = [0.0]

    def wait_in_no_time(_jobs: object, timeout: float) -> None:
        clock[0] += timeout

    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(bounded, "wait", wait_in_no_time)
    patience = WaitBudget()
    patience.end_at(0.0)
    caller = BoundedCaller(URL, patience)
    for _ in range(20):
        with pytest.raises(PeerTimeoutError):
            caller.call(lambda: wait_for(silence))
    assert clock[0] < 1.5 * OVERTIME


def test_a_wait_is_cut_short_from_outside(silence: threading.Event) -> None:
    """Ctrl-C ends the session's patience: who waits already waits only a little longer."""
    patience = WaitBudget()
    caller = BoundedCaller(URL, patience)
    threading.Timer(0.05, patience.expire).start()
    with pytest.raises(PeerTimeoutError):
        caller.call(lambda: wait_for(silence), FOR_EVER)


def test_what_is_in_this_process_is_called_directly() -> None:
    """There is no network between, and nothing to be bounded."""
    assert BoundedCaller("memory://").call(threading.get_ident) == threading.get_ident()
