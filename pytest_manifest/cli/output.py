"""Write what commands find: tables for people, JSON for programs; foreign text is escaped."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import PlanError
from pytest_manifest.schema.statuses import SIGNS, STATUSES
from pytest_manifest.text import cells, terminal_line

if TYPE_CHECKING:
    from pydantic import JsonValue  # pydantic takes a quarter of the time that --help takes


def check_target(target: Path | None, *, force: bool, json: bool) -> None:
    """Raise PlanError for a file that is there, or for ``--json`` without a file."""
    if target is None:
        if json:
            raise PlanError("--json describes a file that was written; name one with -o FILE")
    elif target.exists() and not force:
        raise PlanError(f"{target}: is there already; name another file, or add --force")


def make_folder(target: Path) -> None:
    """Make the file's folder. Raises ManifestError, which names the file."""
    from pytest_manifest.manifest.writer import writing

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)


AT_ONCE: Final = 500
"""Rows whose columns are made equally wide; more are written as they come."""
WIDE: Final = 140
"""Columns from which a sentence has room beside the other cells of its row."""
NARROW: Final = 40
"""Columns of a terminal below which a table would leave cells out: rows are long lines there."""


def say(line: str = "") -> None:
    """Print a line, with all escaped that a terminal would obey or cannot draw."""
    print(_shown(line))


def warn(line: str) -> None:
    """Print a line to stderr, escaped as :func:`say` does, each of its own lines."""
    for one in line.splitlines():
        print(terminal_line(one, sys.stderr.encoding or "utf-8"), file=sys.stderr)


def write_json(document: JsonValue | Mapping[str, JsonValue]) -> None:
    """Print a JSON document, in ASCII: it reads the same whatever the terminal is."""
    print(json.dumps(document, indent=1))


def write_json_line(document: Mapping[str, JsonValue]) -> None:
    """Print a JSON document on one line, at once: the next one may be long in coming."""
    print(json.dumps(document), flush=True)


def write_rows_as_json(
    head: Mapping[str, JsonValue], name: str, rows: Iterable[JsonValue], tail: Mapping[str, int]
) -> None:
    """Print a JSON object with a list of any length, row by row.

    ``tail`` is read after the last row, so that it may count them.
    """
    print("{")
    for key, value in head.items():
        print(f" {json.dumps(key)}: {json.dumps(value)},")
    print(f" {json.dumps(name)}: [", end="")
    separator = "\n  "
    for row in rows:
        print(f"{separator}{json.dumps(row)}", end="")
        separator = ",\n  "
    print("\n ]" if separator[0] == "," else "]", end="")
    for key, count in tail.items():
        print(f",\n {json.dumps(key)}: {count}", end="")
    print("\n}")


def write_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, notes: bool = False
) -> None:
    """Print rows below their columns' names: a table on a terminal, aligned columns elsewhere.

    A column whose name begins with ``#`` is aligned right. Nothing is printed where there is no
    row. ``notes``: the last column has sentences, which stand below their rows on a terminal that
    is not wide.
    """
    left = iter(rows)
    width = shutil.get_terminal_size().columns
    on_terminal = sys.stdout.isatty() and width >= NARROW
    first = True
    while some := [[_shown(cell) for cell in row] for row in islice(left, AT_ONCE)]:
        if on_terminal and notes and width < WIDE:
            _write_with_notes(columns, some, width, header=first)
        elif on_terminal:
            _write_rich(columns, some, width, header=first)
        else:
            for line in _aligned(columns, some, header=first):
                print(line)
        first = False


def _write_with_notes(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, header: bool
) -> None:
    """Print rows as lines, each with its last cell below it, indented and wrapped."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(width=width)
    lines = list(_aligned(columns[:-1], [row[:-1] for row in rows], header=header))
    if header:
        console.print(Text(lines.pop(0), style="bold"))
    for line, row in zip(lines, rows, strict=True):
        text = Text(line)
        text.stylize(_STYLES.get(row[0], ""), 0, len(row[0]))
        console.print(text, overflow="fold")
        if row[-1]:
            console.print(Padding(Text(row[-1]), (0, 0, 0, 4)))


def _write_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, *, header: bool
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)
    for name in columns:
        table.add_column(
            name.removeprefix("#"),
            justify="right" if name.startswith("#") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(width=width).print(table)  # rich believes a COLUMNS of 0


_STYLES: Final[Mapping[str, str]] = {
    **{name: SIGNS[status.outcome].colour for name, status in STATUSES.items()},
    **dict.fromkeys(("flaky", "slowing"), "yellow"),
}
"""Colours of cells with these words; others have the terminal's own."""


def _aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, header: bool
) -> Iterator[str]:
    names = [name.removeprefix("#") for name in columns]
    every = [names, *rows]
    wide = [max(map(cells, column)) for column in zip(*every, strict=True)]
    for row in every if header else rows:
        shown = [
            " " * (width - cells(cell)) + cell if name.startswith("#") else _padded(cell, width)
            for name, cell, width in zip(columns, row, wide, strict=True)
        ]
        yield "  ".join(shown).rstrip()


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cells(cell))


def _shown(text: str) -> str:
    return terminal_line(text, sys.stdout.encoding or "utf-8")
