"""The lines of a manifest that is being made: on disk, with their number and digest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import IO

from pytest_manifest.schema import Header

_SPOOL = 1 << 20
_COPY = 1 << 20


class Draft:
    """Lines in a nameless file below ``folder`` (None: the system's temporary one).

    However many there are, memory stays flat. The file goes with :meth:`close`, with the object and
    with the process, however that ends. OSError is raised where it cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(_SPOOL, dir=place)  # noqa: SIM115 - see close()
        self._digest = hashlib.sha256()
        self._lines = 0
        self._size = 0
        self._at_end = True
        self.close = weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """How many lines there are."""
        return self._lines

    def add(self, line: bytes) -> None:
        """Write one line, without its newline."""
        if not self._at_end:  # after a copy, or a write that failed half-way
            self._file.seek(self._size)
        self._at_end = False
        self._file.write(line + b"\n")
        self._at_end = True
        self._size += len(line) + 1
        self._lines += 1
        self._digest.update(line)
        self._digest.update(b"\n")

    def complete(self, header: Header) -> Header:
        """The header with the count and the digest of these lines."""
        facts = {"entries": self._lines, "sha256": self._digest.hexdigest()}
        return header.model_copy(update=facts)

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all lines to another file, from where that stands."""
        self._at_end = False
        self._file.truncate(self._size)
        self._file.seek(0)
        shutil.copyfileobj(self._file, file, _COPY)
