"""Take the values that this process hides: from its environment, and from whoever registers one.

All of it is for one process: what is hidden there is hidden in what that process writes.

Tell how a value is written by others: in URLs, JSON, Python, base64, and line by line.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, quote_plus

from pytest_manifest.redaction.names import is_secret_name
from pytest_manifest.redaction.texts import add_literals, passwords_of, register

_SHORTEST_PART: Final = 8
"""Characters of a line that is hidden by itself, and of a value that is looked for in base64."""
_URL_SAFE: Final = str.maketrans("+/", "-_")
_ESCAPES: Final[Sequence[Callable[[str], str]]] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
)


def spellings(secret: str) -> Iterator[str]:
    """Yield how a value is written: as it is, and within URLs, JSON, Python's repr and base64.

    JSON may be in JSON, or in Python's repr, as in the text of a KeyError. A value of several lines
    is hidden line by line, too: who prints it may put something before each.
    """
    escaped = {secret}
    for _ in range(2):
        escaped |= {escape(one) for one in escaped for escape in _ESCAPES}
    yield from escaped
    yield quote(secret, errors="replace")
    yield quote(secret, safe="", errors="replace")
    yield quote_plus(secret, errors="replace")
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in map(str.strip, lines) if len(line) >= _SHORTEST_PART)
    if len(secret) >= _SHORTEST_PART:
        yield from _in_base64(secret.encode("utf-8", "replace"))


def spelled(secrets: Iterable[str]) -> list[str]:
    """Return all spellings of these values, the longest first: one may be a part of another."""
    found = {spelling for secret in secrets for spelling in spellings(secret)}
    return sorted(found, key=lambda one: (-len(one), one))


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of it in any place of a longer text, as in ``user:password``."""
    for before in range(3):
        whole = b64encode(bytes(before) + data).decode()
        text = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield text
        yield text.translate(_URL_SAFE)


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
