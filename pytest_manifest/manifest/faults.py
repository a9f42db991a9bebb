"""Collect the faults of a file: the first ones by line, and the number of the others."""

from __future__ import annotations

from bisect import insort
from pathlib import Path
from typing import Final

from pytest_manifest.errors import Fault, ManifestError

MAX_FAULTS: Final = 20


class Faults:
    """The first ``MAX_FAULTS`` faults of the file that is shown as ``path``, ordered by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: list[Fault] = []
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, line: int, message: str) -> None:
        """Record a fault on ``line`` (from 1; 0: the file as a whole)."""
        insort(self._kept, Fault(self.path, line, message), key=lambda fault: fault.line)
        if len(self._kept) > MAX_FAULTS:
            self._kept.pop()
            self._more += 1

    def error(self) -> ManifestError:
        """Return all recorded faults as one error to raise."""
        return ManifestError(self._kept, more=self._more)

    def raise_any(self) -> None:
        """Raise ManifestError if a fault was recorded."""
        if self._kept:
            raise self.error()


def file_error(path: Path, message: str) -> ManifestError:
    """Return an error about a file as a whole."""
    return ManifestError([Fault(path, 0, message)])
