"""Measure how many columns a terminal takes for printable text, by wcwidth's tables."""

from __future__ import annotations

from typing import Final

from wcwidth import wcwidth

EMOJI: Final = "\ufe0f"
"""Variation selector: the character before it is drawn as a picture, two columns wide."""


def cells(text: str) -> int:
    """Count the columns of printable text, at most: a terminal that joins characters takes less."""
    return len(text) if text.isascii() else sum(map(_width, text))


def fitting(text: str, width: int) -> str:
    """Return the beginning of a text that fits into so many columns."""
    taken = 0
    for position, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:position]
    return text


def _width(character: str) -> int:
    # The selector adds a column to the character before it; unprintable characters have -1.
    return 1 if character == EMOJI else max(wcwidth(character), 0)
