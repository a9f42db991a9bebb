"""Show foreign text on a terminal as text, and measure it as wide as it is drawn."""

from __future__ import annotations

from typing import Final

from pytest_manifest.reporting.cells import EMOJI, cells, fitting

ELLIPSIS: Final = "..."


def visible(text: str, encoding: str = "utf-8") -> str:
    """Return ``text`` on one line, with escapes for what a terminal would obey or cannot draw.

    Control characters, bidirectional marks, lone surrogates and characters that ``encoding`` lacks
    are escaped.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == EMOJI else _escape(c) for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def cut(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` columns; a longer one loses its middle."""
    if cells(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return ELLIPSIS[: max(width, 0)]
    tail = (width - len(ELLIPSIS)) // 2
    head = width - len(ELLIPSIS) - tail
    return fitting(text, head) + ELLIPSIS + fitting(text[::-1], tail)[::-1]


def clock(seconds: float) -> str:
    """Format seconds for people: ``12 s``, ``3:47``, ``1:02:03``."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def pace(rate: float) -> str:
    """Format a rate per second, as ``41.3/s``; a slow one per minute or per hour."""
    for unit, factor in (("s", 1), ("min", 60), ("h", 3600)):
        number = rate * factor
        if number >= 1 or unit == "h":
            break
    return f"{number:.0f}/{unit}" if number >= 100 else f"{number:.3g}/{unit}"


def _escape(character: str) -> str:
    return character.encode("unicode-escape").decode("ascii")
