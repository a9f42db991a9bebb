"""Another implementation opens what we sign."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # its own example does

from pytest_manifest import signing
from tests.unit.test_signing import pair, signed

__all__ = ["pair"]  # a fixture is found by its name here


def test_another_implementation_of_dsse_opens_the_envelope(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    """It is an in-toto statement about the file, by securesystemslib, and by no other key."""
    path = signed(tmp_path, pair[0])
    document = json.loads(signing.signature_of(path).read_bytes())
    envelope = Envelope.from_dict(json.loads(json.dumps(document)))
    key_id = document["signatures"][0]["keyid"]
    public = load_pem_public_key(pair[1].read_bytes())
    assert list(envelope.verify([SSlibKey.from_crypto(public, key_id)], 1)) == [key_id]
    other = load_pem_public_key(signing.generate()[1].encode())
    with pytest.raises(VerificationError):
        envelope.verify([SSlibKey.from_crypto(other, key_id)], 1)

    statement = json.loads(envelope.payload)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert statement["subject"] == [
        {"name": "m.jsonl", "digest": {"sha256": digest.stdout.split()[0]}}
    ]
