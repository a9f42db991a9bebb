"""Make values and foreign text readable: printable, bounded, shortened in the middle."""

from __future__ import annotations

import re
from functools import cache
from reprlib import Repr
from typing import Final

VALUE_LIMIT: Final = 80

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\^_])?")
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    r"\ud800-\udfff]"  # lone surrogates
)


def short(value: object, limit: int = VALUE_LIMIT) -> str:
    """Return a value's repr on one line, cut in the middle to ``limit`` characters.

    Large values are cut before they are formatted, so that a result of megabytes costs nothing.
    """
    return middle(_bounded(limit).repr(value), limit)


@cache
def _bounded(limit: int) -> Repr:
    bounded = Repr()
    bounded.maxstring = bounded.maxother = bounded.maxlong = limit
    bounded.maxlist = bounded.maxdict = bounded.maxtuple = 12
    return bounded


def middle(text: str, limit: int) -> str:
    """Return ``text``, or its head and tail around an ellipsis if it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    tail = (limit - 3) // 2
    return f"{text[: limit - 3 - tail]}...{text[len(text) - tail :]}"


def printable(text: str) -> str:
    """Remove terminal sequences; turn other control characters into visible escapes."""
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _CONTROLS.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def seconds(value: float) -> str:
    """Format a duration: ``0.031 s``, ``12.4 s``, ``300 s``."""
    if value and abs(value) < 0.0005:
        return f"{value:.1g} s"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:.0f} s"
    return f"{value:.3g} s"


def plural(count: int, noun: str) -> str:
    """Format a count: ``1 line``, ``2 lines``, ``2 entries``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"
