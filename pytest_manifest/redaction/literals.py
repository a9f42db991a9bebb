"""Keep the values that this process hides wherever they appear."""

from __future__ import annotations

from collections.abc import Iterable

_literals: tuple[str, ...] = ()


def literals() -> tuple[str, ...]:
    """Return the hidden values, the longest first: one may be a part of another."""
    return _literals


def add_literals(values: Iterable[str]) -> None:
    global _literals
    # Replaced, not changed in place: other threads iterate over it.
    _literals = tuple(sorted({*_literals, *values}, key=lambda one: (-len(one), one)))
