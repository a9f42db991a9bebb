"""Send a receipt for each task that Celery marks as ended: the base of all our backends.

Keep the own end of a task that the result store has refused.

Celery takes what a store raises for the task's failure, and marks that next: the task would have
failed by what it never saw, after a time in which it did not run. Its own end is stored instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from celery import states
from celery.backends.base import Backend
from celery.exceptions import Reject
from loguru import logger

from pytest_manifest.process_state import holding
from pytest_manifest.redaction.texts import redact
from pytest_manifest.worker import announcements
from pytest_manifest.worker import receipt as outcomes
from pytest_manifest.worker.handoff import note_elsewhere
from pytest_manifest.worker.job import end_what_is_left
from pytest_manifest.worker.receipt import PendingReceipt, execution_of, prepare_receipt

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
def kept(
    request: object, pending: PendingReceipt | None, mark: Callable[[], None]
) -> Iterator[None]:
    """Keep this end where storing it fails by the store's fault."""
    try:
        yield
    except Exception as error:
        execution, trouble = execution_of(request), _trouble(error)
        if execution and trouble is not None and pending is not None and not pending.sent:
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
        if one is None or isinstance(one, (ConnectionError, TimeoutError)):
            return one
        kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(one).__mro__)
        if any(package in STORES and name in TROUBLES for package, name in kinds):
            return one
        one = one.__cause__ or one.__context__
    return None


_current_receipt: ContextVar[PendingReceipt | None] = ContextVar("manifest_handover", default=None)
_celery_marks: ContextVar[bool] = ContextVar("manifest_marking", default=False)


def sending_with_result(pending: PendingReceipt) -> AbstractContextManager[None]:
    return holding(_current_receipt, pending)


def marking_by_celery() -> AbstractContextManager[None]:
    """Mark that Celery stores a task's end; elsewhere a task itself does, by ``update_state``."""
    return holding(_celery_marks, True)


def celery_marks_end() -> bool:
    return _celery_marks.get()


def current_receipt() -> PendingReceipt | None:
    """Return the unsent receipt that goes with the result being stored, if there is one."""
    pending = _current_receipt.get()
    return None if pending is None or pending.sent else pending


def current_receipt_for(task_id: str) -> PendingReceipt | None:
    """Return it if it is this task's: a failure also stores results of tasks chained behind it."""
    pending = current_receipt()
    return None if pending is None or pending.delivery.task_id != task_id else pending


class ReceiptBackend(Backend):
    """Build a receipt where Celery marks a task as ended; subclasses say how it is sent."""

    original_class: type
    main_reports_rejections = False
    """Whether the main process, which stores a rejection, also reports a task's own ``Reject``."""
    has_stream = False
    """Whether records can be sent at any time, and not only with a result."""

    def mark_as_done(
        self,
        task_id: str,
        result: object,
        request: object = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        pending = self._prepare(
            request, announcements.End.SUCCESS, lambda: outcomes.succeeded(result)
        )
        mark = partial(super().mark_as_done, task_id, result, request, store_result, state)
        if pending is None:
            self._mark_with(None, mark)
            return
        # No "finally": where storing fails Celery marks a failure next, see ``unstored``.
        with kept(request, pending, mark), sending_with_result(pending):
            mark()
        self.deliver_quietly(pending)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: object = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        if (end := taken(request)) is not None:
            self._mark_with(end.pending, end.mark)
            return
        pending = None
        if self.main_reports_rejections or not isinstance(exc, Reject):
            pending = self._prepare(
                request,
                announcements.End.FAILURE,
                lambda: outcomes.failed(exc, traceback),
                lambda: outcomes.failed_in_main_process(exc, traceback),
            )
        mark = partial(super().mark_as_failure, task_id, exc, traceback, request, *args, **kwargs)
        with kept(request, pending, mark):
            self._mark_with(pending, mark)

    def _mark_with(self, pending: PendingReceipt | None, mark: Callable[[], None]) -> None:
        """Have Celery store an end with its receipt, which is sent whatever comes of that."""
        if pending is None:
            with marking_by_celery():
                mark()
            return
        try:
            with sending_with_result(pending), announcements.sending_for(pending.children):
                mark()
        finally:
            self.deliver_quietly(pending)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: object = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        pending = self._prepare(request, announcements.End.OTHER, lambda: outcomes.revoked(reason))
        mark = super().mark_as_revoked
        self._mark_with(pending, partial(mark, task_id, reason, request, *args, **kwargs))

    def process_cleanup(self) -> None:
        """End what a task has left, when all its handlers have been called: Celery calls this."""
        try:
            super().process_cleanup()
        finally:
            end_what_is_left(is_over=True)

    def report(self, request: object, outcome: outcomes.TaskResult) -> None:
        """Send the receipt of a task for which Celery stores nothing."""
        pending = self._prepare(request, announcements.End.OTHER, lambda: outcome)
        if pending is not None:
            self.deliver_quietly(pending)

    def _prepare(
        self,
        request: object,
        end: announcements.End,
        outcome: Callable[[], outcomes.TaskResult],
        outside: Callable[[], outcomes.TaskResult] | None = None,
    ) -> PendingReceipt | None:
        """Prepare the receipt of a task, and what is sent after its end."""
        pending = prepare_receipt(request, outcome, outside)
        if pending is None or not (
            self.has_stream and announcements.wants_children(pending.delivery)
        ):
            return pending
        is_here = pending.children is not None
        if pending.children is None:  # another process has run it, or none
            pending.children = announcements.children_of(pending.delivery, self.announce)
        announcements.announce_rest(pending.children, self.app, request, end, speaks_on=is_here)
        note_elsewhere(pending.children, self.app, request)
        return pending

    def deliver_quietly(self, pending: PendingReceipt) -> None:
        """Send a receipt that went with no result; a failure of the store is only logged."""
        if pending.sent:
            return
        try:
            self.deliver(pending)
            pending.mark_sent()
        except Exception as error:  # the task's own outcome must not change
            delivery = pending.delivery
            logger.error(
                "the receipt of {} (entry {}) was lost: {}", delivery.task_id, delivery.entry, error
            )

    def deliver(self, pending: PendingReceipt) -> None:
        self.announce(pending.delivery.stream, pending.delivery.ttl, pending.record())

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        """Send the record of a start where there is a stream; here there is none."""

    def __reduce__(self, *args: object) -> Any:  # as object's, which is no more exact
        reduced: Any = super().__reduce__(*args)
        function, (_, *rest) = reduced
        return function, (self.original_class, *rest)
