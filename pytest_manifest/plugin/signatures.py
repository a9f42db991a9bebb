"""Hold work orders against their signatures, where the user asks for that, before all else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import SigningError

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.signing.keys import Verifier

KEY_VARIABLE: Final = "MANIFEST_PUBLIC_KEY"
"""As ``signing.keys`` has it, which an idle session does not import."""


def check_work_order(manifest: Manifest, options: Options) -> None:
    """Check that a trusted key has signed a manifest as it was read, where that is required.

    Raises SigningError with a sentence where it has not.
    """
    if options.require_signature:
        from pytest_manifest.signing.orders import check_order

        check_order(manifest.path, manifest.sha256, _verifier(options))


def _verifier(options: Options) -> Verifier:
    """Read the public keys of the option, else of the environment's variable."""
    from pytest_manifest.signing.keys import read_verifier

    return read_verifier(*key_source(options.public_key, "--manifest-public-key", KEY_VARIABLE))


def key_source(given: Path | None, option: str, variable: str) -> tuple[str, str]:
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
