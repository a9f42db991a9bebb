"""Turn the sections that projects add to a run's page into JSON, bounded and as text alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.text import beginning, pictured

BUDGET: Final = 500_000
"""Characters that all added sections of a page have together; rows beyond them are counted."""
LONGEST: Final = 4_000
"""Characters to which a text is cut."""

Cell = str | int | float | None


class SectionError(ManifestToolError):
    """A section that a hook returned cannot be shown."""


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section that ``pytest_manifest_sections`` adds to a run's page: text, and no markup.

    ``text`` is a paragraph below the title, with its line breaks. Each of ``rows`` has a cell for
    each of ``columns``; None is an empty cell. Cells of the column ``entries`` are ids of entries,
    and become links to them.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    entries: str | None = None


def section_documents(sections: Iterable[object]) -> list[dict[str, object]]:
    """Return sections as JSON values, secrets hidden and long texts cut.

    Raises SectionError for what is no section.
    """
    left = BUDGET

    def shown(text: str) -> str:
        nonlocal left
        found = beginning(pictured(redact(text)), LONGEST, "\u2026")
        left -= len(found)
        return found

    def cell(value: Cell) -> str | float | None:
        # Numbers that JSON has none of, and truth values, are words.
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            value = str(value)
        return shown(value) if isinstance(value, str) else value

    documents: list[dict[str, object]] = []
    for section in map(_checked, sections):
        rows = [[cell(one) for one in row] for row in section.rows if left > 0]
        columns, ids = list(section.columns), section.entries
        documents.append(
            {
                "title": shown(section.title),
                "text": shown(section.text),
                "columns": list(map(shown, columns)),
                "entries": -1 if ids is None else columns.index(ids),
                "rows": rows,
                "more": len(section.rows) - len(rows),
            }
        )
    return documents


def _checked(section: object) -> PageSection:
    if not isinstance(section, PageSection):
        raise SectionError(
            f"a hook pytest_manifest_sections returned {section!r:.80} of type "
            f"{type(section).__name__}; return a list of pytest_manifest.PageSection"
        )
    name = f"the section {section.title!r:.80} of the run page"
    if not isinstance(section.title, str) or not section.title.strip():
        raise SectionError("a section of the run page has no title; give it one")
    if section.entries is not None and section.entries not in section.columns:
        raise SectionError(f"{name}: entries={section.entries!r:.80} is none of its columns")
    for number, row in enumerate(section.rows, 1):
        if len(row) != len(section.columns):
            raise SectionError(
                f"{name}: row {number} has {len(row)} cells, and there are "
                f"{len(section.columns)} columns; give each row a cell for each column"
            )
        strange = [cell for cell in row if not isinstance(cell, str | int | float | None)]
        if strange:
            raise SectionError(
                f"{name}: row {number} has a cell of type {type(strange[0]).__name__}; a cell is "
                "a text, a number or None"
            )
    return section
