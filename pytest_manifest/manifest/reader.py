"""Read a manifest on disk: check it once, then read it entry by entry."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import ValidationError

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import jsonl, scan
from pytest_manifest.manifest.yaml_file import open_lines
from pytest_manifest.schema import Entry, Header


def read_manifest(
    path: Path,
    *,
    lean: bool = False,
    most_faults: int = jsonl.MAX_FAULTS,
    is_new: bool = False,
    shown: Path | None = None,
) -> Manifest:
    """Check the whole file; raise ManifestError with its first faults, and the others' number.

    ``lean``: ids are not kept; the first access to them reads the file once more. ``is_new``: it
    was not accepted before, so that it has limits. ``shown``, if given, replaces ``path`` in all
    messages.
    """
    places = None if lean else scan.Places()
    summary = scan.scan(path, places, shown=shown, most_faults=most_faults, is_new=is_new)
    return Manifest(summary, places)


class Outline(NamedTuple):
    """The fields of an entry by which tests select it."""

    id: str
    task: str
    tags: Sequence[str]


class Manifest:
    """A frozen, checked manifest file. It keeps ids and byte offsets; entries stay on disk.

    Entries are read from the file each time; one whose bytes were changed meanwhile raises
    ManifestError, one that was only touched, or replaced by the same bytes, does not. Without
    ``places`` these are read when they are asked for first. Safe to share between threads.
    """

    def __init__(self, summary: scan.Summary, places: scan.Places | None = None) -> None:
        self.summary = summary
        self._file = summary.path.absolute()  # a later chdir must not lose it
        self._stamp = summary.stamp
        if places is not None:
            self._index = places

    @property
    def ids(self) -> Sequence[str]:
        """Return the entries' ids, in the file's order."""
        return self._index.ids

    @property
    def tasks(self) -> Sequence[str]:
        """Return the entries' tasks, in the file's order."""
        return self._index.tasks

    @property
    def path(self) -> Path:
        """Return the path of the file."""
        return self.summary.path

    @property
    def header(self) -> Header:
        """Return the header, always with ``entries`` and ``sha256``, even if the file has none."""
        return self.summary.header

    @property
    def sha256(self) -> str:
        """Return the SHA-256, in hex, of the bytes of all lines after the header."""
        return self.summary.sha256

    def __repr__(self) -> str:
        return f"<Manifest {str(self.path)!r}: {len(self)} entries>"

    def __len__(self) -> int:
        return self.summary.entries

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._position

    def __iter__(self) -> Iterator[Entry]:
        """Stream all entries in the file's order."""
        yield from (entry for _, entry in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Entry]]:
        """Stream all entries in the file's order, each with the number, from 1, of its line."""
        for line in self.lines():
            yield line.number, self.parse(line.raw)

    def lines(self, entry_ids: Iterable[str] | None = None) -> Generator[jsonl.Line, None, None]:
        """Stream the lines of all entries, in the file's order, without comments; or of these, in
        their order.

        Raises KeyError where there is no such entry.
        """
        with self.open() as file:
            for entry_id in entry_ids or ():
                offset = self.offset_of(entry_id)
                file.seek(offset)
                yield jsonl.Line(self.line_of(entry_id), offset, file.readline())
            if entry_ids is not None:
                return
            offset = file.tell()
            remarks = frozenset(self.summary.remarks)
            for number, raw in enumerate(file, self.summary.header_line + 1):
                if number not in remarks:
                    yield jsonl.Line(self.summary.shown_line(number), offset, raw)
                offset += len(raw)

    def outlines(self, entry_ids: Iterable[str] | None = None) -> Iterator[Outline]:
        """Yield the outlines of these entries, or of all; those with tags alone are read.

        Raises KeyError where there is no such entry.
        """
        ids, tasks, offsets = self._index.ids, self._index.tasks, self._index.offsets
        chosen = None if entry_ids is None else map(self.position_of, entry_ids)
        with self.open() as file:
            for place in range(len(self)) if chosen is None else chosen:
                tags: Sequence[str] = ()
                if self.summary.traits[place] & scan.TAGS:
                    file.seek(offsets[place])
                    tags = self.parse(file.readline()).tags
                yield Outline(ids[place], tasks[place], tags)

    def dependencies(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of positions, from 0: an entry, and one that it waits for (``after``)."""
        for place, entry in self._having(scan.AFTER):
            for needed in entry.after:
                yield place, self._position[needed]

    def key_counts(self) -> Mapping[str, Counter[str]]:
        """Count the entries of each value of each key (``key``), by the key's name."""
        found: dict[str, Counter[str]] = {}
        for _, entry in self._having(scan.KEY):
            for name, value in entry.key.items():
                found.setdefault(name, Counter())[value] += 1
        return found

    def _having(self, trait: int) -> Iterator[tuple[int, Entry]]:
        """Yield the entries that have something, each with its position."""
        both = zip(self.lines(), self.summary.traits, strict=True)
        for place, (line, has) in enumerate(both):
            if has & trait:
                yield place, self.parse(line.raw)

    def dependents(self, entry_ids: Iterable[str]) -> Iterator[tuple[int, Entry]]:
        """Yield those of these entries that wait for others, each with its index among these.

        Raises KeyError where there is no such entry.
        """
        with self.open() as file:
            for index, place in enumerate(map(self.position_of, entry_ids)):
                if self.summary.traits[place] & scan.AFTER:
                    file.seek(self._index.offsets[place])
                    yield index, self.parse(file.readline())

    def expecting_nothing(
        self, among: Set[str] | None = None, *, most: int
    ) -> tuple[int, Sequence[str]]:
        """Count the entries, of these or of all, that expect no more than the default does.

        Returns their number, and the ids of the first ``most`` of them.
        """
        places = [place for place, has in enumerate(self.summary.traits) if not has & scan.EXPECTS]
        if among is not None:
            places = [place for place in places if self.ids[place] in among]
        first = list(islice(places, most))
        lines = islice(self.lines(), first[-1] + 1 if first else 0)
        return len(places), [
            jsonl.id_and_task(line.raw)[0] for place, line in enumerate(lines) if place in first
        ]

    def __getitem__(self, entry_id: str) -> Entry:
        """Return the entry with this id; raise KeyError where there is none."""
        (entry,) = self.some((entry_id,))
        return entry

    def position_of(self, entry_id: str) -> int:
        """Return the number of entries before this one; raise KeyError where there is none."""
        return self._position[entry_id]

    def offset_of(self, entry_id: str) -> int:
        """Return the offset in bytes of the entry's line; raise KeyError where there is none."""
        return self._index.offsets[self._position[entry_id]]

    def some(self, entry_ids: Iterable[str]) -> Iterator[Entry]:
        """Yield the entries with these ids, in this order; raise KeyError where there is none."""
        for line in self.lines(entry_ids):
            yield self.parse(line.raw)

    def line_of(self, entry_id: str) -> int:
        """Return the number, from 1, of the entry's line; raise KeyError where there is none."""
        position = self._position[entry_id]
        before = self.summary.header_line + bisect_right(self._before, position)
        return self.summary.shown_line(position + before + 1)

    def moved(self, path: Path) -> Manifest:
        """Return this manifest under its file's new path; raise ManifestError if it is unreadable.

        The file at ``path`` is read as a new manifest where its content differs.
        """
        with open_lines(path) as file:
            same = self._is_this(file)
        if not same:
            return read_manifest(path)
        moved = Manifest(replace(self.summary, path=path))
        moved._index = self._index
        return moved

    @cached_property
    def _before(self) -> Sequence[int]:
        """Return how many entries are before each comment that follows the header."""
        first = self.summary.header_line + 1
        after = [number for number in self.summary.remarks if number >= first]
        return [number - first - index for index, number in enumerate(after)]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {entry_id: position for position, entry_id in enumerate(self.ids)}

    @cached_property
    def _index(self) -> scan.Places:
        places = scan.Places()
        for line in self.lines():
            places.add(*jsonl.id_and_task(line.raw), line.offset)
        return places

    def open(self) -> IO[bytes]:
        """Open the file after its header; raise ManifestError where its content was changed."""
        file = open_lines(self._file)
        if not self._is_this(file):
            file.close()
            raise self._changed()
        for _ in range(self.summary.header_line):
            file.readline()
        return file

    def _is_this(self, file: IO[bytes]) -> bool:
        """Return whether the file just opened has the content that this manifest was read from."""
        stamp = scan.stamp_of(file)
        if stamp == self._stamp:
            return True
        same = stamp[1] == self.summary.size and scan.digest_of(file, self.path) == self.sha256
        if same:
            self._stamp = stamp  # only touched: compare the content once
        return same

    def parse(self, raw: bytes) -> Entry:
        """Parse the entry of a line; raise ManifestError if it changed.

        The line was checked with its file, so only a change under an open file can make it invalid.
        """
        try:
            return Entry.model_validate_json(raw)
        except ValidationError:
            with suppress(ValueError):  # pydantic before 2.12 takes no long integer from JSON
                return Entry.model_validate(json.loads(raw))
            raise self._changed() from None

    def _changed(self) -> ManifestError:
        return jsonl.file_error(self.path, "the file was changed while it was in use; start again")
