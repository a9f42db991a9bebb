"""Sign what this worker reports, where it has been given a private key."""

from __future__ import annotations

import base64
import os
from typing import Any, Final

from loguru import logger

from pytest_manifest.errors import SigningError
from pytest_manifest.process_state import ProcessState
from pytest_manifest.schema import stream_records
from pytest_manifest.signing import SIGNING_KEY_VARIABLE, Signer, read_signer
from pytest_manifest.worker.children import Document

SETTING: Final = "manifest_signing_key"
"""The app's setting that names the file of the private key; the environment goes before it."""


_key: Final[ProcessState[list[Signer | None]]] = ProcessState(list, is_of_worker=True)
"""The key of this process; empty before it is read, at its first use."""


def use(signer: Signer | None) -> None:
    """Sign with this key from here on; None: with none."""
    _key.now = [signer]


def forget() -> None:
    """Read the key anew at its next use."""
    _key.reset()


def signer() -> Signer | None:
    """Return the key that this process signs with; None where it has none.

    One that cannot be used is logged, once: the worker goes on, and what it reports is unsigned.
    """
    if not _key.now:
        try:
            use(_configured())
        except SigningError as error:
            use(None)
            logger.error("what this worker reports is not signed: {}", error)
    return _key.now[0]


def _configured() -> Signer | None:
    told = os.environ.get(SIGNING_KEY_VARIABLE)
    if told:
        return read_signer(told, SIGNING_KEY_VARIABLE)
    from celery import current_app

    conf: Any = current_app.conf  # celery has no types
    named = conf.get(SETTING)
    return read_signer(str(named), SETTING) if named else None


def with_signature(record: Document) -> Document:
    """Return a record that has no receipt with its signature; as it is where there is no key."""
    key = signer()
    if key is None:
        return record
    try:
        return {
            **record,
            stream_records.SIGNATURE: _signature(key, stream_records.record_bytes(record)),
        }
    except (TypeError, ValueError) as error:
        logger.error("a record of {} is not signed: {}", record.get("task_id"), error)
        return record


def sign_receipt(receipt: Document, execution: str, rest: Document | None = None) -> Document:
    """Return a receipt with its execution and signature; as it is where there is no key.

    ``rest``: the fields beside it in its record, which are signed with it.
    """
    key = signer()
    if key is None:
        return receipt
    try:
        named: Document = {**receipt, "execution": execution}
        digest = stream_records.rest_sha256(rest or {})
        made = _signature(key, stream_records.receipt_bytes(named, digest))
    except (TypeError, ValueError) as error:
        logger.error("the receipt of {} is not signed: {}", receipt.get("task_id"), error)
        return receipt
    return {**named, stream_records.SIGNATURE: made if digest is None else {**made, "rest": digest}}


def _signature(key: Signer, data: bytes) -> Document:
    return {"key": key.key_id, "value": base64.b64encode(key.sign(data)).decode()}
