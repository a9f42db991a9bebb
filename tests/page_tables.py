"""Tables of the documents that commands make: between two marks, put there and read from there.

A long table of a page of docs/evidence stands beside it, in ``tables/NAME.csv``; the page has a
line that leads there, with the figures of the table's row ``all`` where there is one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Final

PROMISES: Final = Path("docs/evidence/promises.md")
FAULTS: Final = Path("docs/evidence/chaos.md")
SECURITY: Final = Path("docs/evidence/security.md")
MOST_ROWS: Final = 8
"""A table of more rows stands beside its page, where the page is one of docs/evidence."""
_LINK: Final = re.compile(r"^\[[\d,]+ rows\]\((tables/[\w-]+\.csv)\).*$")
_UNSAFE: Final = re.compile(r"[^\w-]+")


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the marks ``NAME table`` of a page, and its long tables beside it."""
    before, _, after = _parts(page, name)
    shown = "\n".join(_shown(page, name, text)) if page.parent.name == "evidence" else text
    page.write_text(f"{before}\n\n{shown.strip()}\n\n{after}", "utf-8")


def taken(page: Path, name: str) -> str:
    """Return the text between the marks of a page, with the tables beside it; "": none yet."""
    lines: list[str] = []
    for line in _parts(page, name)[1].strip().splitlines():
        beside = _LINK.match(line)
        lines += _read(page.parent / beside[1]) if beside else [line]
    return "\n".join(lines)


def rows(page: Path, name: str) -> list[dict[str, str]]:
    """Return the lines of the tables between the marks, each cell by the head of its column."""
    found: list[dict[str, str]] = []
    head: Sequence[str] = ()
    for line in taken(page, name).splitlines():
        if not line.startswith("|"):
            head = ()
            continue
        cells = cells_of(line)
        if not head:
            head = cells
        elif set("".join(cells)) - set("-: "):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def cells_of(line: str) -> list[str]:
    """Return the cells of a table's line."""
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def as_csv(table: Iterable[Sequence[str]]) -> str:
    """Return rows as the text of a file."""
    file = StringIO()
    csv.writer(file, lineterminator="\n").writerows(table)
    return file.getvalue()


def _shown(page: Path, name: str, text: str) -> Iterator[str]:
    number = 0
    table: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
            continue
        if len(table) - 2 > MOST_ROWS:
            number += 1
            suffix = f"-{number}" if number > 1 else ""
            path = page.parent / "tables" / f"{_UNSAFE.sub('-', name)}{suffix}.csv"
            path.parent.mkdir(exist_ok=True)
            head, _, *body = map(cells_of, table)
            path.write_text(as_csv([head, *body]), "utf-8")
            yield f"[{len(table) - 2:,} rows](tables/{path.name}){_all(table)}"
        else:
            yield from table
        table = []
        yield line


def _all(table: Sequence[str]) -> str:
    """Say what a table's row ``all`` has."""
    (_, *columns), (name, *figures) = cells_of(table[0]), cells_of(table[-1])
    if name != "all":
        return ""
    pairs = zip(columns, figures, strict=True)
    return f"; of all: {'; '.join(f'{column} {figure}' for column, figure in pairs if figure)}"


def _read(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        for number, cells in enumerate(csv.reader(file)):
            line = f"| {' | '.join(cells)} |"
            yield re.sub(r"(?<=\|)  (?=\|)", " ", line)
            if number == 0:
                yield "|---" * len(cells) + "|"


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    """Split a page: to the end of the first mark, what is between, and from the second mark on.

    Raises ValueError where a mark is missing.
    """
    text = page.read_text("utf-8")
    begin, end = (text.index(f"<!-- {name} table: {one} -->") for one in ("begin", "end"))
    begin = text.index("-->", begin) + len("-->")
    return text[:begin], text[begin:end], text[end:]
