"""A manifest on disk, checked once and then read entry by entry."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest.faults import Faults, file_error
from pytest_manifest.manifest.lines import Line, open_regular, parse_document, parse_object
from pytest_manifest.manifest.scan import Places, Summary, scan, stamp_of
from pytest_manifest.schema import Entry, Header


def read_manifest(path: Path) -> Manifest:
    """Checks the whole file; raises ManifestError with every fault (20, and the others' number)."""
    return load(path)


def load(path: Path, *, shown: Path | None = None) -> Manifest:
    """As ``read_manifest``; the manifest and its faults name ``shown`` where it is given."""
    places = Places()
    summary = scan(path, places, shown=shown)
    return Manifest(summary, places.ids, places.offsets)


class Manifest:
    """A frozen, checked manifest file. It keeps ids and byte offsets; entries stay on disk.

    Entries are read from the file each time; a file that was changed meanwhile raises
    ManifestError. Safe to share between threads.
    """

    def __init__(self, summary: Summary, ids: Sequence[str], offsets: array[int]) -> None:
        self.summary = summary
        self.ids: Sequence[str] = tuple(ids)
        self._offsets = offsets
        self._file = summary.path.absolute()  # a later chdir must not lose it

    @property
    def path(self) -> Path:
        """The file."""
        return self.summary.path

    @property
    def header(self) -> Header:
        """The header; ``entries`` and ``sha256`` are always there, also where no header line is."""
        return self.summary.header

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of the bytes of all lines after the header."""
        return self.summary.sha256

    def __repr__(self) -> str:
        return f"<Manifest {str(self.path)!r}: {len(self)} entries>"

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._position

    def __iter__(self) -> Iterator[Entry]:
        """All entries in the file's order, streamed."""
        for line in self._lines():
            yield self._entry(line)

    def documents(self) -> Iterator[dict[str, Any]]:
        """All entries as the file has them, streamed: JSON objects, without what is default.

        For whoever wants little of each entry: to make entries of them takes twice as long.
        """
        for line in self._lines():
            document = parse_object(line, Faults(self.path))
            if document is None:
                raise self._changed()
            yield document

    def __getitem__(self, entry_id: str) -> Entry:
        """The entry with this id; raises KeyError where there is none."""
        position = self._position[entry_id]
        with self._open() as file:
            file.seek(self._offsets[position])
            return self._entry(Line(position + self._first_line, 0, file.readline()))

    def some(self, entry_ids: Iterable[str]) -> Iterator[Entry]:
        """The entries with these ids, in this order; raises KeyError where there is none."""
        with self._open() as file:
            for entry_id in entry_ids:
                position = self._position[entry_id]
                file.seek(self._offsets[position])
                yield self._entry(Line(position + self._first_line, 0, file.readline()))

    def line_of(self, entry_id: str) -> int:
        """The number, from 1, of the line that the entry stands on; KeyError where it does not."""
        return self._position[entry_id] + self._first_line

    def moved(self, path: Path) -> Manifest:
        """This manifest where its file has got another name; raises ManifestError."""
        with open_regular(path) as file:
            same = stamp_of(file) == self.summary.stamp
        if not same:
            return read_manifest(path)
        return Manifest(replace(self.summary, path=path), self.ids, self._offsets)

    @property
    def _first_line(self) -> int:
        return 2 if self.summary.has_header else 1

    @cached_property
    def _position(self) -> dict[str, int]:
        return {entry_id: position for position, entry_id in enumerate(self.ids)}

    def _lines(self) -> Iterator[Line]:
        with self._open() as file:
            file.seek(self._offsets[0] if self._offsets else 0)
            for number, raw in enumerate(file, self._first_line):
                yield Line(number, 0, raw)

    def _open(self) -> IO[bytes]:
        file = open_regular(self._file)
        if stamp_of(file) != self.summary.stamp:
            file.close()
            raise self._changed()
        return file

    def _entry(self, line: Line) -> Entry:
        faults = Faults(self.path)
        entry = parse_document(line, Entry, faults)
        if entry is None:  # only a change under an open file can do that
            raise self._changed()
        return entry

    def _changed(self) -> ManifestError:
        return file_error(self.path, "the file was changed while it was in use; start again")
