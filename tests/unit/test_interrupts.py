"""The owner of signals: what the first one does, what others do, and what is left afterwards."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_manifest.plugin.context import PluginContext
from pytest_manifest.plugin.session_runs import UNNOTICED, Interrupts

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run


class Hurried:
    """A run that is told by way of a lock, as a real one's events are."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.told = threading.Semaphore(0)

    def force_stop(self) -> None:
        assert self.lock.acquire(timeout=10)
        self.lock.release()
        self.told.release()


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """What a program begins with, whatever this suite was started by; as it was afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def owner(*runs: Hurried, owns_process: bool = False) -> tuple[Interrupts, SimpleNamespace]:
    """An owner, and the session that it gives its status to."""
    session = SimpleNamespace(exitstatus=0)
    manager = SimpleNamespace(getplugin=lambda name: session if name == "session" else None)
    config = SimpleNamespace(pluginmanager=manager)
    context = cast("PluginContext", SimpleNamespace(config=config, owns_process=owns_process))
    return Interrupts(context, cast("list[Run]", list(runs)), lambda: None), session


def test_the_first_one_interrupts_and_the_next_is_a_wish_for_haste() -> None:
    """It may come while the main thread tells the run something, with the very lock."""
    lock = threading.Lock()
    runs = [Hurried(lock), Hurried(lock)]
    interrupts, session = owner(*runs)
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with lock:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert all(run.told.acquire(timeout=10) for run in runs)
    interrupts.remove()
    assert session.exitstatus == 128 + signal.SIGTERM


def test_one_that_was_swallowed_on_its_way_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupts, _ = owner()
    interrupts.install()
    now = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(time, "monotonic", lambda: now + 60 + UNNOTICED)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    interrupts.remove()


def test_nothing_is_broken_off_at_the_end_and_the_status_tells_of_it() -> None:
    interrupts, session = owner()
    interrupts.install()
    interrupts.begin_end()
    signal.raise_signal(signal.SIGINT)
    interrupts.remove()
    assert session.exitstatus == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize("owns_process", [True, False])
def test_what_others_handle_or_ignore_stays_and_the_rest_comes_back(*, owns_process: bool) -> None:
    """Only Ctrl-C in Python's own last steps is not given its traceback back."""

    def theirs(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, theirs)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts, session = owner(owns_process=owns_process)
    interrupts.install()
    assert signal.getsignal(signal.SIGTERM) is theirs
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == interrupts.handle
    interrupts.remove()
    left = signal.SIG_IGN if owns_process else signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is left
    assert session.exitstatus == 0


def test_other_threads_take_nothing_over() -> None:
    interrupts, _ = owner()
    thread = threading.Thread(target=interrupts.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupts.remove()
