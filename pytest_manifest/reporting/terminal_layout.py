"""Lay out text for a terminal of any width: escaped, cut, wrapped, in columns."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pytest_manifest.text import cells, cut, fitting, one_line

NARROWEST = 40


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


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], sheet: Sheet, *, indent: int = 2
) -> Iterator[Line]:
    """Yield rows below their columns' names, where those have any; long cells are folded.

    A column whose name begins with ``#`` is aligned right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads = [name.removeprefix("#") for name in columns]
    table = Table(box=None, pad_edge=False, show_header=any(heads))
    for name, head in zip(columns, heads, strict=True):
        right = name.startswith("#")
        side: Literal["left", "right"] = "right" if right else "left"
        table.add_column(head, justify=side, no_wrap=right, overflow="fold", header_style="none")
    for row in rows:
        table.add_row(*map(Text, row))
    file = io.StringIO()
    console = Console(width=sheet.width - indent, file=file, color_system=None)
    console.print(table, highlight=False)
    for number, line in enumerate(file.getvalue().splitlines()):
        yield Line(f"{' ' * indent}{line}".rstrip(), bold=number == 0 and any(heads))
