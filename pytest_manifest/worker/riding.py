"""Receipts for stores that are no Redis: inside what is stored as the task's result."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from celery import states

from pytest_manifest.schema import wire
from pytest_manifest.worker.execution import Execution, current_execution
from pytest_manifest.worker.handover import Handover, execution_of, handed_over
from pytest_manifest.worker.marking import Receipts, handing_over, is_marking, underway_for
from pytest_manifest.worker.receipt import Document, encode

TRAILER_LIMIT: Final = 48 * 1024
"""Bytes of a receipt behind a traceback: a TEXT column of MySQL holds 64 KiB."""

_STORED_AS: Final = {
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "expired": states.REVOKED,
    "ignored": states.IGNORED,
    "rejected": states.REJECTED,
}


class ResultReceipts(Receipts):
    """Puts the receipt into what is stored; see ``wire.unwrap_result`` for the reading side."""

    rejections_from_main = True

    def store_result(
        self,
        task_id: str,
        result: object,
        state: str,
        traceback: str | None = None,
        request: object = None,
        **kwargs: object,
    ) -> object:
        handover = underway_for(task_id)
        if handover is None and state in states.READY_STATES:
            # Celery marks some failures twice; what is stored last must have the receipt as well.
            handover = handed_over(request, task_id)
            if handover is None and (execution := _in_the_middle_of(request, task_id)):
                # It may fail yet, and Celery would keep this success and drop that end.
                store = super().store_result
                execution.own_end = partial(
                    store, task_id, result, state, traceback, request, **kwargs
                )
                return result
        if handover is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        receipt = json.loads(encode(handover.receipt))
        # A chord's body gets the results as they are stored, so those stay as they are.
        if handover.ending.error is None and not getattr(request, "chord", None):
            if self.serializer == "json":  # which alone gives back what the digest was made of
                receipt = _once(receipt)
            wrapped = {wire.RESULT_RECEIPT: receipt, wire.RESULT_VALUE: result}
            super().store_result(task_id, wrapped, state, traceback, request, **kwargs)
        else:
            # An exception keeps its type, arguments and nothing else, the traceback is free text.
            text = (traceback or "") + wire.TRACEBACK_MARK + _trailer(receipt)
            super().store_result(task_id, result, state, text, request, **kwargs)
        handover.mark_sent()
        return result

    def deliver(self, handover: Handover) -> None:
        ending = handover.ending
        execution = execution_of(handover.request)
        if ending.state == "ignored" and execution is not None and execution.own_end is not None:
            execution.own_end()  # a task that raises Ignore has said by this how it has ended
        state = _STORED_AS.get(ending.state, states.FAILURE)
        result = ending.value
        if ending.error is not None and state in states.EXCEPTION_STATES:
            result = _stand_in(ending.error)
        with handing_over(handover):
            self.store_result(handover.facts.task_id, result, state, request=handover.request)


def _in_the_middle_of(request: object, task_id: str) -> Execution | None:
    """The execution of this task, where it is the task that stores something, and not Celery."""
    execution = execution_of(request)
    if execution is None or execution is not current_execution() or is_marking():
        return None
    return execution if execution.delivery.task_id == task_id else None


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
