"""Writing files: streamed, a manifest checked by the reader, and put in place in one step."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pytest_manifest.manifest.atomic import atomic_file, writing
from pytest_manifest.manifest.dump import dump_document, dump_entry, dump_header
from pytest_manifest.manifest.reader import Manifest, load
from pytest_manifest.schema import Entry, Header, Receipt

_SPOOL = 8 << 20


def write_manifest(path: Path, header: Header, entries: Iterable[Entry]) -> Manifest:
    """Writes ``header``, with the count and digest filled in, and ``entries`` to ``path``.

    The same arguments give the same bytes. The file appears whole or not at all; ManifestError is
    raised, and nothing left behind, where it cannot be written or would not be valid (an id twice,
    an ``after`` that names no entry, no entries). What ``entries`` itself raises passes through.
    """
    # The header stands first but needs what comes after it: the lines wait in a nameless file.
    folder = str(path.parent)
    with atomic_file(path) as file, tempfile.SpooledTemporaryFile(_SPOOL, dir=folder) as body:
        count, digest = _write_lines(body, (dump_entry(entry) for entry in entries), path)
        full = header.model_copy(update={"entries": count, "sha256": digest})
        with writing(path):
            file.write(dump_header(full) + b"\n")
            body.seek(0)
            shutil.copyfileobj(body, file, 1 << 20)
            file.flush()
        return load(Path(str(file.name)), shown=path)


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> int:
    """Writes the receipts, whole or not at all, and returns their number; raises ManifestError."""
    with atomic_file(path) as file:
        return _write_lines(file, (dump_document(receipt) for receipt in receipts), path)[0]


def _write_lines(file: IO[bytes], lines: Iterable[bytes], path: Path) -> tuple[int, str]:
    """Writes lines and ends each; returns their number and SHA-256, failing in ``path``'s name."""
    digest = hashlib.sha256()
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007 (the last number is the count)
        digest.update(line)
        digest.update(b"\n")
        with writing(path):
            file.write(line + b"\n")
    return count, digest.hexdigest()
