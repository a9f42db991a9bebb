"""Make keys, sign manifests and check their signatures: ``keygen``, ``sign``, ``verify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from pytest_manifest import signing
from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.output import answer
from pytest_manifest.errors import SigningError
from pytest_manifest.manifest import check_manifest, manifest_digest

OPTION: Final = "--key"
KEY: Final = Path("manifest.key")
"""Where a new private key is put, and where one is looked for, unless something else is named."""


def keygen(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", show_default=False)] = KEY,
    json: arguments.Json = False,
) -> None:
    """Make a key to sign with.

    The private one in FILE (manifest.key), which only you can read, the public one beside it with
    the ending .pub. No file is ever overwritten.
    """
    public = file.with_suffix(".pub")
    if public == file:
        raise SigningError(f"{file}: the public key would be in the same file; name another one")
    if public.exists():
        raise signing.is_there(public)
    private_pem, public_pem = signing.generate()
    signing.write_key(file, private_pem, 0o600)
    signing.write_key(public, public_pem.encode(), 0o644)
    (key_id,) = signing.read_verifier(public_pem, str(public)).key_ids
    answer(
        {"private": str(file), "public": str(public), "key_id": key_id},
        [
            f"{file}: the private key; keep it to yourself, and out of version control",
            f"{public}: the public key {key_id[:16]}; give it to whoever checks what you sign",
        ],
        json=json,
    )


def sign(
    files: arguments.Files,
    key: Annotated[
        Path | None,
        typer.Option(
            OPTION,
            metavar="FILE",
            help="the private key; default: as MANIFEST_SIGNING_KEY says, else manifest.key",
        ),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Sign manifests.

    Each signature is a file beside its manifest, FILE.sig: a DSSE envelope with an in-toto
    statement, which cosign and others can check, too.
    """
    if key is None and not os.environ.get(signing.SIGNING_KEY_VARIABLE) and KEY.is_file():
        key = KEY  # as keygen names it
    signer = signing.read_signer(*_source(key, signing.SIGNING_KEY_VARIABLE, "a private key"))
    orders_to_sign = [check_manifest(path) for path in files]  # none where one is faulty
    signed = {
        str(order.path): signing.sign_order(order.path, order.entries, order.sha256, signer)
        for order in orders_to_sign
    }
    found: list[JsonValue] = [
        {"file": file, "signature": str(place)} for file, place in signed.items()
    ]
    lines = [f"{place}: signed with the key {signer.key_id[:16]}" for place in signed.values()]
    answer({"key_id": signer.key_id, "signed": found}, lines, json=json)


def verify(
    files: arguments.Files,
    key: Annotated[
        Path | None,
        typer.Option(
            OPTION, metavar="FILE", help="the public keys; default: as MANIFEST_PUBLIC_KEY says"
        ),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Check the signatures of manifests.

    A public key that merely lies there is not taken: whoever has changed the manifest may have put
    it there.

    The exit status is 1 where one is missing, or does not hold.
    """
    verifier = signing.read_verifier(*_source(key, signing.PUBLIC_KEY_VARIABLE, "the public keys"))
    faults: dict[Path, str | None] = {}
    for path in files:
        faults[path] = None
        try:
            signing.check_order(path, manifest_digest(path), verifier)
        except SigningError as error:
            faults[path] = str(error)
    answer(
        {"files": [{"file": str(path), "fault": why} for path, why in faults.items()]},
        [why or f"{path}: its signature holds" for path, why in faults.items()],
        json=json,
    )
    if any(faults.values()):
        raise typer.Exit(FOUND)


def _source(key: Path | None, variable: str, what: str) -> tuple[str, str]:
    """Return where a key is read from, and how to call it. Raises SigningError for nowhere."""
    if key is not None:
        return str(key), OPTION
    if told := os.environ.get(variable):
        return told, variable
    raise SigningError(
        f"name {what} by {OPTION}=FILE, or in {variable}; 'manifest keygen' makes a pair"
    )
