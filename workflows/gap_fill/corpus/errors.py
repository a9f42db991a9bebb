"""Define the error of a corpus that cannot be read."""

from __future__ import annotations

from pathlib import Path

from pytest_manifest.errors import PlanError


class CorpusError(PlanError):
    """A corpus that cannot be read: ``FILE:LINE: what; what to do next``."""


def place(path: Path, line: int = 0) -> str:
    """Return ``FILE:LINE``, lines counted from 1; 0 is the file as a whole."""
    return f"{path}:{line}" if line else str(path)
