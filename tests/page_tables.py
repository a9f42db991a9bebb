"""Tables of the documents that commands make: between two marks, put there and read from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROMISES: Final = Path("docs/explanation/promises.md")
FAULTS: Final = Path("docs/explanation/what-happens-when-things-break.md")
SECURITY: Final = Path("docs/explanation/security.md")


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the marks ``NAME table`` of a page."""
    before, _, after = _parts(page, name)
    page.write_text(f"{before}\n\n{text}\n\n{after}", "utf-8")


def taken(page: Path, name: str) -> str:
    """Return the text between the marks of a page, "" where there is none yet."""
    return _parts(page, name)[1].strip()


def rows(page: Path, name: str) -> list[dict[str, str]]:
    """Return the lines of the tables between the marks, each cell by the head of its column."""
    found: list[dict[str, str]] = []
    head: Sequence[str] = ()
    for line in taken(page, name).splitlines():
        if not line.startswith("|"):
            head = ()
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
        elif set("".join(cells)) - set("-: "):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    """Split a page: to the end of the first mark, what is between, and from the second mark on.

    Raises ValueError where a mark is missing.
    """
    text = page.read_text("utf-8")
    begin, end = (text.index(f"<!-- {name} table: {one} -->") for one in ("begin", "end"))
    begin = text.index("-->", begin) + len("-->")
    return text[:begin], text[begin:end], text[end:]
