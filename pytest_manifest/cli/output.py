"""Write what commands find: tables for people, JSON for programs; foreign text is escaped."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import json as json_module
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from pydantic import JsonValue

from pytest_manifest.errors import PlanError
from pytest_manifest.schema.statuses import SIGNS, STATUSES
from pytest_manifest.text import cells as width_of
from pytest_manifest.text import terminal_line

Row = TypeVar("Row")
AT_ONCE: Final = 500
"""Rows whose columns are made equally wide; more are written as they come."""
ROOMY: Final = 100
"""Columns of a terminal from which rows are a table; in a narrower one each is a block."""
_STYLES: Final[Mapping[str, str]] = {
    **{name: SIGNS[status.outcome].colour for name, status in STATUSES.items()},
    **dict.fromkeys(("flaky", "slowing"), "yellow"),
}
"""Colours of cells with these words; others have the terminal's own."""


def check_target(target: Path | None, *, force: bool, json: bool) -> None:
    """Raise PlanError for a file that is there, or for ``--json`` without a file."""
    if target is None:
        if json:
            raise PlanError("--json describes a file that was written; name one with -o FILE")
    elif target.exists() and not force:
        raise PlanError(f"{target}: is there already; name another file, or add --force")


def say(line: str = "") -> None:
    """Print a line, with all escaped that a terminal would obey or cannot draw."""
    print(shown(line))


def warn(line: str) -> None:
    """Print a line to stderr, escaped as :func:`say` does, each of its own lines."""
    for one in line.splitlines():
        print(terminal_line(one, sys.stderr.encoding or "utf-8"), file=sys.stderr)


def write_json(document: JsonValue | Mapping[str, JsonValue]) -> None:
    """Print a JSON document, in ASCII: it reads the same whatever the terminal is."""
    print(json_module.dumps(document, indent=1))


def answer(
    document: JsonValue | Mapping[str, JsonValue], lines: Iterable[str], *, json: bool
) -> None:
    """Print what a command has done: a document for programs, or lines for people."""
    if json:
        write_json(document)
        return
    for line in lines:
        say(line)


def write_rows(
    rows: Iterable[Row],
    *,
    json: bool,
    head: Mapping[str, JsonValue],
    name: str,
    document: Callable[[Row], JsonValue],
    title: Iterable[str],
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[str]],
    limit: int = 0,
    left_out: int = 0,
    rest: str = "and {:,} more; --limit=0 shows all",
) -> int:
    """Print rows of any number, as they are read; return how many there are.

    With ``json`` an object of ``head``, the rows' documents under ``name``, and how many rows match
    and are shown; else the lines of ``title``, a table, and the line ``rest`` where not all are
    shown. At most ``limit`` are, 0: all; ``left_out``: further ones that ``rows`` does not have.
    """
    matching, number = left_out, 0

    def some() -> Iterator[Row]:
        nonlocal matching, number
        for row in rows:
            matching += 1
            if not limit or number < limit:
                number += 1
                yield row

    if json:
        dumps = json_module.dumps
        print("{", *(f" {dumps(key)}: {dumps(value)}," for key, value in head.items()), sep="\n")
        print(f" {dumps(name)}: [", end="")
        for one in map(document, some()):
            print(f"{',' if number > 1 else ''}\n  {dumps(one)}", end="")
        end = "\n ]" if number else "]"
        print(f'{end},\n "matching": {matching},\n "shown": {number}\n}}')
        return matching
    for line in title:
        say(line)
    write_table(columns, map(cells, some()))
    if rest and matching > number:
        say(rest.format(matching - number))
    return matching


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their columns' names: a table on a terminal, aligned columns elsewhere.

    A column whose name begins with ``#`` has numbers and is aligned right. Nothing is printed where
    there is no row. On a narrow terminal each row is a block, its last cell, which may be a
    sentence, below.
    """
    left = iter(rows)
    header = True
    while some := [[shown(cell) for cell in row] for row in islice(left, AT_ONCE)]:
        if sys.stdout.isatty():
            _write_rich(columns, some, shutil.get_terminal_size().columns, header=header)
        else:
            print(*_aligned(columns, some, header=header), sep="\n")
        header = False


def _write_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, header: bool
) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width)  # rich believes a COLUMNS of 0
    heads = [name.removeprefix("#") for name in columns]
    if width >= ROOMY:
        table = Table(box=box.SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)
        for name, head in zip(columns, heads, strict=True):
            table.add_column(head, justify="left" if head == name else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        console.print(table)
        return
    for first, second, *others, last in rows:
        what = second if heads[1] == columns[1] else f"{heads[1]}: {second}"
        console.print(Text.assemble((first, _STYLES.get(first, "")), "  ", what), overflow="fold")
        named = [f"{name}: {cell}" for name, cell in zip(heads[2:], others, strict=False) if cell]
        for line in filter(None, ("   ".join(named), last)):
            console.print(Padding(Text(line, overflow="fold"), (0, 0, 0, min(4, width // 10))))


def _aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, header: bool
) -> Iterator[str]:
    every = [[name.removeprefix("#") for name in columns], *rows]
    wide = [max(map(width_of, column)) for column in zip(*every, strict=True)]
    for row in every if header else rows:
        shown = []
        for name, cell, width in zip(columns, row, wide, strict=True):
            pad = " " * (width - width_of(cell))
            shown.append(pad + cell if name.startswith("#") else cell + pad)
        yield "  ".join(shown).rstrip()


def shown(text: str) -> str:
    """Return text on one line, with all escaped that a terminal would obey or cannot draw."""
    return terminal_line(text, sys.stdout.encoding or "utf-8")
