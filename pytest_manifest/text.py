"""Text for people: paths as they would type them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def short_path(path: Path, root: Path) -> str:
    """Return the path as a person would type it: relative where it lies below ``root``."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(root))
    return str(path)
