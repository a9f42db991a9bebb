"""What ends a job and is no ``Exception``: Celery reports it only where a process ends of it."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, WorkerShutdown

from pytest_manifest.results.backend_results import parse_result
from pytest_manifest.schema import wire
from pytest_manifest.worker import job, signals
from pytest_manifest.worker.backends import ensure_receipts
from pytest_manifest.worker.receipt import TaskResult


def _nothing() -> None:
    """A task."""


class Killed(BaseException):
    """As the package greenlet has one, for what a pool ends."""

    __module__ = "greenlet"


def _raise(error: BaseException) -> None:
    raise error


def _reported(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[TaskResult]:
    """Give the ends that are reported of a task that has raised this."""
    monkeypatch.setattr(job, "catch_stdlib", lambda: None)  # its handler would stay
    app = Celery("ends", backend="cache+memory://", set_as_current=False)
    task: Any = app.task(shared=False, name="ends")(_nothing)
    ends: list[TaskResult] = []
    backend: Any = ensure_receipts(task.backend)
    monkeypatch.setattr(backend, "report", lambda _, end: ends.append(end))
    task.push_request(
        **{"id": "0123abcd-1", "task": "ends", wire.HEADER_RUN: "run", wire.HEADER_ENTRY: "entry"}
    )
    try:
        signals.on_prerun(task, [], {})
        try:
            _raise(error)
        except BaseException:
            signals.on_postrun(task)
    finally:
        task.pop_request()
    return ends


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_job_that_ends_no_process_has_crashed(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """In pools of threads, gevent, eventlet and solo nobody else says so."""
    [end] = _reported(monkeypatch, error)
    assert end.state == "crashed"
    assert end.error is not None
    assert end.error["type"] == type(error).__name__


@pytest.mark.parametrize("error", [WorkerShutdown(0), Killed()])
def test_what_the_pool_has_raised_is_its_own_to_report(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The end of a worker is no end of the job; of a time limit the pool itself tells."""
    assert _reported(monkeypatch, error) == []


def test_in_a_pools_process_the_main_process_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the process go."""
    monkeypatch.setattr(job, "runs_in_pool_child", lambda: True)
    assert _reported(monkeypatch, SystemExit(3)) == []


@pytest.mark.parametrize(
    ("stored", "state"),
    [
        ({"exc_type": "Reject", "exc_module": "celery.exceptions"}, "rejected"),
        ({"exc_type": "Reject", "exc_module": "shop.errors"}, "failed"),
        (Reject("no", requeue=False), "rejected"),
    ],
)
def test_what_a_stock_worker_stores_of_a_reject_is_one(stored: object, state: str) -> None:
    """It stores a failure; an exception of the task's own may have the same name."""
    result = parse_result({"status": "FAILURE", "result": stored})
    assert result is not None
    assert result.state == state


def test_what_a_stock_worker_stores_of_an_error_loses_its_secrets() -> None:
    """Nobody has hidden them before: a worker without the instrumentation does not."""
    url = "redis://:swordfish@box:6379/0"
    stored = {"exc_type": "OSError", "exc_message": [f"{url} refused"], "exc_module": "builtins"}
    traceback = f"Traceback (most recent call last):\nOSError: {url} refused"
    result = parse_result({"status": "FAILURE", "result": stored, "traceback": traceback})
    assert result is not None
    assert result.error is not None
    assert "swordfish" not in f"{result.error.message}{result.error.traceback}"
    assert "OSError: redis://" in str(result.error.traceback)
