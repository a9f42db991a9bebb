"""Keep the own end of a task that the result store has refused.

Celery takes what a store raises for the task's failure, and marks that next: the task would have
failed by what it never saw, after a time in which it did not run. Its own end is stored instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pytest_manifest.redaction import redact
from pytest_manifest.worker.receipt import PendingReceipt, execution_of

STORES: Final = frozenset({"redis", "pymongo", "sqlalchemy", "kombu"})
"""Packages whose errors, by the names below, are a store's and say nothing of the task."""
TROUBLES: Final = (
    "OperationalError",
    "InterfaceError",
    "ConnectionError",
    "TimeoutError",
    "AutoReconnect",
    "ResponseError",
)
LONGEST: Final = 10
"""Causes of an error that are looked at."""


@dataclass(frozen=True, slots=True)
class UnstoredEnd:
    """The receipt of a task's own end, what has Celery store it, and why the store refused."""

    pending: PendingReceipt
    mark: Callable[[], None]
    refusal: str


@contextmanager
def kept(request: object, pending: PendingReceipt, mark: Callable[[], None]) -> Iterator[None]:
    """Keep this end where storing it fails by the store's fault."""
    try:
        yield
    except Exception as error:
        execution = execution_of(request)
        trouble = _trouble(error)
        if execution is not None and trouble is not None and not pending.sent:
            text = redact(f"{type(trouble).__name__}: {trouble}")
            execution.unstored_end = UnstoredEnd(pending, mark, text)
        raise


def taken(request: object) -> UnstoredEnd | None:
    """Return the end that the store has refused, once, with that in its evidence; else None."""
    execution = execution_of(request)
    if execution is None or not isinstance(execution.unstored_end, UnstoredEnd):
        return None
    end, execution.unstored_end = execution.unstored_end, None
    evidence = end.pending.receipt["evidence"]
    assert isinstance(evidence, dict)
    evidence["store_refused"] = end.refusal
    end.pending.forget_record()
    return end


def _trouble(error: BaseException) -> BaseException | None:
    """Return what of an error or its causes is the store's own trouble."""
    one: BaseException | None = error
    for _ in range(LONGEST):
        if one is None:
            return None
        if _is_of_store(type(one)):
            return one
        one = one.__cause__ or one.__context__
    return None


def _is_of_store(kind: type[BaseException]) -> bool:
    if issubclass(kind, (ConnectionError, TimeoutError)):
        return True
    return any(
        base.__module__.partition(".")[0] in STORES and base.__name__ in TROUBLES
        for base in kind.__mro__
    )
