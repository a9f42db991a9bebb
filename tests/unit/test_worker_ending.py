"""A process of the private worker's pool exits when its handlers have run."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from billiard import pool
from celery.concurrency.prefork import process_destructor
from celery.signals import worker_process_shutdown

from pytest_manifest import processes
from pytest_manifest.worker import job


class Gone(BaseException):
    """Instead of the end of this process."""


@pytest.mark.parametrize(
    ("supervised", "exitcode", "said"),
    [
        pytest.param(True, 0, ["handler"], id="ours"),
        pytest.param(True, -241, ["handler"], id="ours, by SIGTERM"),
        pytest.param(True, pool.EX_RECYCLE, ["handler", "death"], id="ours, to be replaced"),
        pytest.param(False, 0, ["handler", "death"], id="a user's"),
    ],
)
def test_a_pool_process_exits_when_its_handlers_have_run(
    monkeypatch: pytest.MonkeyPatch, *, supervised: bool, exitcode: int, said: list[str]
) -> None:
    """Another one, and a user's, lingers as billiard has it, after its last word."""
    heard: list[str] = []

    def leave(code: int) -> None:
        raise Gone(code)

    def handler(**_: object) -> None:
        heard.append("handler")

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(pool.time, "sleep", lambda _: None)
    monkeypatch.setattr(worker_process_shutdown, "receivers", [])
    monkeypatch.setattr(job, "_measuring", lambda: None)
    if supervised:
        monkeypatch.setenv(processes.SUPERVISED, "1")
    else:
        monkeypatch.delenv(processes.SUPERVISED, raising=False)
    worker_process_shutdown.connect(handler)
    job.on_process_init()
    worker = object.__new__(pool.Worker)
    worker.on_exit = process_destructor
    worker.outq = SimpleNamespace(put=lambda _: heard.append("death"))
    with pytest.raises(Gone, match=str(exitcode)):
        worker._do_exit(7, exitcode)
    assert heard == said
