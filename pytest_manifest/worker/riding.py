"""Receipts for stores that are no Redis: inside what is stored as the task's result."""

from __future__ import annotations

import json
from typing import Final

from celery import states

from pytest_manifest.schema import wire
from pytest_manifest.worker.handover import Handover, handed_over
from pytest_manifest.worker.marking import Receipts, handing_over, underway_for
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
        state = _STORED_AS.get(ending.state, states.FAILURE)
        result = ending.value
        if ending.error is not None and state in states.EXCEPTION_STATES:
            result = _stand_in(ending.error)
        with handing_over(handover):
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
