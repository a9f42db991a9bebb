"""Decode text files line by line: a fault has its line, and memory stays constant."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from workflows.gap_fill.corpus.errors import CorpusError, place

LONGEST: Final = 16 * 1024 * 1024
"""Bytes of the longest line, or text file, that is read: a book has one million."""

_BOM: Final = b"\xef\xbb\xbf"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, its end included. Raises CorpusError.

    A file that ends in ``.gz`` is unpacked on the way.
    """
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise CorpusError(
                    f"{place(path, number)}: the line has more than {LONGEST:,} bytes; give each "
                    "document a line of its own"
                )
            yield number, decoded(path, line.removeprefix(_BOM) if number == 1 else line, number)


def whole_text(path: Path) -> str:
    r"""Read all of a text file, with line ends as ``\n``. Raises CorpusError."""
    with opened(path) as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise CorpusError(
            f"{place(path)}: the file has more than {LONGEST:,} bytes; divide it into passages"
        )
    text = decoded(path, data.removeprefix(_BOM), 1)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decoded(path: Path, data: bytes, first_line: int) -> str:
    """Decode ``data``, which begins on ``first_line``. Raises CorpusError that names the line."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise CorpusError(
            f"{place(path, line)}: byte {data[error.start]:#04x} is not UTF-8; save the file as "
            "UTF-8 and try again"
        ) from None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file for reading bytes, unpacked if need be; turn its errors into CorpusError."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CorpusError(
            f"{place(path)}: the file is no whole gzip file ({error}); make it again with gzip"
        ) from None
    except OSError as error:
        raise CorpusError(
            f"{place(path)}: the file cannot be read ({error.strerror or error}); see to its "
            "permissions, or name another"
        ) from None
