"""What a worker tries again when its store's disk is full, as the server and redis-py say it."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from pytest_manifest.worker.backends import ensure_receipts

FULL = "MISCONF Errors writing to the AOF file: No space left on device"


def out_of_memory() -> ResponseError:
    """The error as redis-py reads it."""
    return OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")


@pytest.fixture
def backend() -> Any:
    app = Celery("full", backend="redis://127.0.0.1:1/0", set_as_current=False)
    return ensure_receipts(app.backend)


def of_a_pipeline(error: ResponseError, value: str = "7") -> ResponseError:
    """The error as redis-py raises it of a result that is stored along with its receipt."""
    with Redis(port=1).pipeline() as pipe:
        pipe.annotate_exception(error, 1, ("SET", "celery-task-meta-x", value))  # type: ignore[no-untyped-call]  # redis-py's
    return error


@pytest.mark.parametrize(
    "error",
    [
        ResponseError(FULL),
        of_a_pipeline(ResponseError(FULL)),
        out_of_memory(),
        of_a_pipeline(out_of_memory()),
    ],
)
def test_where_no_room_is_left_a_result_is_stored_later(backend: Any, error: Exception) -> None:
    """A job that has succeeded must not fail because of its store, which may have room again."""
    assert backend.exception_safe_to_retry(error)


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        of_a_pipeline(ResponseError("WRONGTYPE Operation against a key"), FULL),
    ],
)
def test_what_is_refused_for_another_reason_is_not(backend: Any, error: Exception) -> None:
    """Also where the result itself speaks of a full disk."""
    assert not backend.exception_safe_to_retry(error)
