"""Ctrl-C where it is a wish for haste: it must not wait for what it has interrupted."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from pytest_manifest.face.session import hastener
from pytest_manifest.run import Run


class Hurried:
    """A run that is told by way of a lock, as a real one's events are."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.told = threading.Semaphore(0)

    def hurry(self) -> None:
        assert self.lock.acquire(timeout=10)
        self.lock.release()
        self.told.release()


def test_it_may_come_while_the_main_thread_tells_the_run_something() -> None:
    lock = threading.Lock()
    runs = [Hurried(lock), Hurried(lock)]
    handle = hastener(cast("list[Run]", runs))
    with lock:
        handle()
        handle()
    assert all(run.told.acquire(timeout=10) for run in runs * 2)


def test_it_interrupts_where_no_run_is_there_yet() -> None:
    with pytest.raises(KeyboardInterrupt):
        hastener([])()
