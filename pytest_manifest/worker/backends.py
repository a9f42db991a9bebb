"""Result backends that hand in a receipt with the result they store.

Two ways: into the run's stream of a Redis store, in the round trip that stores the result; or, in
stores of any other kind, inside the stored result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery import states
from celery.exceptions import Reject
from loguru import logger

from pytest_manifest.schema import wire
from pytest_manifest.worker.handover import Handover, hand_over
from pytest_manifest.worker.outcome import Ending, failed, failed_outside, revoked, succeeded
from pytest_manifest.worker.receipt import Document, encode

if TYPE_CHECKING:
    # What the mixins call of the Celery backend that they are mixed into; celery has no types.
    class _Backend:
        mark_as_done: Callable[..., None]
        mark_as_failure: Callable[..., None]
        mark_as_revoked: Callable[..., None]
        store_result: Callable[..., object]
        ensure: Callable[..., object]
        expires: int | None
        client: Any
        _ensure_retryable: Callable[..., object]
        _get_task_meta_for: Callable[[str], dict[str, object]]
        _set: Callable[..., None]

else:
    _Backend = object

TRAILER_LIMIT: Final = 48 * 1024
"""Bytes of a receipt behind a traceback: a TEXT column of MySQL holds 64 KiB."""

_STORED_AS: Final = {
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "expired": states.REVOKED,
    "ignored": states.IGNORED,
    "rejected": states.REJECTED,
}

_underway: ContextVar[Handover | None] = ContextVar("manifest_handover", default=None)


@contextmanager
def _handing_over(handover: Handover) -> Iterator[None]:
    token = _underway.set(handover)
    try:
        yield
    finally:
        _underway.reset(token)


def _underway_for(task_id: str) -> Handover | None:
    """The receipt that has to go with this task's result, and has not gone yet.

    Failing a task also stores results of others, those chained behind it.
    """
    handover = _underway.get()
    if handover is None or handover.sent or handover.facts.task_id != task_id:
        return None
    return handover


class Receipts(_Backend):
    """Makes the receipt where Celery marks a task as ended; where it goes, subclasses say."""

    plain_class: type

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
            super().mark_as_done(task_id, result, request, store_result, state)
            return
        # No "finally": where storing fails there is no success, and Celery marks the failure next.
        with _handing_over(handover):
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
        # The process that ran the task has said "rejected" already.
        by_task = not isinstance(exc, Reject)
        handover = None
        if by_task:
            handover = hand_over(
                request, lambda: failed(exc, traceback), lambda: failed_outside(exc, traceback)
            )
        if handover is None:
            super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)
            return
        try:
            with _handing_over(handover):
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
            super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
            return
        try:
            with _handing_over(handover):
                super().mark_as_revoked(task_id, reason, request, *args, **kwargs)
        finally:
            self.deliver_quietly(handover)

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


class StreamReceipts(Receipts):
    """For Redis: the record joins the transaction that stores and publishes the result."""

    def _get_task_meta_for(self, task_id: str) -> dict[str, object]:
        # Celery looks whether a success is there, which it must not overwrite. Our write only
        # succeeds where there is nothing yet, which saves the round trip.
        if _underway_for(task_id) is not None:
            return {"status": states.PENDING, "result": None}
        return super()._get_task_meta_for(task_id)

    def _set(self, key: bytes, value: str | bytes, expires: int | None = None) -> None:
        handover = _underway.get()
        if handover is None or handover.sent or not handover.belongs_to(key):
            super()._set(key, value, expires)
            return
        lifetime = self.expires if expires is None else expires
        with self.client.pipeline() as pipe:
            pipe.set(key, value, ex=lifetime or None, nx=True)
            pipe.publish(key, value)
            self._add_record(pipe, handover.facts.stream, handover.facts.ttl, handover.record())
            stored = pipe.execute()[0]
        handover.mark_sent()
        if not stored:
            # A state that is not final, or what another execution of the same task came to.
            earlier = super()._get_task_meta_for(handover.facts.task_id)
            if earlier["status"] != states.SUCCESS:
                super()._set(key, value, expires)

    def deliver(self, handover: Handover) -> None:
        facts = handover.facts
        self._ensure_retryable(
            self.ensure, self._send, (facts.stream, facts.ttl, handover.record())
        )

    def announce(self, stream: str | None, ttl: int, record: bytes) -> None:
        self._send(stream, ttl, record)

    def _send(self, stream: str | None, ttl: int, record: bytes) -> None:
        if stream:
            with self.client.pipeline(transaction=False) as pipe:
                self._add_record(pipe, stream, ttl, record)
                pipe.execute()

    @staticmethod
    def _add_record(pipe: Any, stream: str | None, ttl: int, record: bytes) -> None:
        if stream:
            pipe.xadd(stream, {wire.STREAM_FIELD: record})
            pipe.expire(stream, ttl)


class ResultReceipts(Receipts):
    """For all other stores: the receipt is put into what is stored as the task's result."""

    def store_result(
        self,
        task_id: str,
        result: object,
        state: str,
        traceback: str | None = None,
        request: object = None,
        **kwargs: object,
    ) -> object:
        handover = _underway_for(task_id)
        if handover is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        receipt = json.loads(encode(handover.receipt))
        # A chord's body gets the results as they are stored, so those stay as they are.
        if handover.ending.error is None and not getattr(request, "chord", None):
            wrapped = {wire.RESULT_RECEIPT: _once(receipt), wire.RESULT_VALUE: result}
            super().store_result(task_id, wrapped, state, traceback, request, **kwargs)
        else:
            # An exception keeps its type, arguments and nothing else, the traceback is free text.
            text = (traceback or "") + wire.TRACEBACK_MARK + _trailer(receipt)
            super().store_result(task_id, result, state, text, request, **kwargs)
        handover.mark_sent()
        return result

    def deliver(self, handover: Handover) -> None:
        ending = handover.ending
        state = _STORED_AS.get(ending.state, states.FAILURE)
        result = ending.value if ending.error is None else _stand_in(ending.error)
        with _handing_over(handover):
            self.store_result(handover.facts.task_id, result, state, request=handover.request)


def _once(receipt: Document) -> Document:
    """Without the result, which travels beside the receipt, unless the receipt is to have none."""
    if receipt["result"] is not None:
        del receipt["result"]
    return receipt


def _trailer(receipt: Document) -> str:
    text = json.dumps(receipt)
    if len(text) > TRAILER_LIMIT:
        log = receipt["log"]
        dropped = receipt["log_dropped"]
        assert isinstance(log, list)
        assert isinstance(dropped, int)
        receipt |= {"log": [], "log_dropped": dropped + len(log)}
        text = json.dumps(receipt)
    return text


def _stand_in(error: dict[str, str | None]) -> Exception:
    """An exception for the result store, where only the words of one are left."""
    return RuntimeError(f"{error['type']}: {error['message']}")


@cache
def with_receipts(plain: type) -> type:
    """The backend class, handing in receipts; classes that do, or store nothing, are unchanged."""
    from celery.backends.base import DisabledBackend

    if issubclass(plain, (Receipts, DisabledBackend)):
        return plain
    mixin = StreamReceipts if _is_redis(plain) else ResultReceipts
    return type(f"{plain.__name__}{mixin.__name__}", (mixin, plain), {"plain_class": plain})


def ensure_receipts(backend: object) -> object:
    """Let a backend that was made already hand in receipts; returns the same object."""
    if not isinstance(backend, Receipts):
        plain: Any = type(backend)
        wanted = with_receipts(plain)
        if wanted is not plain:
            backend.__class__ = wanted
    return backend


def _is_redis(plain: type) -> bool:
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return False
    return issubclass(plain, RedisBackend)
