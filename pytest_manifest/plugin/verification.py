"""Define the built-in tests: of an entry that no verify.py verifies, and of a group of entries."""

from __future__ import annotations


def entry(manifest_builtin_entry: None) -> None:
    """Verify that the entry's receipt meets its expectations (evaluated before this body runs)."""


entry.__test__ = True  # type: ignore[attr-defined]  # pytest's own mark for a test with another name


def entries(manifest_builtin_group: str) -> None:
    """Verify that all entries of the group have passed (looked up before this body runs)."""


entries.__test__ = True  # type: ignore[attr-defined]  # as above
