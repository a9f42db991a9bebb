"""Check whether what is said to be a worker's report was signed by a worker that is trusted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from weakref import WeakValueDictionary

from pytest_manifest.schema import Receipt, stream_records
from pytest_manifest.schema.wire import json_sha256
from pytest_manifest.signing import Verifier

UNSIGNED: Final = "it is not signed, and only what a trusted worker has signed counts here"
UNTRUSTED: Final = "its signature does not hold: it is of a key that is not trusted, or was changed"
OF_ANOTHER: Final = "it is signed as the end of another execution"
CHANGED_REST: Final = "the rest of it is not what was signed with it"
CHANGED_RESULT: Final = "its result is not the one that was signed"
IN_STORE_ALONE: Final = "the result store alone has its end, and no worker has signed that"


class ReportSignatures:
    """Check signatures by the public keys of the workers; each receipt object is checked once."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._verified: WeakValueDictionary[int, Receipt] = WeakValueDictionary()

    def fault_of_record(self, record: Mapping[str, object]) -> str:
        """Return why a record without a receipt is not to be believed; "" where it is."""
        found = record.get(stream_records.SIGNATURE)
        if not isinstance(found, Mapping):
            return UNSIGNED
        try:
            data = stream_records.record_bytes(record)
        except (TypeError, ValueError):
            return UNTRUSTED
        return "" if self._holds(found.get("key"), found.get("value"), data) else UNTRUSTED

    def fault_in_record(self, record: Mapping[str, object], receipt: Receipt) -> str:
        """Return why a record with this receipt is not to be believed; "" where it is."""
        fault = self.fault_as_reported(receipt)
        if fault:
            return fault
        if record.get("execution") != receipt.execution:
            return OF_ANOTHER
        try:
            rest = stream_records.rest_sha256(record)
        except (TypeError, ValueError):
            return CHANGED_REST
        signature = receipt.signature
        return "" if signature is not None and signature.rest == rest else CHANGED_REST

    def fault_as_reported(self, receipt: Receipt) -> str:
        """Return why a receipt that was just reported is not to be believed; "" where it is.

        No worker fills in a receipt: whoever says so there has added to what was signed.
        """
        signature = receipt.signature
        return UNTRUSTED if signature is not None and signature.filled else self.fault_of(receipt)

    def fault_of(self, receipt: Receipt) -> str:
        """Return why a receipt is not to be believed, wherever it is from; "" where it is.

        What pytest has filled in since is not held against what was signed.
        """
        if self._verified.get(id(receipt)) is receipt:
            return ""
        signature = receipt.signature
        if signature is None or receipt.execution is None:
            return UNSIGNED
        if receipt.source != "worker":  # of which less is asked, and which signs nothing
            return UNTRUSTED
        fields = receipt.model_dump(exclude={"result", stream_records.SIGNATURE})
        for name in signature.filled:
            if name in stream_records.FILLABLE:
                fields[name] = False if name == "redelivered" else None
        try:
            data = stream_records.receipt_bytes(fields, signature.rest)
        except (TypeError, ValueError):
            return UNTRUSTED
        if not self._holds(signature.key, signature.value, data):
            return UNTRUSTED
        if not _has_its_result(receipt):
            return CHANGED_RESULT
        self._verified[id(receipt)] = receipt
        return ""

    def _holds(self, key: object, value: object, data: bytes) -> bool:
        if not isinstance(key, str) or not key or not isinstance(value, str):
            return False
        try:
            signature = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return self._verifier.verify(key, signature, data)


def _has_its_result(receipt: Receipt) -> bool:
    """Return whether a receipt has the result that its digest is of, or rightly none."""
    if receipt.result is None and (
        receipt.result_sha256 is None or "result_omitted" in receipt.evidence
    ):
        return True
    if receipt.result_sha256 is None:  # as that of a result which JSON cannot hold
        return False
    return json_sha256(receipt.result) == receipt.result_sha256
