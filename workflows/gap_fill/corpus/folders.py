"""Read corpora of text files: a folder, one document a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tasks.movie_bible.documents import Document
from workflows.gap_fill.corpus.columns import document
from workflows.gap_fill.corpus.errors import CorpusError, place
from workflows.gap_fill.corpus.lines import whole_text

SUFFIXES: Final = (".txt", ".md")


def read_folder(folder: Path) -> Iterator[tuple[str, Document]]:
    """Yield place and document of each text file below the folder, in the order of names.

    The id is the path within the folder without its suffix. Names that begin with a dot, and links
    to folders, are passed over. Raises CorpusError, also where there is no text file at all.
    """
    path = None
    for path in _text_files(folder):
        here = place(path)
        identity = path.relative_to(folder).with_suffix("").as_posix()
        yield here, document({"id": identity, "text": whole_text(path)}, here)
    if path is None:
        raise CorpusError(
            f"{place(folder)}: there is no {' or '.join(SUFFIXES)} file in the folder; name one "
            "that has some"
        )


def _text_files(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        raise CorpusError(
            f"{place(folder)}: the folder cannot be read ({error.strerror}); see to its permissions"
        ) from None
    for name, is_folder in found:
        if name.startswith("."):
            continue
        path = folder / name
        if is_folder:
            yield from _text_files(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
