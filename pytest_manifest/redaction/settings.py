"""Hold what this process hides: names, whether reports are redacted at all, and the salt."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from pytest_manifest.process_state import ProcessState
from pytest_manifest.redaction.names import Names, compile_names, parse_names

_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Settings:
    names: Names | None = None
    is_on: bool = True
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(_SALT_BYTES))


settings: Final = ProcessState(_Settings)


def configure(*, names: Sequence[str] = (), is_on: bool = True) -> None:
    """Take more names, or ``!name`` for one less, and whether documents are redacted at all.

    Raises ValueError for a word that is no name.
    """
    compiled = parse_names(names) if names else None
    settings.now = replace(settings.now, names=compiled, is_on=is_on)


def names_in_force() -> Names:
    return settings.now.names or _defaults()


@lru_cache(maxsize=1)
def _defaults() -> Names:
    return compile_names()


def is_secret_name(name: str) -> bool:
    """Return whether what stands under this name is hidden."""
    return names_in_force().ending.search(name) is not None


def is_on() -> bool:
    """Return whether documents are redacted before they are shown."""
    return settings.now.is_on


def current_salt() -> bytes:
    """Return the session's salt: random, and in no file."""
    return settings.now.salt


def use_salt(salt: bytes) -> None:
    """Take the salt of the session that this process is part of."""
    settings.now = replace(settings.now, salt=salt)
