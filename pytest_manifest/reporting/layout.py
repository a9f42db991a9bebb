"""Lay out text for a terminal of any width: escaped, cut, wrapped, in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytest_manifest.reporting.cells import cells, fitting
from pytest_manifest.verdict import printable
from pytest_manifest.verdict.text import seconds

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
    """A terminal or file that is written on.

    ``width``: in columns; ``terminal``: it is one; ``rich``: it shows more than ASCII; ``all``: the
    user wants everything (``-v``).
    """

    width: int = 80
    terminal: bool = False
    rich: bool = False
    all: bool = False

    def cut(self, text: str, width: int) -> str:
        """Return foreign text on one line of at most so many columns, its middle left out."""
        text = shown(text)
        if cells(text) <= width:
            return text
        dots = "\u2026" if self.rich else "..."
        room = max(width - len(dots), 2)
        head = fitting(text, room - room // 2)
        tail = fitting(text[::-1], room // 2)[::-1]
        return f"{head}{dots}{tail}"

    def in_two_lines(self, text: str, width: int) -> Iterator[str]:
        """Yield foreign text in at most two lines; the middle of the second is left out."""
        text = shown(text)
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
        rest = shown(text)
        while cells(rest) > room:
            head = fitting(rest, room)
            space = f"{head}{rest[len(head)]}".rfind(" ")
            head = head[:space] if space > 0 else head
            yield left + head
            rest = rest[len(head) :].lstrip()
            left, room = " " * (indent + hanging), max(self.width, NARROWEST) - indent - hanging
        yield left + rest


def shown(text: str) -> str:
    """Return foreign text on one line, with control and invisible characters escaped."""
    one_line = " ".join(printable(text).split())
    if one_line.isprintable():
        return one_line
    return "".join(c if c.isprintable() else _escaped(c) for c in one_line)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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


def time_text(value: float) -> str:
    """Format seconds, in five columns as long as they are below a day."""
    if 0 < value < 0.0005:
        return "<.001"
    if value < 9.9995:
        return f"{value:.3f}"
    if value < 99.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 999.95 else f"{value:.0f}"


def lasting(value: float) -> str:
    """Format seconds in words, with three digits: ``12.4 s``, ``3 min 05 s``, ``8 h 12 min``."""
    if value < 59.95:
        return seconds(float(f"{value:.3g}"))
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def pace_text(value: float) -> str:
    """Format a rate (jobs per second), slow ones as jobs a minute or an hour."""
    units = (("a second", 1), ("a minute", 60), ("an hour", 3600))
    unit, factor = next((one for one in units if value * one[1] >= 1), units[-1])
    return f"{rate_text(value * factor)} jobs {unit}"


def rate_text(value: float) -> str:
    """Format a rate with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
