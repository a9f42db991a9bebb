"""Bound what is read of a manifest that somebody else may have written."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import IO, Final

from pytest_manifest.schema import MAX_DEPTH

_FACTORS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LIMIT: Final = re.compile(r"([a-z]+)=([0-9]{1,15})([KMG]?)", re.ASCII)
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limit a manifest: the bytes of a line, the levels of its JSON, the number of its entries, and
    the bytes of a JSON Schema in ``expect``."""

    line: int = 16 << 20
    nesting: int = MAX_DEPTH
    entries: int = 10_000_000
    schema: int = 1 << 20

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Read ``line=64M entries=500``: the named ones differ from the default.

        K, M and G stand for 1024, its square and its cube. Raises ValueError that says what is
        wrong.
        """
        names = [field.name for field in fields(cls)]
        found: dict[str, int] = {}
        for part in text.replace(",", " ").split():
            match = _LIMIT.fullmatch(part)
            if match is None or match[1] not in names or not int(match[2]):
                raise ValueError(
                    f"{part} is no limit; write NAME=NUMBER, like line=64M: the names are "
                    f"{', '.join(names)}"
                )
            found[match[1]] = int(match[2]) * _FACTORS[match[3]]
        if found.get("nesting", 0) > MAX_DEPTH:
            raise ValueError(f"nesting is {MAX_DEPTH} at most; flatten what is nested deeper")
        return replace(cls(), **found)


DEFAULT: Final = Limits()
_WORDS: Final = {
    "line": "the line has more than {most:,} bytes",
    "nesting": "the JSON is nested more than {most} levels deep",
    "entries": "there are more than {most:,} entries",
    "schema": "the JSON Schema in 'expect' has more than {most:,} bytes",
}


def beyond(name: str, most: int) -> str:
    """Say which limit is passed, and what to do where that is meant."""
    said = _WORDS[name].format(most=most)
    higher = (
        "" if name == "nesting" else f"; where that is meant, give --manifest-limits='{name}=...'"
    )
    return f"{said}, the limit{higher}"


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
