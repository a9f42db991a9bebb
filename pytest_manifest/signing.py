"""Sign work orders and what workers report, and check such signatures: Ed25519, DSSE, in-toto.

Keys are PEM files, as openssl and cosign write and read them. An envelope is one of DSSE (Dead
Simple Signing Envelope, version 1.0.2): what is signed is the payload with its type before it
(PAE), so that no signature of one kind of document can be taken for one of another. A work order is
an in-toto statement beside its manifest, whose subject is the file with the SHA-256 of all its
bytes, header included, so that any tool that knows in-toto attestations can hold it against the
file. The package ``cryptography`` (the extra ``sign``) is imported when a key is used, and not
before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import SigningError
from pytest_manifest.files import file_sha256, new_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from pydantic import JsonValue


SIGNING_KEY_VARIABLE: Final = "MANIFEST_SIGNING_KEY"
"""Names the file of the private key, or holds the key itself, for those who sign."""
PUBLIC_KEY_VARIABLE: Final = "MANIFEST_PUBLIC_KEY"
"""The same for the public keys by which work orders are checked."""
RECEIPT_KEY_VARIABLE: Final = "MANIFEST_RECEIPT_KEY"
"""The same for the public keys by which what workers report is checked."""

_PEM: Final = "-----BEGIN "
_END: Final = "-----END PUBLIC KEY-----"
_MOST_BYTES: Final = 1 << 20
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
NO_LIBRARY: Final = (
    "signatures need the package cryptography; install it with "
    "'pip install pytest-celery-manifest[sign]'"
)


class Signer:
    """A private key; ``key_id`` is the SHA-256 of its public key (DER), in hex."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.sign: Final[Callable[[bytes], bytes]] = key.sign
        self.key_id: Final = _key_id(key.public_key())

    def public_pem(self) -> str:
        """Return the public key, as PEM."""
        return _public_pem(self._key.public_key())


class Verifier:
    """Public keys, any of which may have made a signature."""

    def __init__(self, keys: Iterable[ed25519.Ed25519PublicKey]) -> None:
        self._keys = {_key_id(key): key for key in keys}

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of the keys, in their order."""
        return tuple(self._keys)

    def pem(self) -> str:
        """Return all keys, as PEM."""
        return "".join(_public_pem(key) for key in self._keys.values())

    def verify(self, key_id: str, signature: bytes, data: bytes) -> bool:
        """Return whether the key of this id has signed the data; "": whether any of them has."""
        from cryptography.exceptions import InvalidSignature

        named = self._keys.get(key_id)
        for key in self._keys.values() if not key_id else () if named is None else (named,):
            with suppress(InvalidSignature):
                key.verify(signature, data)
                return True
        return False


def generate() -> tuple[bytes, str]:
    """Make a key; return the private one and the public one, as PEM."""
    _require_library()
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    pem, pkcs8 = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    private = key.private_bytes(pem, pkcs8, forms.NoEncryption())
    return private, _public_pem(key.public_key())


def is_there(path: Path) -> SigningError:
    """Return the error that says that a key's file is there."""
    said = "is there already, and a key is never overwritten; name another file"
    return SigningError(f"{path}: {said}")


def write_key(path: Path, pem: bytes, mode: int) -> None:
    """Write a key into a new file: a private one that only its owner can read (0600).

    Raises SigningError where there is a file already: a key is never overwritten.
    """
    try:
        with new_file(path, mode) as file:
            file.write(pem)
    except FileExistsError:
        raise is_there(path) from None
    except OSError as error:
        raise SigningError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder that you can "
            "write to"
        ) from error


def read_signer(told: str, origin: str) -> Signer:
    """Read a private key: ``told`` is the name of its file, or the PEM text itself.

    ``origin``: the variable or option that names it. Raises SigningError, without the key's text.
    """
    _require_library()
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text, place = _text_of(told, origin, is_private=True)
    try:
        key = load_pem_private_key(text, None)
    except Exception:  # a password is wanted, or it lacks the algorithm
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SigningError(
            f"{place}: holds no private Ed25519 key without a password, as PEM; make one with "
            "'manifest keygen'"
        )
    return Signer(key)


def read_verifier(told: str, origin: str) -> Verifier:
    """Read public keys, one or several as PEM: ``told`` is their file's name, or the text itself.

    ``origin`` as of :func:`read_signer`. Raises SigningError.
    """
    _require_library()
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text, place = _text_of(told, origin, is_private=False)
    keys: list[ed25519.Ed25519PublicKey] = []
    for block in text.decode("ascii", "replace").split(_END)[:-1]:
        try:
            key = load_pem_public_key((block[block.rfind(_PEM) :] + _END + "\n").encode())
        except Exception:
            key = None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            keys.clear()
            break
        keys.append(key)
    if not keys:
        raise SigningError(
            f"{place}: holds no public Ed25519 key, or something else beside, as PEM; name the "
            ".pub file that 'manifest keygen' has made"
        )
    return Verifier(keys)


def _text_of(told: str, origin: str, *, is_private: bool) -> tuple[bytes, str]:
    """Return a key's text, and how to call the place where it stands."""
    if told.lstrip().startswith(_PEM):
        return told.strip().encode() + b"\n", origin
    path = Path(told).expanduser()
    place = f"{origin}={told}"
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if is_private and stat.S_IMODE(status.st_mode) & _OTHERS:
                raise SigningError(
                    f"{place}: others can read this private key; make it yours alone with "
                    f"'chmod 600 {told}', or better make a new one"
                )
            return file.read(_MOST_BYTES), place
    except OSError as error:
        if is_private and not origin.startswith("--") and not os.access(path, os.F_OK):
            # Not shown, and no cause that shows it: it may be the key, without the lines of PEM.
            raise SigningError(
                f"{origin}: names no file that is there ({error.strerror}), and is no key as PEM; "
                "put the name of the key's file there, or its whole text with the line "
                "-----BEGIN PRIVATE KEY-----"
            ) from None
        raise SigningError(
            f"{place}: this key cannot be read ({error.strerror}); name the file of a key"
        ) from error


@cache
def _require_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise SigningError(NO_LIBRARY) from error


def _public_pem(key: ed25519.Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _key_id(key: ed25519.Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


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
    malformed = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
    try:
        document = json.loads(data)
        payload, signatures = _decoded(document["payload"]), [*document["signatures"]]
        is_known = document["payloadType"] == payload_type
    except malformed:
        is_known = False
    if not is_known:
        raise BadEnvelopeError(f"it is no DSSE envelope of {payload_type}")
    for one in signatures:
        with suppress(*malformed):
            # The key's id is a hint, and nothing that is signed: another tool has other ids.
            if verifier.verify("", _decoded(one["sig"]), pae(payload_type, payload)):
                return payload
    raise BadEnvelopeError("none of its signatures is of a key that is trusted")


def _decoded(text: str) -> bytes:
    """Decode base64, standard or URL-safe, as DSSE asks of readers. Raises ValueError."""
    return base64.b64decode(text.translate(_STANDARD), validate=True)


_STANDARD = str.maketrans("-_", "+/")


PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://pytest-celery-manifest.invalid/attestation/work-order/v1"
SUFFIX: Final = ".sig"
"""Larger than any signature that this writes."""


def signature_of(path: Path) -> Path:
    """Return the file beside a manifest that its signature is in."""
    return path.with_name(path.name + SUFFIX)


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
        signed = _digests_in(open_envelope(data, PAYLOAD_TYPE, verifier))
    except (ValueError, AttributeError, RecursionError) as error:
        raise SigningError(
            f"{place}: is no signature that this work order can be sent by ({error}); have it "
            f"signed again by 'manifest sign {path}', or name the public key of who signed it"
        ) from error
    if signed != (found, entries_sha256):
        raise SigningError(
            f"{path}: was changed since it was signed (its SHA-256 is {found}, that of what was "
            f"signed {signed[0]}); look at what was changed before you sign it again"
        )


def _digests_in(payload: bytes) -> tuple[str, str]:
    """Return the digests of the file and its entries; raises BadEnvelopeError for other kinds."""
    statement = json.loads(payload)
    kinds = [statement.get(name) for name in ("_type", "predicateType")]
    if kinds != [STATEMENT_TYPE, PREDICATE_TYPE]:
        raise BadEnvelopeError("what is signed is no work order")
    try:
        (subject,) = statement["subject"]
        return subject["digest"]["sha256"], statement["predicate"]["entriesSha256"]
    except (LookupError, TypeError, ValueError) as error:
        raise BadEnvelopeError("what is signed names no SHA-256 of a work order") from error
