"""Hold work orders against their signatures, where the user asks for that, before all else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import SigningError

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.signing.keys import Signer, Verifier


def check_work_order(manifest: Manifest, options: Options) -> None:
    """Check that a trusted key has signed a manifest as it was read, where that is required.

    Raises SigningError with a sentence where it has not.
    """
    if options.require_signature:
        from pytest_manifest.signing.orders import check_order

        check_order(manifest.path, manifest.sha256, _verifier(options))


def _verifier(options: Options) -> Verifier:
    """Read the public keys of the option, else of the environment's variable."""
    from pytest_manifest.signing.keys import PUBLIC_KEY_VARIABLE, read_verifier

    source = _key_source(options.public_key, "--manifest-public-key", PUBLIC_KEY_VARIABLE)
    return read_verifier(*source)


def worker_keys(options: Options, *, may_lack: bool) -> str:
    """Return the public keys of the workers, of the option or the environment's variable, as PEM.

    Raises SigningError where nothing names any, or, if they ``may_lack``, returns "".
    """
    from pytest_manifest.signing.keys import RECEIPT_KEY_VARIABLE, read_verifier

    if may_lack and options.receipt_key is None and not os.environ.get(RECEIPT_KEY_VARIABLE):
        return ""
    source = _key_source(options.receipt_key, "--manifest-receipt-key", RECEIPT_KEY_VARIABLE)
    return read_verifier(*source).pem()


def key_for_own_workers(options: Options) -> tuple[Signer | None, str]:
    """Make a key for the workers of this session's own stack, where receipts must be signed.

    Return it with its PEM text; None and "" where they need not be.
    """
    if not options.require_signed_receipts:
        return None, ""
    from pytest_manifest.signing.keys import generate, read_signer

    pem = generate()[0].decode()
    return read_signer(pem, "the key of this session's workers"), pem


def _key_source(given: Path | None, option: str, variable: str) -> tuple[str, str]:
    """Return where keys are read from, and how to call it. Raises SigningError where nothing says.

    ``given``: the file that the option or the configuration file names; else the variable counts.
    """
    if given is not None:
        return str(given), option
    if told := os.environ.get(variable):
        return told, variable
    raise SigningError(
        f"signatures are required, and no public key is named to check them by; give {option}=FILE "
        f"or {variable}, with the .pub file of 'manifest keygen'"
    )
