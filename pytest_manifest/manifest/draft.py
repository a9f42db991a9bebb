"""Collect a manifest's lines on disk while it is made, with their number and digest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pytest_manifest.manifest.scan import Places
from pytest_manifest.schema import Header

_SPOOL = 1 << 20
_BLOCK = 1 << 16
_COPY = 1 << 20


class Draft:
    """Lines in a nameless file below ``folder`` (None: the system's temporary one).

    However many there are, only the ids of :meth:`add_entry` are kept in memory, and the last
    lines: a line's share of one large write is a fifth of what a write of its own takes. The file
    goes with :meth:`close`, with the object and with the process, however that ends. OSError is
    raised where it cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(_SPOOL, dir=place)  # noqa: SIM115 - see close()
        self._digest = hashlib.sha256()
        self._last: list[bytes] = []
        self._lines = 0
        self._size = 0
        self._written = 0
        self._ids: dict[str, None] = {}
        self._offsets = array("Q")
        self._looks_ahead = False
        self.close = weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """Return the number of lines."""
        return self._lines

    def __contains__(self, entry_id: object) -> bool:
        """Return whether :meth:`add_entry` was called with this id."""
        return entry_id in self._ids

    def add(self, line: bytes) -> None:
        """Take one line, without its newline; it is in here unless OSError is raised."""
        self._last.append(line)
        if self._size - self._written + len(line) >= _BLOCK:
            try:
                self.flush()
            except OSError:
                self._last.pop()
                raise
        self._size += len(line) + 1
        self._lines += 1

    def add_entry(self, line: bytes, entry_id: str, after: Sequence[str] = ()) -> None:
        """Add the line of an entry that is known to be valid and has an id new to the draft."""
        offset = self._size
        self.add(line)
        self._offsets.append(offset)
        if after and not self._looks_ahead:
            self._looks_ahead = not self._ids.keys() >= set(after)
        self._ids[entry_id] = None

    def flush(self) -> None:
        """Write what is still in memory."""
        block = b"\n".join([*self._last, b""])
        self._file.seek(self._written)  # copy_to() or a failed write moved it
        self._file.write(block)
        self._written += len(block)
        self._digest.update(block)
        self._last.clear()

    def complete(self, header: Header) -> Header:
        """Return ``header`` with the number of these lines and their SHA-256 digest filled in."""
        self.flush()
        facts = {"entries": self._lines, "sha256": self._digest.hexdigest()}
        return header.model_copy(update=facts)

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all lines to another file, from where that stands."""
        self.flush()
        self._file.truncate(self._size)
        self._file.seek(0)
        shutil.copyfileobj(self._file, file, _COPY)

    def places(self, start: int) -> Places | None:
        """Return ids and byte offsets of the entries in a file that holds them from byte ``start``.

        Returns None where the file has to be read and checked again: lines were added by
        :meth:`add`, or an ``after`` names an entry that was not added before, which may be missing
        or close a circle.
        """
        if self._looks_ahead or not len(self._ids) == self._lines > 0:
            return None
        return Places(list(self._ids), array("Q", map(start.__add__, self._offsets)))
