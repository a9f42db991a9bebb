"""The built-in verification: the test of an entry whose workflow has no verify.py of its own, and
that of a group of entries."""

from __future__ import annotations


def entry(manifest_builtin_entry: None) -> None:
    """The entry's receipt meets its expectations (held against them before this body runs)."""


entry.__test__ = True  # type: ignore[attr-defined]  # pytest's own mark for a test with another name


def entries(manifest_builtin_group: str) -> None:
    """All entries of the group have passed (looked up before this body runs)."""


entries.__test__ = True  # type: ignore[attr-defined]  # as above
