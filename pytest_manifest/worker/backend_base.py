"""Send a receipt for each task that Celery marks as ended: the base of all our backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import Reject
from loguru import logger

from pytest_manifest.worker import store_waits, unstored
from pytest_manifest.worker.announcements import End, announce_rest
from pytest_manifest.worker.descendants import children_of, sending_for, wants_children
from pytest_manifest.worker.elsewhere import note_elsewhere
from pytest_manifest.worker.job import end_what_is_over
from pytest_manifest.worker.outcome import (
    TaskResult,
    failed,
    failed_in_main_process,
    revoked,
    succeeded,
)
from pytest_manifest.worker.receipt import PendingReceipt, prepare_receipt

if TYPE_CHECKING:
    # The part of Celery's backend that the mixins call; celery has no types.
    class Backend:
        app: Any
        mark_as_done: Callable[..., None]
        mark_as_failure: Callable[..., None]
        mark_as_revoked: Callable[..., None]
        store_result: Callable[..., object]
        process_cleanup: Callable[[], None]
        ensure: Callable[..., object]
        connection_errors: tuple[type[Exception], ...]
        expires: int | None
        client: Any
        serializer: str
        exception_safe_to_retry: Callable[[Exception], bool]
        on_connection_error: Callable[..., float]
        set: Callable[..., object]
        always_retry: bool
        max_retries: float
        base_sleep_between_retries_ms: int
        max_sleep_between_retries_ms: int

else:
    Backend = object

_current_receipt: ContextVar[PendingReceipt | None] = ContextVar("manifest_handover", default=None)
_celery_marks: ContextVar[bool] = ContextVar("manifest_marking", default=False)


@contextmanager
def sending_with_result(pending: PendingReceipt) -> Iterator[None]:
    token = _current_receipt.set(pending)
    try:
        yield
    finally:
        _current_receipt.reset(token)


@contextmanager
def marking_by_celery() -> Iterator[None]:
    """Mark that Celery stores a task's end; elsewhere a task itself does, by ``update_state``."""
    token = _celery_marks.set(True)
    try:
        yield
    finally:
        _celery_marks.reset(token)


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
        pending = self._prepare(request, End.SUCCESS, lambda: succeeded(result))
        mark = partial(super().mark_as_done, task_id, result, request, store_result, state)
        if pending is None:
            with marking_by_celery():
                mark()
            return
        # No "finally": where storing fails Celery marks a failure next, see ``unstored``.
        with unstored.kept(request, pending, mark), sending_with_result(pending):
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
        if (end := unstored.taken(request)) is not None:
            self._mark_with(end.pending, end.mark)
            return
        pending = None
        if self.main_reports_rejections or not isinstance(exc, Reject):
            pending = self._prepare(
                request,
                End.FAILURE,
                lambda: failed(exc, traceback),
                lambda: failed_in_main_process(exc, traceback),
            )
        mark = partial(super().mark_as_failure, task_id, exc, traceback, request, *args, **kwargs)
        if pending is None:
            with marking_by_celery():
                mark()
            return
        with unstored.kept(request, pending, mark):
            self._mark_with(pending, mark)

    def _mark_with(self, pending: PendingReceipt, mark: Callable[[], None]) -> None:
        """Have Celery store an end with its receipt, which is sent whatever comes of that."""
        try:
            with sending_with_result(pending), sending_for(pending.children):
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
        pending = self._prepare(request, End.OTHER, lambda: revoked(reason))
        if pending is None:
            with marking_by_celery():
                super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
            return
        try:
            with sending_with_result(pending), sending_for(pending.children):
                super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
        finally:
            self.deliver_quietly(pending)

    def store_result(
        self,
        task_id: str,
        result: object,
        state: str,
        traceback: str | None = None,
        request: object = None,
        **kwargs: object,
    ) -> object:
        with store_waits.waiting():
            return super().store_result(task_id, result, state, traceback, request, **kwargs)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Let Celery store a result again after what it retries, while this worker may wait."""
        return not store_waits.has_given_up() and super().exception_safe_to_retry(exc)

    def process_cleanup(self) -> None:
        """Celery calls this after each task, when all its handlers have been called."""
        try:
            super().process_cleanup()
        finally:
            end_what_is_over()

    def report(self, request: object, outcome: TaskResult) -> None:
        """Send the receipt of a task for which Celery stores nothing."""
        pending = self._prepare(request, End.OTHER, lambda: outcome)
        if pending is not None:
            self.deliver_quietly(pending)

    def _prepare(
        self,
        request: object,
        end: End,
        outcome: Callable[[], TaskResult],
        outside: Callable[[], TaskResult] | None = None,
    ) -> PendingReceipt | None:
        """Prepare the receipt of a task, and what is sent after its end."""
        pending = prepare_receipt(request, outcome, outside)
        if pending is None or not (self.has_stream and wants_children(pending.delivery)):
            return pending
        is_here = pending.children is not None
        if pending.children is None:  # another process has run it, or none
            pending.children = children_of(pending.delivery, self.announce)
        announce_rest(pending.children, self.app, request, end, speaks_on=is_here)
        note_elsewhere(pending.children, self.app, request)
        return pending

    def deliver_quietly(self, pending: PendingReceipt) -> None:
        """Send a receipt that went with no result; a failure of the store is only logged."""
        if pending.sent:
            return
        try:
            with store_waits.waiting():
                self.deliver(pending)
            pending.mark_sent()
        except Exception as error:  # the task's own outcome must not change
            delivery = pending.delivery
            logger.error(
                "the receipt of {} (entry {}) was lost: {}", delivery.task_id, delivery.entry, error
            )

    def deliver(self, pending: PendingReceipt) -> None:
        raise NotImplementedError

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        """Send the record of a start where there is a stream; here there is none."""

    def __reduce__(self, *args: object) -> Any:  # as object's, which is no more exact
        reduced: Any = super().__reduce__(*args)
        function, (_, *rest) = reduced
        return function, (self.original_class, *rest)
