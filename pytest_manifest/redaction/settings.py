"""Hold what this process hides: names, whether reports are redacted at all, and the salt."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from pytest_manifest.redaction.names import Names, compile_names, parse_names

_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Settings:
    names: Names | None = None
    is_on: bool = True
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(_SALT_BYTES))


_settings = _Settings()


def configure(*, names: Sequence[str] = (), is_on: bool = True) -> None:
    """Take more names, or ``!name`` for one less, and whether documents are redacted at all.

    Raises ValueError for a word that is no name.
    """
    global _settings
    compiled = parse_names(names) if names else None
    _settings = replace(_settings, names=compiled, is_on=is_on)


def names_in_force() -> Names:
    return _settings.names or _defaults()


@lru_cache(maxsize=1)
def _defaults() -> Names:
    return compile_names()


def is_secret_name(name: str) -> bool:
    """Return whether what stands under this name is hidden."""
    return names_in_force().ending.search(name) is not None


def is_on() -> bool:
    """Return whether documents are redacted before they are shown."""
    return _settings.is_on


def current_salt() -> bytes:
    """Return the session's salt: random, and in no file."""
    return _settings.salt


def use_salt(salt: bytes) -> None:
    """Take the salt of the session that this process is part of."""
    global _settings
    _settings = replace(_settings, salt=salt)
