"""Turn Celery's result backends into ones that send receipts.

Celery looks backend classes up as "module:name": ``backends:redis`` is made here when asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any, Final

import celery
from celery import states
from kombu.utils.imports import symbol_by_name

from pytest_manifest.compat.celery import stock_stores, turn_store_into
from pytest_manifest.schema import wire
from pytest_manifest.worker import backend_base
from pytest_manifest.worker import receipt as receipts
from pytest_manifest.worker.backend_redis import RedisReceipts
from pytest_manifest.worker.children import Document
from pytest_manifest.worker.job import Execution, current_execution
from pytest_manifest.worker.signing import sign_receipt


@functools.cache  # a name `cache` here would hide Celery's scheme of that name, see __getattr__
def with_receipts(stock: type) -> type:
    """Return a subclass that sends receipts; classes that do, or store nothing, are unchanged."""
    from celery.backends.base import DisabledBackend
    from celery.backends.redis import RedisBackend

    if issubclass(stock, (backend_base.ReceiptBackend, DisabledBackend)):
        return stock
    mixin = RedisReceipts if issubclass(stock, RedisBackend) else GenericReceipts
    return type(f"{stock.__name__}WithReceipts", (mixin, stock), {"original_class": stock})


def ensure_receipts(backend: object) -> object:
    """Make an existing backend send receipts; return the same object."""
    if not isinstance(backend, backend_base.ReceiptBackend):
        stock: Any = type(backend)
        wanted = with_receipts(stock)
        if wanted is not stock:
            turn_store_into(backend, wanted)
    return backend


def overrides() -> dict[str, str]:
    """Return ``override_backends`` for a loader: every scheme by which Celery stores results."""
    return {alias: f"{__name__}:{alias}" for alias in stock_stores() if alias != "disabled"}


def __getattr__(alias: str) -> type:
    place = stock_stores().get(alias)
    if place is None:
        raise AttributeError(f"Celery has no result backend {alias!r}")
    stock: type = symbol_by_name(place)
    return with_receipts(stock)


TRAILER_LIMIT: Final = 48 * 1024
"""Bytes of a receipt behind a traceback: a TEXT column of MySQL holds 64 KiB."""

_STORED_AS: Final = {
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "expired": states.REVOKED,
    "ignored": states.IGNORED,
    "rejected": states.REJECTED,
}


class GenericReceipts(backend_base.ReceiptBackend):
    """Store the receipt with the result; ``wire.unwrap_result`` is the reading side."""

    main_reports_rejections = celery.VERSION >= (5, 7)  # before, nobody stores one

    def store_result(
        self,
        task_id: str,
        result: object,
        state: str,
        traceback: str | None = None,
        request: object = None,
        **kwargs: object,
    ) -> object:
        pending = backend_base.current_receipt_for(task_id)
        if pending is None and state in states.READY_STATES:
            # Celery marks some failures twice; the last result stored must have the receipt too.
            pending = receipts.sent_receipt(request, task_id)
            if pending is None and (execution := _running_execution(request, task_id)):
                # The task may still fail, and Celery would keep this success and drop the failure.
                store = super().store_result

                def store_own_state() -> str:
                    store(task_id, result, state, traceback, request, **kwargs)
                    return state

                execution.store_own_state = store_own_state
                return result
        if pending is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        receipt = json.loads(receipts.encode(pending.receipt))
        # A chord's body, or a parent that waits, gets results as stored: those stay unwrapped.
        is_read = getattr(request, "chord", None) or pending.delivery.parent is not None
        if pending.outcome.error is None and not is_read:
            receipt = sign_receipt(receipt, pending.delivery.execution)
            # It is stored beside the receipt; only JSON restores the value that was digested.
            if self.serializer == "json" and receipt["result"] is not None:
                del receipt["result"]
            wrapped = {wire.RESULT_RECEIPT: receipt, wire.RESULT_VALUE: result}
            super().store_result(task_id, wrapped, state, traceback, request, **kwargs)
        else:
            # An exception keeps only its type and arguments; the traceback is free text.
            receipt, trailer = _trailer(receipt, pending.delivery.execution)
            text = (traceback or "") + wire.TRACEBACK_MARK + trailer
            with self._receipt_in_meta(request, receipt):
                super().store_result(task_id, result, state, text, request, **kwargs)
        pending.mark_sent()
        return result

    @contextlib.contextmanager
    def _receipt_in_meta(self, request: Any, receipt: Document) -> Iterator[None]:
        """Have django-celery-results keep the receipt with what a request's ``meta`` holds.

        It keeps no traceback unless the app has ``result_extended``. Other stores know no ``meta``.
        """
        if request is None or not hasattr(self, "TaskModel"):
            yield
            return
        before = getattr(request, "meta", None) or {}
        request.meta = {**before, wire.RESULT_RECEIPT: receipt}
        try:
            yield
        finally:
            request.meta = before

    def deliver(self, pending: receipts.PendingReceipt) -> None:
        outcome = pending.outcome
        execution = receipts.execution_of(pending.request)
        store_own_state = execution.store_own_state if execution is not None else None
        # With Ignore the state that the task set is final. Not every store keeps a success whatever
        # comes after it: SQL does so from Celery 5.7 on.
        if (
            outcome.state == "ignored"
            and store_own_state is not None
            and store_own_state() == states.SUCCESS
        ):
            return
        state = _STORED_AS.get(outcome.state, states.FAILURE)
        result = outcome.value
        if outcome.error is not None and state in states.EXCEPTION_STATES:
            result = _exception_like(outcome.error)
        with backend_base.sending_with_result(pending):
            self.store_result(pending.delivery.task_id, result, state, request=pending.request)


def _running_execution(request: object, task_id: str) -> Execution | None:
    """Return this task's execution if the task itself, not Celery, is storing a state."""
    execution = receipts.execution_of(request)
    if execution is None or execution is not current_execution() or backend_base.celery_marks_end():
        return None
    return execution if execution.delivery.task_id == task_id else None


def _trailer(receipt: Document, execution: str) -> tuple[Document, str]:
    """Return a receipt, signed where this worker has a key, and its text without too many lines."""
    signed = sign_receipt(receipt, execution)
    text = json.dumps(signed)
    if len(text) > TRAILER_LIMIT:
        log = receipt["log"]
        dropped = receipt["log_dropped"]
        assert isinstance(log, list)
        assert isinstance(dropped, int)
        shorter: Document = {**receipt, "log": [], "log_dropped": dropped + len(log)}
        signed = sign_receipt(shorter, execution)
        text = json.dumps(signed)
    return signed, text


def _exception_like(error: dict[str, str | None]) -> Exception:
    """Build an exception for the result store from a receipt's error."""
    return RuntimeError(f"{error['type']}: {error['message']}")
