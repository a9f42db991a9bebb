"""One pass over a manifest that checks all of it in nearly flat memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Protocol

from pytest_manifest.manifest.circles import circles
from pytest_manifest.manifest.faults import MAX_FAULTS, Faults
from pytest_manifest.manifest.ids import IdIndex
from pytest_manifest.manifest.lines import (
    Line,
    check_document,
    open_regular,
    parse_object,
    read_lines,
)
from pytest_manifest.schema import Entry, Header

_RING_END: Final = 5
"""How many lines of a long circle are named at its beginning and at its end."""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What a whole manifest comes to.

    ``header`` always has ``entries`` and ``sha256``, also where the file has no header line;
    ``stamp`` tells whether the file has changed since.
    """

    path: Path
    header: Header
    has_header: bool
    entries: int
    sha256: str
    size: int
    stamp: tuple[int, int, int]


def check_manifest(path: Path) -> Summary:
    """Checks a whole manifest without keeping it: 12 bytes an entry, plus 12 for each ``after``.

    Raises ManifestError with every fault (at most 20, and the number of the others).
    """
    return scan(path)


def manifest_digest(path: Path) -> str:
    """SHA-256, in hex, of all bytes after the header line (of all, where there is none).

    The entries are not checked. Raises ManifestError where the file cannot be read.
    """
    with open_regular(path) as file:
        first = file.readline()
        digest = hashlib.sha256()
        if not is_header(parse_object(Line(1, 0, first), Faults(path)), first):
            digest.update(first)
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def is_header(document: dict[str, Any] | None, raw: bytes) -> bool:
    """Whether a first line is a header, or would be one if it were whole."""
    if document is None:
        return raw.lstrip(b"\xef\xbb\xbf \t").startswith(b'{"manifest"')
    return "manifest" in document


def stamp_of(file: IO[bytes]) -> tuple[int, int, int]:
    """What changes when a file is edited or replaced: inode, size, time of change (ns)."""
    stat = os.fstat(file.fileno())
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def scan(
    path: Path, keep: Callable[[Line, str], None] | None = None, *, shown: Path | None = None
) -> Summary:
    """Checks a whole manifest; ``keep`` is told each entry's line and id as it goes by.

    Faults name ``shown`` instead of ``path`` where it is given. Raises ManifestError.
    """
    with open_regular(path) as file:
        return _Scan(shown or path, file, keep).run()


class _Scan:
    """The state of one pass."""

    def __init__(
        self, path: Path, file: IO[bytes], keep: Callable[[Line, str], None] | None
    ) -> None:
        self.path = path
        self.file = file
        self.keep = keep
        self.faults = Faults(path)
        self.ids = IdIndex()
        self.digest: _Digest = hashlib.sha256()
        self.header: Header | None = None
        self.has_header = False
        self.entries = 0

    def run(self) -> Summary:
        stamp = stamp_of(self.file)
        for line in read_lines(self.file, self.faults):
            document = parse_object(line, self.faults)
            if line.number == 1 and is_header(document, line.raw):
                self._take_header(document, line)
            else:
                self._take_entry(document, line)
        self._check_totals(stamp[1])
        self._check_ids()
        self.faults.raise_any()
        facts = {"entries": self.entries, "sha256": self.digest.hexdigest()}
        return Summary(
            path=self.path,
            header=(self.header or Header()).model_copy(update=facts),
            has_header=self.has_header,
            entries=self.entries,
            sha256=self.digest.hexdigest(),
            size=stamp[1],
            stamp=stamp,
        )

    def _take_header(self, document: dict[str, Any] | None, line: Line) -> None:
        self.has_header = True
        if document is not None:
            self.header = check_document(document, line, Header, self.faults)
            if self.header is None and document.get("manifest") != 1:
                raise self.faults.error()  # another version: its entries are not ours to judge

    def _take_entry(self, document: dict[str, Any] | None, line: Line) -> None:
        self.digest.update(line.raw)
        self.entries += 1
        if document is None:
            return
        if "manifest" in document:
            self.faults.add(line.number, "a header may only be the first line; remove this one")
            return
        entry_id = document.get("id")
        if isinstance(entry_id, str):  # of a faulty entry too, so that no fault hides another
            self.ids.add(entry_id, line.number)
        entry = check_document(document, line, Entry, self.faults)
        if entry is None:
            return
        if entry.after:
            self.ids.want(entry.after, line.number)
        if self.keep is not None:
            self.keep(line, entry.id)

    def _check_totals(self, size: int) -> None:
        if not size:
            self.faults.add(0, "the file is empty; plan it again, or write one entry a line")
        elif not self.entries and not self.faults:
            self.faults.add(
                0, "there is a header but no entries, so nothing would be run; plan it again"
            )
        if self.header is None:
            return
        promised, digest = self.header.entries, self.header.sha256
        if promised is not None and promised != self.entries:
            cut = promised > self.entries
            self.faults.add(
                1,
                f"the header promises {promised} entries but {self.entries} follow: lines were "
                f"{'cut off or removed' if cut else 'added'}; plan it again, or, if that was "
                "meant, remove 'entries' and 'sha256' from the header",
            )
        actual = self.digest.hexdigest()
        if digest is not None and digest != actual:
            self.faults.add(
                1,
                f"the header's sha256 {digest[:12]}... is not that of the lines after it "
                f"({actual[:12]}...): the file was changed after it was planned; plan it again, "
                "or, if the change was meant, remove 'entries' and 'sha256' from the header",
            )

    def _check_ids(self) -> None:
        twice = self.ids.suspected_twice()
        waiting = {line for line, target in self.ids.references() if not target}
        rings = [
            (len(circle), _shown(circle))
            for circle in islice(circles(self.ids.references), MAX_FAULTS)
        ]
        in_rings = {line for _, shown in rings for line in shown}
        if not (twice or waiting or rings):
            return
        first: dict[str, int] = {}
        names: dict[int, str] = {}
        for number, document in self._again(twice | waiting | in_rings):
            entry_id = names[number] = document["id"]
            if first.setdefault(entry_id, number) != number:
                self.faults.add(
                    number,
                    f"entry id {entry_id!r} was used on line {first[entry_id]} already; "
                    "ids must be unique within a manifest, so rename one",
                )
            if number in waiting:
                self._check_references(number, document)
        for length, shown in rings:
            self.faults.add(shown[0], _waiting_for_one_another(length, shown, names))

    def _check_references(self, number: int, document: dict[str, Any]) -> None:
        for wanted in document.get("after", ()):
            if not self.ids.has(wanted):
                self.faults.add(
                    number, f"'after' names {wanted!r}, which no entry here has; correct or remove"
                )

    def _again(self, numbers: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Reads these lines a second time, to tell suspicion from fact."""
        unheard = Faults(self.path)
        self.file.seek(0)
        for line in read_lines(self.file, unheard):
            if line.number in numbers:
                document = parse_object(line, unheard)
                if document is not None:
                    yield line.number, document


def _shown(circle: Sequence[int]) -> list[int]:
    """The lines of a circle that are told of: all, or the first and last ones of a long one."""
    if len(circle) <= 2 * _RING_END:
        return list(circle)
    return [*circle[:_RING_END], *circle[-_RING_END:]]


def _waiting_for_one_another(length: int, shown: Sequence[int], names: Mapping[int, str]) -> str:
    way = [f"{names[number]!r} (line {number})" for number in shown]
    if length > len(shown):
        way.insert(_RING_END, f"... {length - len(shown):,} more ...")
    return (
        f"entries wait for one another: {' -> '.join([*way, repr(names[shown[0]])])}; "
        "none could ever be sent, so take one of these ids out of an 'after'"
    )
