"""Make any text visible, and JSON safe within a page."""

from __future__ import annotations

import json
import re
from typing import Final

from pydantic import JsonValue

_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)
"""Characters that are invisible or change how others show: control characters but for tab and
line feed, zero-width and bidirectional ones, separators of lines, and halves of surrogate pairs."""

_BREAKS_OUT: Final = re.compile("[<>&]")
_ESCAPED: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def visible(text: str) -> str:
    """Make every character visible: controls as their pictures, others as ``\\uXXXX``.

    An escape sequence of a terminal reads ``␛[31m``; no character changes the text's direction.
    """
    return _UNSEEN.sub(_shown, text.replace("\r\n", "\n"))


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}"


def first_line(text: str, limit: int) -> str:
    """Return the first line of a text, visible, of at most ``limit`` characters."""
    line = visible(text.strip().partition("\n")[0])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def pretty(value: JsonValue) -> str:
    """Format a JSON value for people."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def script_json(value: object) -> str:
    """Return ASCII JSON that cannot end a script element or open a comment, whatever it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return _BREAKS_OUT.sub(lambda match: _ESCAPED[match.group()], text)
