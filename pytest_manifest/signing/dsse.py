"""Write and open DSSE envelopes (Dead Simple Signing Envelope, version 1.0.2).

What is signed is the payload with its type before it
(PAE), so that no signature of one kind of document can be taken for one of another.
"""

from __future__ import annotations

import base64
import binascii
import json

from pydantic import JsonValue

from pytest_manifest.signing.keys import Signer, Verifier


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signer: Signer) -> dict[str, JsonValue]:
    """Return an envelope of the payload with one signature."""
    signature = signer.sign(pae(payload_type, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}],
    }


class BadEnvelopeError(ValueError):
    """An envelope that does not hold; the message is a phrase."""


def open_envelope(data: bytes, payload_type: str, verifier: Verifier) -> bytes:
    """Return the payload of an envelope that one of the verifier's keys has signed.

    Raises BadEnvelopeError for every other.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("signatures"), list):
        raise BadEnvelopeError("it is no DSSE envelope")
    payload = _bytes_of(document.get("payload"))
    if document.get("payloadType") != payload_type or payload is None:
        raise BadEnvelopeError(f"it is no DSSE envelope of {payload_type}")
    signed = pae(payload_type, payload)
    for one in document["signatures"]:
        signature = _bytes_of(one.get("sig")) if isinstance(one, dict) else None
        if signature is None:
            continue
        # The key's id is a hint, and nothing that is signed: another tool has other ids.
        if verifier.verify("", signature, signed):
            return payload
    raise BadEnvelopeError("none of its signatures is of a key that is trusted")


def _bytes_of(text: JsonValue) -> bytes | None:
    """Decode base64, standard or URL-safe, as DSSE asks of readers."""
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text.translate(_STANDARD), validate=True)
    except (binascii.Error, ValueError):
        return None


_STANDARD = str.maketrans("-_", "+/")
