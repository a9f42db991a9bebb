"""Read corpora in tables: CSV and TSV with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.movie_bible.documents import Document
from workflows.gap_fill.corpus.columns import cell, document, names_in_file
from workflows.gap_fill.corpus.errors import CorpusError, place
from workflows.gap_fill.corpus.lines import LONGEST, text_lines


def read_table(
    path: Path, mapping: Mapping[str, str], delimiter: str
) -> Iterator[tuple[str, Document]]:
    """Yield place and document of each row; the place is the line on which the row begins.

    Rows may be shorter than the header, never longer. Raises CorpusError.
    """
    rows = _rows(path, delimiter)
    header_line, header = next(rows, (1, []))
    columns = _columns(header, mapping, place(path, header_line))
    for line, cells in rows:
        here = place(path, line)
        if len(cells) > len(header):
            raise CorpusError(
                f"{here}: the row has {len(cells)} cells, and the header {len(header)}; put "
                "quotes around a cell that holds the delimiter"
            )
        yield here, document(_row(cells, columns, here), here)


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of each row that is not blank. Raises CorpusError for a broken row."""
    # Python's own limit is shorter than many a passage; it is one for the whole process.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{place(path, line)}: the row that begins here is broken ({error}); close its "
                "quotes, and double those within"
            ) from None
        if cells is None:
            return
        if any(map(str.strip, cells)):
            yield line, cells


def _columns(header: Sequence[str], mapping: Mapping[str, str], here: str) -> dict[str, int]:
    """Return each known column's position in the rows. Raises CorpusError for a missing one."""
    names = [name.strip() for name in header]
    wanted = names_in_file(mapping)
    for ours, theirs in wanted.items():
        if theirs in names and names.count(theirs) > 1:
            raise CorpusError(f"{here}: the column {theirs!r:.80} comes twice; rename one of them")
        if theirs not in names and (ours in mapping or ours in {"id", "text"}):
            there = ", ".join(names) or "none"
            raise CorpusError(
                f"{here}: there is no column {theirs!r:.80} (there are: {there:.200}); say by a "
                f"mapping such as {ours}=COLUMN where it stands"
            )
    return {ours: names.index(theirs) for ours, theirs in wanted.items() if theirs in names}


def _row(cells: Sequence[str], columns: Mapping[str, int], here: str) -> dict[str, object]:
    try:
        return {
            name: cell(name, cells[position])
            for name, position in columns.items()
            if position < len(cells)
        }
    except ValueError as error:
        raise CorpusError(f"{here}: {error}; correct the cell") from None
