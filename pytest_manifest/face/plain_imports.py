"""Have Python import this package, and not pytest; importing this module sees to it.

pytest imports every module of a plugin itself, to rewrite its assertions for tests that fail in
them. It keeps what it made of a module beside it, where it may write there: elsewhere (as root's
packages in a container, or with PYTHONDONTWRITEBYTECODE) each process would parse all modules anew,
which takes longer than all else that a session with one job does. Assertions of this package are
no user's, and plain ones are found compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

PACKAGE: Final = "pytest_manifest."


class PlainFinder:
    """Finds this package's modules as Python would; it stands before pytest's own finder."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith(PACKAGE) else None


sys.meta_path.insert(0, PlainFinder)
