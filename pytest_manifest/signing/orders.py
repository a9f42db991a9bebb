"""Sign a manifest as a work order, and check such a signature: an in-toto statement beside it.

The statement's subject is the file with the SHA-256 of all its bytes, header included, so that any
tool that knows in-toto attestations can hold it against the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest.errors import SigningError
from pytest_manifest.files import new_file
from pytest_manifest.signing.keys import BadEnvelopeError, Signer, Verifier, open_envelope, seal

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://pytest-celery-manifest.invalid/attestation/work-order/v1"
SUFFIX: Final = ".sig"
_MOST_BYTES: Final = 1 << 20
"""Larger than any signature that this writes."""


def signature_of(path: Path) -> Path:
    """Return the file beside a manifest that its signature is in."""
    return path.with_name(path.name + SUFFIX)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sign_order(path: Path, entries: int, entries_sha256: str, signer: Signer) -> Path:
    """Sign a manifest; return the file of the signature, which is written anew.

    ``entries_sha256``: the digest of all lines after the header, as the header has it. Raises
    SigningError where a file cannot be read or written.
    """
    target = signature_of(path)
    try:
        statement: dict[str, JsonValue] = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": path.name, "digest": {"sha256": file_sha256(path)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "entries": entries,
                "entriesSha256": entries_sha256,
                "signedAt": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            },
        }
        payload = json.dumps(statement, separators=(",", ":")).encode()
        text = json.dumps(seal(PAYLOAD_TYPE, payload, signer)) + "\n"
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with new_file(draft, None) as file:  # and not through a link that lies there
            file.write(text.encode())
        draft.replace(target)
    except OSError as error:
        raise SigningError(
            f"{error.filename or target}: cannot be read or written ({error.strerror}); nothing "
            "was signed"
        ) from error
    return target


def check_order(path: Path, entries_sha256: str, verifier: Verifier) -> None:
    """Check that a manifest, whose entries have been read, is as a trusted key has signed it.

    Raises SigningError with what does not hold: there is no signature, it is of no trusted key, or
    of other bytes.
    """
    place = signature_of(path)
    try:
        with place.open("rb") as file:
            data = file.read(_MOST_BYTES)
        found = file_sha256(path)
    except FileNotFoundError as error:
        raise SigningError(
            f"{path}: is not signed (there is no {place.name}), and only signed work orders may be "
            f"sent here; have it signed by 'manifest sign {path}'"
        ) from error
    except OSError as error:
        raise SigningError(
            f"{error.filename}: cannot be read ({error.strerror}), so it is not known who signed "
            f"{path}; make it readable"
        ) from error
    try:
        statement = json.loads(open_envelope(data, PAYLOAD_TYPE, verifier))
        signed = _digests_in(statement)
    except (BadEnvelopeError, RecursionError) as error:
        raise SigningError(
            f"{place}: is no signature that this work order can be sent by ({error}); have it "
            f"signed again by 'manifest sign {path}', or name the public key of who signed it"
        ) from error
    if signed != (found, entries_sha256):
        raise SigningError(
            f"{path}: was changed since it was signed (its SHA-256 is {found}, that of what was "
            f"signed {signed[0]}); look at what was changed before you sign it again"
        )


def _digests_in(statement: JsonValue) -> tuple[str, str]:
    """Return the digests of the file and its entries; raises BadEnvelopeError for other kinds."""
    if (
        not isinstance(statement, dict)
        or statement.get("_type") != STATEMENT_TYPE
        or statement.get("predicateType") != PREDICATE_TYPE
    ):
        raise BadEnvelopeError("what is signed is no work order")
    subject, predicate = statement.get("subject"), statement.get("predicate")
    first = subject[0] if isinstance(subject, list) and len(subject) == 1 else None
    digest = first.get("digest") if isinstance(first, dict) else None
    whole = digest.get("sha256") if isinstance(digest, dict) else None
    entries = predicate.get("entriesSha256") if isinstance(predicate, dict) else None
    if not isinstance(whole, str) or not isinstance(entries, str):
        raise BadEnvelopeError("what is signed names no SHA-256 of a work order")
    return whole, entries
