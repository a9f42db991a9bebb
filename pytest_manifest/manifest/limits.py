"""Bound what is read of a manifest that somebody else may have written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Final

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limit a manifest: the bytes of a line, the number of its entries, and the bytes of a JSON
    Schema in ``expect``."""

    line: int = 16 << 20
    entries: int = 10_000_000
    schema: int = 1 << 20


DEFAULT: Final = Limits()
_WORDS: Final = {
    "line": "the line has more than {most:,} bytes",
    "entries": "there are more than {most:,} entries",
    "schema": "the JSON Schema in 'expect' has more than {most:,} bytes",
}
_STEPS: Final = {
    "line": "keep what is large elsewhere, and give the task its place",
    "entries": "split the manifest",
    "schema": "check less of it, or check it in the test",
}


def beyond(name: str, most: int) -> str:
    """Say which limit is passed, and what to do instead."""
    return f"{_WORDS[name].format(most=most)}, the limit; {_STEPS[name]}"


def longer_line(file: IO[bytes], most: int) -> int | None:
    """Return the number, from 1, of the first line of more than ``most`` bytes; None where none is.

    No more than a chunk is in memory at a time. The file is left at its beginning.
    """
    before, length = 0, 0
    size = min(most, _CHUNK)
    try:
        while chunk := file.read(size):
            end = chunk.find(b"\n")
            if length + (len(chunk) if end < 0 else end + 1) > most:
                return before + 1
            if end < 0:
                length += len(chunk)
            else:
                before += chunk.count(b"\n")
                length = len(chunk) - 1 - chunk.rfind(b"\n")
        return None
    finally:
        file.seek(0)
