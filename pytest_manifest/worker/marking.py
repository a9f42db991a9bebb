"""What every result backend of ours does: a receipt for each task that Celery marks as ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import Reject
from loguru import logger

from pytest_manifest.worker import own_waits
from pytest_manifest.worker.handover import Handover, hand_over
from pytest_manifest.worker.outcome import Ending, failed, failed_outside, revoked, succeeded

if TYPE_CHECKING:
    # What the mixins call of the Celery backend that they are mixed into; celery has no types.
    class Backend:
        mark_as_done: Callable[..., None]
        mark_as_failure: Callable[..., None]
        mark_as_revoked: Callable[..., None]
        store_result: Callable[..., object]
        ensure: Callable[..., object]
        connection_errors: tuple[type[Exception], ...]
        expires: int | None
        client: Any
        serializer: str
        exception_safe_to_retry: Callable[[Exception], bool]
        set: Callable[..., object]
        always_retry: bool
        max_retries: float
        base_sleep_between_retries_ms: int
        max_sleep_between_retries_ms: int

else:
    Backend = object

_underway: ContextVar[Handover | None] = ContextVar("manifest_handover", default=None)
_marking: ContextVar[bool] = ContextVar("manifest_marking", default=False)


@contextmanager
def handing_over(handover: Handover) -> Iterator[None]:
    token = _underway.set(handover)
    try:
        yield
    finally:
        _underway.reset(token)


@contextmanager
def marking() -> Iterator[None]:
    """Within, Celery stores a task's end; elsewhere a task does so itself, by ``update_state``."""
    token = _marking.set(True)
    try:
        yield
    finally:
        _marking.reset(token)


def is_marking() -> bool:
    return _marking.get()


def underway() -> Handover | None:
    """The receipt that has to go with what is being stored, and has not gone yet."""
    handover = _underway.get()
    return None if handover is None or handover.sent else handover


def underway_for(task_id: str) -> Handover | None:
    """The same for this task: failing one also stores results of others, chained behind it."""
    handover = underway()
    return None if handover is None or handover.facts.task_id != task_id else handover


class Receipts(Backend):
    """Makes the receipt where Celery marks a task as ended; where it goes, subclasses say."""

    plain_class: type
    rejections_from_main = False
    """Whether a task's own rejection is told by the main process, which Celery lets store it."""

    def mark_as_done(
        self,
        task_id: str,
        result: object,
        request: object = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        handover = hand_over(request, lambda: succeeded(result))
        if handover is None:
            with marking():
                super().mark_as_done(task_id, result, request, store_result, state)
            return
        # No "finally": where storing fails there is no success, and Celery marks the failure next.
        with handing_over(handover):
            super().mark_as_done(task_id, result, request, store_result, state)
        self.deliver_quietly(handover)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: object = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        handover = None
        if self.rejections_from_main or not isinstance(exc, Reject):
            handover = hand_over(
                request, lambda: failed(exc, traceback), lambda: failed_outside(exc, traceback)
            )
        if handover is None:
            with marking():
                super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)
            return
        try:
            with handing_over(handover):
                super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)
        finally:
            self.deliver_quietly(handover)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: object = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        handover = hand_over(request, lambda: revoked(reason))
        if handover is None:
            with marking():
                super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
            return
        try:
            with handing_over(handover):
                super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
        finally:
            self.deliver_quietly(handover)

    def store_result(
        self,
        task_id: str,
        result: object,
        state: str,
        traceback: str | None = None,
        request: object = None,
        **kwargs: object,
    ) -> object:
        with own_waits.waiting():
            return super().store_result(task_id, result, state, traceback, request, **kwargs)

    def report(self, request: object, ending: Ending) -> None:
        """Hand in the receipt of a task for which Celery stores nothing."""
        handover = hand_over(request, lambda: ending)
        if handover is not None:
            self.deliver_quietly(handover)

    def deliver_quietly(self, handover: Handover) -> None:
        """Send a receipt that went with no result; a store that fails now is only logged."""
        if handover.sent:
            return
        try:
            with own_waits.waiting():
                self.deliver(handover)
            handover.mark_sent()
        except Exception as error:  # the task's own outcome must not change
            facts = handover.facts
            logger.error(
                "the receipt of {} (entry {}) was lost: {}", facts.task_id, facts.entry, error
            )

    def deliver(self, handover: Handover) -> None:
        raise NotImplementedError

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        """Send the record of a start, where there is a stream."""

    def __reduce__(self, *args: object) -> Any:  # as object's, which is no more exact
        reduced: Any = super().__reduce__(*args)
        function, (_, *rest) = reduced
        return function, (self.plain_class, *rest)
