"""What a worker of ours does not wait for when it ends."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from billiard import pool
from celery.concurrency import asynpool, prefork
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from pytest_manifest.worker import signals

POOL_SLEEPS = hasattr(prefork, "time")
"""Whether Celery's main process sleeps while its pool ends: from 5.6 on."""


class Gone(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps that were asked for, in s; Celery's modules are as they were afterwards."""
    asked: list[float] = []
    monkeypatch.setattr(prefork, "time", getattr(prefork, "time", None), raising=False)
    monkeypatch.setattr(asynpool, "sleep", asynpool.sleep)
    monkeypatch.setattr(pool, "time", pool.time)
    real = time.sleep

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        real(0)

    monkeypatch.setattr(time, "sleep", sleep)
    return asked


class DonePool:
    """A pool whose processes have ended already."""

    _state = pool.RUN

    def close(self) -> None:
        pass

    def join(self) -> None:
        pass


def test_the_main_process_looks_often_whether_its_pool_is_done(naps: list[float]) -> None:
    """Where Celery's pool would sleep for half a second it sleeps for less."""
    before = get_event_loop()
    set_event_loop(Hub(timer=SimpleNamespace(_queue=[])))
    held = prefork.TaskPool(1)
    held._pool = DonePool()
    signals.on_shutting_down()
    try:
        held.on_stop()
    finally:
        set_event_loop(before)

    assert bool(naps) is POOL_SLEEPS
    assert max(naps, default=0) <= signals.MAX_SLEEP
    naps.clear()
    asynpool.sleep(0.5)
    assert naps == [signals.MAX_SLEEP]
    assert prefork.time.monotonic is time.monotonic


@pytest.mark.parametrize(
    ("exitcode", "longest"),
    [(0, signals.MAX_SLEEP), (-241, signals.MAX_SLEEP), (pool.EX_RECYCLE, 1)],
)
def test_a_pool_process_exits_when_all_is_said(
    naps: list[float], monkeypatch: pytest.MonkeyPatch, exitcode: int, longest: float
) -> None:
    """Its last word is sent and its handlers are run; it lingers only to make room for another."""

    def leave(code: int) -> None:
        raise Gone(code)

    said: list[object] = []
    monkeypatch.setattr(os, "_exit", leave)
    worker = object.__new__(pool.Worker)
    worker.on_exit = lambda pid, code: signals.on_process_shutdown(pid=pid, exitcode=code)
    worker.outq = SimpleNamespace(put=said.append)
    with pytest.raises(Gone):
        worker._do_exit(7, exitcode)

    assert said == [(pool.DEATH, (7, exitcode))]
    assert naps == [longest]
