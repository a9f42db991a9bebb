"""Read a corpus, whatever its format, as a stream of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tasks.movie_bible.documents import Document
from workflows.gap_fill.corpus.columns import check_mapping
from workflows.gap_fill.corpus.errors import CorpusError, place
from workflows.gap_fill.corpus.folders import SUFFIXES, read_folder
from workflows.gap_fill.corpus.json_lines import read_json_lines
from workflows.gap_fill.corpus.seen import SeenIds
from workflows.gap_fill.corpus.tables import read_table

SAMPLE_NAME: Final = "sample"
SAMPLE: Final = Path(__file__).resolve().parent.parent / "sample" / "films.jsonl"

JSON_LINES: Final = {".jsonl", ".ndjson"}
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}


def corpus_path(given: str | Path) -> Path:
    """Return the path of a corpus by its name: ``sample`` is the one that comes with this project.

    Raises CorpusError for an empty name, which would mean the working folder.
    """
    if not str(given).strip() or str(given) == ".":
        raise CorpusError(f"{str(given)!r} names no corpus; give the path of a file or folder")
    return SAMPLE if str(given) == SAMPLE_NAME else Path(given).expanduser()


def read_corpus(path: Path, *, mapping: Mapping[str, str] | None = None) -> Iterator[Document]:
    """Stream the documents of a file or folder, in flat memory; each id comes once.

    Formats: ``.jsonl`` and ``.ndjson``, ``.csv`` and ``.tsv`` (each also as ``.gz``), or a folder
    of ``.txt`` and ``.md`` files. ``mapping`` says what our columns are called in the file. Raises
    CorpusError: at once for a path, format or mapping that cannot be, else at the fault.
    """
    mapping = mapping or {}
    check_mapping(mapping)
    return _each_once(_found(path, mapping))


def _found(path: Path, mapping: Mapping[str, str]) -> Iterator[tuple[str, Document]]:
    if not path.exists():
        raise CorpusError(f"{place(path)}: there is no such file or folder; name one that is there")
    if path.is_dir():
        if mapping:
            raise CorpusError(
                f"{place(path)}: a folder of text files has no columns; leave the mapping out"
            )
        return read_folder(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in JSON_LINES:
        return read_json_lines(path, mapping)
    if suffix in DELIMITERS:
        return read_table(path, mapping, DELIMITERS[suffix])
    raise CorpusError(
        f"{place(path)}: the format of this file is not known; name a .jsonl, .ndjson, .csv or "
        f".tsv file (or its .gz), or a folder of {' and '.join(SUFFIXES)} files"
    )


def _each_once(found: Iterator[tuple[str, Document]]) -> Iterator[Document]:
    with SeenIds() as seen:
        for here, document in found:
            seen.add(document.id, here)
            yield document
