"""Write files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pytest_manifest.manifest.faults import file_error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that replaces it when the block ends without an error.

    At an error the temporary file is removed. File and folder are synced, so that the new file
    survives a power cut; a symbolic link is followed. Raises ManifestError, which names ``path``,
    where the file cannot be made or moved into place.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    with contextlib.ExitStack() as undo:
        with writing(path):
            # Not tempfile: its files have mode 0600, and this one is to have what the umask says.
            file = undo.enter_context(temporary.open("x+b"))
        undo.callback(temporary.unlink, missing_ok=True)
        yield file
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ManifestError that names ``path``."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise file_error(path, f"it cannot be written ({why}); check the folder") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
