"""How many columns a terminal takes for printable text, by wcwidth's tables."""

from __future__ import annotations

from typing import Final

from wcwidth import wcwidth

EMOJI: Final = "\ufe0f"
"""Asks for the character before it as a picture, which is two cells wide."""


def cells(text: str) -> int:
    """Count the columns of printable text, at most: a terminal that joins characters takes less."""
    return len(text) if text.isascii() else sum(map(_width, text))


def fitting(text: str, width: int) -> str:
    """Cut off what of a text does not fit into so many columns."""
    taken = 0
    for position, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[:position]
    return text


def _width(character: str) -> int:
    # With the character before it the mark is two cells wide; unprintable characters have -1.
    return 1 if character == EMOJI else max(wcwidth(character), 0)
