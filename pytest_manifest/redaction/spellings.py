"""Tell how a value is written by others: in URLs, JSON, Python, base64, and line by line."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, quote_plus

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
