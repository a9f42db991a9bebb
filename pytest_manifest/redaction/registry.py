"""Take the values that this process hides: from its environment, and from whoever registers one.

All of it is for one process: what is hidden there is hidden in what that process writes.
"""

from __future__ import annotations

import os
from typing import Final

from pytest_manifest.redaction.literals import add_literals, register
from pytest_manifest.redaction.settings import is_secret_name
from pytest_manifest.redaction.spellings import spellings
from pytest_manifest.redaction.urls import passwords_of

SHORTEST_LITERAL: Final = 8
"""Characters below which a value of the environment ("1", "guest") is not hidden: it would be
blanked out of innocent text."""
SHORTEST_SECRET: Final = 4
"""Characters that a secret must have that somebody registers."""


def manifest_secret(secret: str) -> str:
    """Hide this value in all that this process shows from now on, and return it.

    Raises ValueError for one of less than four characters, TypeError for one that is no text.
    """
    if not isinstance(secret, str):
        raise TypeError(f"a secret must be a str, not {type(secret).__name__}; give its text")
    if len(secret) < SHORTEST_SECRET:
        raise ValueError(
            f"a secret of {len(secret)} characters cannot be hidden without blanking out other "
            f"text; it must have {SHORTEST_SECRET} or more"
        )
    add_literals(spellings(secret))
    register(secret)
    return secret


def hide(secret: str) -> None:
    """Hide this value, unless it is too short to be told from words."""
    if len(secret) >= SHORTEST_LITERAL:
        add_literals(spellings(secret))


def hide_environment() -> None:
    """Hide the values of secret-looking variables, and the passwords of URLs in variables.

    The path of a file, in which a secret is, is none.
    """
    for name, value in os.environ.items():
        if is_secret_name(name) and not _is_path(value):
            hide(value)
        if "://" in value:
            for password in passwords_of(value):
                hide(password)


def _is_path(value: str) -> bool:
    return os.sep in value and os.path.exists(value)  # noqa: PTH110 - a Path raises for long texts
