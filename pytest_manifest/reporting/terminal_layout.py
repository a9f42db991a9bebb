"""Lay out text for a terminal of any width: escaped, cut, wrapped, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytest_manifest.text import cells, cut, fitting, one_line

NARROWEST = 40
_INDENT = 2


class Line(NamedTuple):
    """A line of text, with its colours where the terminal shows any."""

    text: str
    bold: bool = False
    red: bool = False
    yellow: bool = False
    green: bool = False


BLANK = Line("")


@dataclass(frozen=True, slots=True)
class Sheet:
    """The width and the abilities of a terminal or file.

    ``width``: in columns; ``terminal``: it is one; ``rich``: it shows more than ASCII; ``all``: the
    user wants everything (``-v``).
    """

    width: int = 80
    terminal: bool = False
    rich: bool = False
    all: bool = False

    def cut(self, text: str, width: int) -> str:
        """Return foreign text on one line of at most so many columns, its middle left out."""
        ellipsis = "\u2026" if self.rich else "..."
        return cut(one_line(text), max(width, len(ellipsis) + 2), ellipsis)

    def in_two_lines(self, text: str, width: int) -> Iterator[str]:
        """Yield foreign text in at most two lines; the middle of the second is left out."""
        text = one_line(text)
        head = fitting(text, width)
        if head == text:
            yield text
            return
        space = head.rfind(" ")
        head = head[:space] if space > len(head) // 2 else head
        yield head
        yield self.cut(text[len(head) :].lstrip(), width)

    def wrapped(self, text: str, *, indent: int, hanging: int = 0) -> Iterator[str]:
        """Yield a text in lines; ``hanging``: further columns before all but the first."""
        left = " " * indent
        room = max(self.width, NARROWEST) - indent
        rest = one_line(text)
        while cells(rest) > room:
            head = fitting(rest, room)
            space = f"{head}{rest[len(head)]}".rfind(" ")
            head = head[:space] if space > 0 else head
            yield left + head
            rest = rest[len(head) :].lstrip()
            left, room = " " * (indent + hanging), max(self.width, NARROWEST) - indent - hanging
        yield left + rest


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Pad the text with spaces to this many columns, on its left with ``right``."""
    space = " " * max(width - cells(text), 0)
    return space + text if right else text + space


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column of rows that are equally long."""
    return [max(map(cells, column)) for column in zip(*rows, strict=True)]


def gap_of(rows: Sequence[Sequence[str]], sheet: Sheet) -> int | None:
    """Return how many columns fit between the rows' cells, 2 or 1; None if none do."""
    wide = widths(rows)
    return next((gap for gap in (2, 1) if table_width(wide, gap) <= sheet.width), None)


def table_width(column_widths: Sequence[int], gap: int) -> int:
    """Return the width of an indented table with such columns, in columns."""
    return sum(column_widths) + gap * (len(column_widths) - 1) + _INDENT


def table_lines(rows: Sequence[Sequence[str]], gap: int) -> Iterator[Line]:
    """Yield the rows, the first as heads; the first column is aligned left, others right."""
    wide, between = widths(rows), " " * gap
    for number, row in enumerate(rows):
        row_cells = [
            padded(cell, width, right=position > 0)
            for position, (cell, width) in enumerate(zip(row, wide, strict=True))
        ]
        yield Line((" " * _INDENT + between.join(row_cells)).rstrip(), bold=number == 0)
