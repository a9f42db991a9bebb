"""Text of others on a terminal: shown as text, and as wide as a terminal draws it."""

from __future__ import annotations

import unicodedata
from typing import Final

ELLIPSIS: Final = "..."
_EMOJI: Final = "\ufe0f"
"""Asks for the character before it as a picture, which is two cells wide."""


def visible(text: str, encoding: str = "utf-8") -> str:
    """``text`` on one line, with what a terminal would obey or cannot draw as escapes.

    Control characters, marks of direction, lone surrogates and what ``encoding`` lacks are escaped.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == _EMOJI else _escape(c) for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def cells(text: str) -> int:
    """How many columns a terminal takes for visible text, at most."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns: of a longer one the head and the tail."""
    if cells(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return ELLIPSIS[: max(width, 0)]
    tail = (width - len(ELLIPSIS)) // 2
    head = width - len(ELLIPSIS) - tail
    return _fitting(text, head) + ELLIPSIS + _fitting(text[::-1], tail)[::-1]


def clock(seconds: float) -> str:
    """A duration for people: ``12 s``, ``3:47``, ``1:02:03``."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def pace(rate: float) -> str:
    """So many per second, as ``41.3/s``; of a slow rate so many per minute or hour."""
    for unit, factor in (("s", 1), ("min", 60), ("h", 3600)):
        number = rate * factor
        if number >= 1 or unit == "h":
            break
    return f"{number:.0f}/{unit}" if number >= 100 else f"{number:.3g}/{unit}"


def _escape(character: str) -> str:
    return character.encode("unicode-escape").decode("ascii")


def _width(character: str) -> int:
    if character == _EMOJI:
        return 1  # together with the one before: two
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(text: str, width: int) -> str:
    """As much of the beginning as takes at most so many columns."""
    taken = 0
    for position, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:position]
    return text
