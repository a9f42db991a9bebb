"""Read JSON lines: bytes to checked JSON objects, or to faults with their line.

Find the placeholders that ``manifest new`` writes for values that it cannot know.

Bound what is read of a manifest that somebody else may have written.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from pytest_manifest.errors import Fault, ManifestError
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.json_values import MAX_DEPTH
from pytest_manifest.schema.problems import in_json, problems

BLANK: Final = "the line is blank; remove it"
CUT_OFF: Final = (
    "the last line has no newline, so the file may be cut off here; "
    "write it again, or end the line if it is whole"
)
_BOM = b"\xef\xbb\xbf"
_BUFFER = 1 << 18
_SHORT: Final = 1 << 16
"""Bytes of a line; of a longer one there may be too many faults to be found twice."""
_WORDS = {list: "an array", str: "text", bool: "true or false", type(None): "null"}
_Doc = TypeVar("_Doc", bound=Document)


class Line(NamedTuple):
    """One line: its number from 1, the byte offset of its start, its bytes with the newline."""

    number: int
    offset: int
    raw: bytes


class _RefusedError(ValueError):
    """A line that is no JSON object of the careful kind; the message is for the user."""


class JsonLines(io.BytesIO):
    """The JSON lines that a file of another format stands for.

    ``numbers``: the line of that file where each of them begins; ``stamp``: see :meth:`stamp_of`.
    """

    def __init__(self, lines: bytes, numbers: Sequence[int], stamp: tuple[int, int, int]) -> None:
        super().__init__(lines)
        self.numbers = numbers
        self.stamp = stamp

    @staticmethod
    def stamp_of(file: IO[bytes]) -> tuple[int, int, int]:
        """Return inode, size and time of change (ns), one of which changes when a file is
        edited."""
        if isinstance(file, JsonLines):
            return file.stamp
        stat = os.fstat(file.fileno())
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; raise ManifestError if that fails or it is no regular file."""
    try:
        file = path.open("rb", buffering=_BUFFER)
    except FileNotFoundError:
        raise file_error(path, "there is no such file; check the path") from None
    except IsADirectoryError:
        raise file_error(path, "it is a folder; name a file in it") from None
    except OSError as error:
        raise file_error(path, f"it cannot be read ({error.strerror}); check it") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise file_error(path, "it is not a regular file; save it as one, it is read repeatedly")
    return file


def read_lines(file: IO[bytes], faults: Faults, *, has_limit: bool = True) -> Iterator[Line]:
    """Yield all lines; record a BOM, which is left out, and a cut-off end as faults.

    Raises ManifestError for a line that is too long to be read (``has_limit``), and where there are
    too many faults to read on.
    """
    most = LIMITS["line"]
    number = offset = 0
    while raw := file.readline(most + 1 if has_limit else -1):
        number += 1
        if has_limit and len(raw) > most:
            raise file_error(faults.path, beyond("line"), faults.line(number))
        line = Line(number, offset, raw)
        offset += len(raw)
        if number == 1 and raw.startswith(_BOM):
            faults.add(1, "the file starts with a byte order mark (BOM); save it as UTF-8 without")
            line = Line(1, len(_BOM), raw[len(_BOM) :])
        if not raw.endswith(b"\n") and not is_blank(line.raw):
            faults.add(number, CUT_OFF)
        yield line
        if faults.enough(number):
            raise faults.error()


def is_blank(raw: bytes) -> bool:
    """Return whether a line has nothing in it."""
    return not raw or raw.isspace()


def is_remark(raw: bytes) -> bool:
    """Return whether a line of a checked manifest is no entry: a comment, or blank at its end."""
    return raw.startswith(b"#") or is_blank(raw)


def parse_object(line: Line, faults: Faults) -> dict[str, Any] | None:
    """Return the JSON object on the line, or None, with a fault recorded, where there is none.

    Raises ManifestError for UTF-16 and UTF-32, as no other line of the file could be parsed either.
    """
    if line.number == 1 and line.raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise file_error(faults.path, "the file is UTF-16 or UTF-32; save it as UTF-8")
    try:
        return _parse(line)
    except _RefusedError as refused:
        faults.add(line.number, str(refused))
    return None


def parse_document(line: Line, model: type[_Doc], faults: Faults) -> _Doc | None:
    """Parse and validate a line; return None, with every fault recorded, if it is invalid."""
    document = parse_object(line, faults)
    return None if document is None else check_document(document, line, model, faults)


def check_document(
    document: dict[str, Any], line: Line, model: type[_Doc], faults: Faults
) -> _Doc | None:
    """Validate a parsed line; return None, with every fault recorded, if it is invalid."""
    raw = line.raw
    if len(raw) <= _SHORT and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        # The parser has refused what pydantic's own takes, but for what is nested too deeply. It
        # checks in a third of the time, and without copies; what is at fault is worded below.
        with suppress(ValidationError):
            return model.model_validate_json(raw)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        number = error.error_count()
        if number > MOST_COUNTED:  # each that is worded takes a kilobyte until it is
            faults.add(line.number, f"the line has {number:,} faults; correct what writes it")
            return None
        for problem in problems(error, model):
            faults.add(line.number, problem)
    return None


def _parse(line: Line) -> dict[str, Any]:
    if is_blank(line.raw):
        raise _RefusedError(BLANK)
    try:
        value = _decode(line.raw.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise _RefusedError(_not_utf8(line, error.start)) from None
    except json.JSONDecodeError as error:
        raise _RefusedError(_bad_json(error)) from None
    except RecursionError:
        raise _RefusedError(
            f"the JSON is nested too deeply (at most {MAX_DEPTH} levels); flatten it"
        ) from None
    except _RefusedError:
        raise
    except ValueError:  # Python's limit on the digits of an integer
        raise _RefusedError("a number has more digits than can be read; send it as text") from None
    if type(value) is not dict:
        word = _WORDS.get(type(value), "a number")
        raise _RefusedError(f"the line is {word}, but each line must be a JSON object; make it one")
    return value


def _bad_json(error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return (
            f"bad JSON at column {error.colno}: there is more after the object; "
            "put each object on a line of its own"
        )
    reason = error.msg.removesuffix(" at")
    return f"bad JSON at column {error.colno}: {reason[0].lower()}{reason[1:]}; correct it there"


def _not_utf8(line: Line, start: int) -> str:
    return (
        f"byte 0x{line.raw[start]:02x} at byte {line.offset + start} of the file is not UTF-8; "
        "save the file as UTF-8"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() is for its effect
        raise _RefusedError(f"duplicate key {in_json(twice)}; keep one of them")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError(f"the number {text[:20]} is too large; use a smaller one, or text")
    return number


def _no_constant(name: str) -> object:
    raise _RefusedError(f"{name} is not JSON; use null or text")


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
).decode


MAX_FAULTS: Final = 20
MOST_COUNTED: Final = 1000
"""Faults after which the rest of a file is not read: it may have millions of them."""


class Faults:
    """The first faults, at ``most`` so many, of the file shown as ``path``, ordered by line.

    ``numbers``: the lines of a file of another format, by those that are read.
    """

    def __init__(self, path: Path, most: int = MAX_FAULTS, numbers: Sequence[int] = ()) -> None:
        self._numbers = numbers
        self.path = path
        self._most = most
        self._kept: list[Fault] = []
        self._more = 0
        self._read_to: int | None = None

    def __bool__(self) -> bool:
        return bool(self._kept)

    def enough(self, line: int) -> bool:
        """Tell whether the reading may stop after this line, and keep where it did."""
        if len(self._kept) + self._more < max(MOST_COUNTED, self._most):
            return False
        self._read_to = line
        return True

    def line(self, line: int) -> int:
        """Return the number of a line in the file that the user knows."""
        return self._numbers[line - 1] if 0 < line <= len(self._numbers) else line

    def add(self, line: int, message: str) -> None:
        """Record a fault on ``line`` (from 1; 0: the file as a whole)."""
        fault = Fault(self.path, self.line(line), message)
        insort(self._kept, fault, key=lambda fault: fault.line)
        if len(self._kept) > self._most:
            self._kept.pop()
            self._more += 1

    def error(self) -> ManifestError:
        """Return all recorded faults as one error to raise."""
        return ManifestError(self._kept, more=self._more, read_to=self._read_to)

    def raise_any(self) -> None:
        """Raise ManifestError if a fault was recorded."""
        if self._kept:
            raise self.error()


def file_error(path: Path, message: str, line: int = 0) -> ManifestError:
    """Return an error about a line of a file (from 1), or about all of it."""
    return ManifestError([Fault(path, line, message)])


# Keys are unique, so the first id is the only one; an escape needs the JSON parser.
_AS_WE_WRITE: Final = re.compile(rb'\{"id": ?"([^"\\]*)", ?"task": ?"([^"\\]*)"[,}]').match


def id_and_task(raw: bytes) -> tuple[str, str]:
    """Read the entry's id and task from a line, in a tenth of the time that parsing takes.

    A line whose keys are not in the order that this package writes is parsed as JSON.
    """
    told = _AS_WE_WRITE(raw)
    if told is not None:
        return told[1].decode(), told[2].decode()
    entry = json.loads(raw)
    return entry["id"], entry["task"]


_START: Final = "<fill in: "
MARK: Final = b"fill in: "
"""Bytes of each line with a placeholder, however its ``<`` is written."""


def placeholder(wanted: str) -> str:
    """Return the text that stands for a value of this kind until somebody writes it."""
    return f"{_START}{wanted}>"


def placeholder_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each placeholder in the arguments and the result of an entry."""
    expect = entry.get("expect")
    parts = {
        "args": entry.get("args"),
        "kwargs": entry.get("kwargs"),
        "expect.result": expect.get("result") if isinstance(expect, dict) else None,
    }
    for place, value in parts.items():
        for where, text in _placeholders(value, place):
            yield f"entry {entry.get('id')!r}: {where} is still {text!r}; write its value"


def _placeholders(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Yield where in a value placeholders are, and each of them."""
    if isinstance(value, str):
        if value.startswith(_START) and value.endswith(">"):
            yield place, value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _placeholders(one, f"{place}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _placeholders(one, f"{place}[{number}]")


LIMITS: Final = {"line": 16 << 20, "entries": 10_000_000, "schema": 1 << 20}
"""At most: bytes of a line, entries of a manifest, bytes of a JSON Schema in ``expect``."""
_BEYOND: Final = {
    "line": "the line has more than {:,} bytes, the limit; keep what is large elsewhere, and give "
    "the task its place",
    "entries": "there are more than {:,} entries, the limit; split the manifest",
    "schema": "the JSON Schema in 'expect' has more than {:,} bytes, the limit; check less of it, "
    "or check it in the test",
}


def beyond(name: str) -> str:
    """Say which limit is passed, and what to do instead."""
    return _BEYOND[name].format(LIMITS[name])
