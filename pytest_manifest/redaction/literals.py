"""Keep the values that this process hides wherever they appear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from pytest_manifest.process_state import ProcessState


@dataclass(slots=True)
class Hidden:
    """Values that are hidden. A session goes on to hide what its process has hidden before."""

    literals: tuple[str, ...] = ()
    registered: frozenset[str] = frozenset()


hidden_values: Final = ProcessState(Hidden, inherit=replace)


def literals() -> tuple[str, ...]:
    """Return the hidden values, the longest first: one may be a part of another."""
    return hidden_values.now.literals


def add_literals(values: Iterable[str]) -> None:
    now = hidden_values.now
    # Replaced, not changed in place: other threads iterate over it.
    now.literals = tuple(sorted({*now.literals, *values}, key=lambda one: (-len(one), one)))


def register(secret: str) -> None:
    """Note that somebody has registered this value."""
    now = hidden_values.now
    now.registered |= {secret}  # not changed in place: other threads may be reading it


def registered_secrets() -> list[str]:
    """Return what was registered in this process, for other processes of the same run."""
    return sorted(hidden_values.now.registered)
