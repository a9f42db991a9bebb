"""Read a manifest on disk: check it once, then read it entry by entry."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import ValidationError

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.scan import Places, Summary, digest_of, scan, stamp_of
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.fields import PARSED


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
    places = None if lean else Places()
    summary = scan(path, places, shown=shown, most_faults=most_faults, is_new=is_new)
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

    def __init__(self, summary: Summary, places: Places | None = None) -> None:
        self.summary = summary
        self._file = summary.path.absolute()  # a later chdir must not lose it
        self._stamp = summary.stamp
        if places is not None:
            self._index = tuple(places.ids), places.offsets

    @property
    def ids(self) -> Sequence[str]:
        """Return the entries' ids, in the file's order."""
        return self._index[0]

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

    def lines(self) -> Generator[jsonl.Line, None, None]:
        """Stream the lines of all entries, in the file's order, without comments."""
        with self.open() as file:
            offset = file.tell()
            for number, raw in enumerate(file, self.summary.header_line + 1):
                if not jsonl.is_remark(raw):
                    yield jsonl.Line(number, offset, raw)
                offset += len(raw)

    def outlines(self, entry_ids: Iterable[str] | None = None) -> Iterator[Outline]:
        """Yield the outlines of these entries, or of all; few lines need parsing for that.

        Raises KeyError where there is no such entry.
        """
        with self.open() as file:
            lines = self.lines() if entry_ids is None else self._lines(file, entry_ids)
            for _, _, raw in lines:
                if _may_have(b'"tags"', raw):
                    entry = self.parse(raw)
                    yield Outline(entry.id, entry.task, entry.tags)
                else:
                    yield Outline(*self._id_and_task(raw), ())

    def dependencies(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of positions, from 0: an entry, and one that it waits for (``after``)."""
        for position, (_, _, raw) in enumerate(self.lines()):
            if _may_have(b'"after"', raw):
                for needed in self.parse(raw).after:
                    yield position, self._position[needed]

    def key_counts(self) -> Mapping[str, Counter[str]]:
        """Count the entries of each value of each key (``key``), by the key's name."""
        found: dict[str, Counter[str]] = {}
        for _, _, raw in self.lines():
            if _may_have(b'"key"', raw):
                for name, value in self.parse(raw).key.items():
                    found.setdefault(name, Counter())[value] += 1
        return found

    def dependents(self, entry_ids: Iterable[str]) -> Iterator[tuple[int, Entry]]:
        """Yield those of these entries that wait for others, each with its index among these.

        Raises KeyError where there is no such entry.
        """
        with self.open() as file:
            for index, (_, _, raw) in enumerate(self._lines(file, entry_ids)):
                if _may_have(b'"after"', raw) and (entry := self.parse(raw)).after:
                    yield index, entry

    def expecting_nothing(
        self, among: Set[str] | None = None, *, most: int
    ) -> tuple[int, Sequence[str]]:
        """Count the entries, of these or of all, that expect no more than the default does.

        Returns their number, and the ids of the first ``most`` of them.
        """
        count, first = 0, list[str]()
        ids: Iterable[str | None] = repeat(None) if among is None else self.ids
        for entry_id, line in zip(ids, self.lines()):  # noqa: B905 - ids may go on without end
            if among is not None and entry_id not in among:
                continue
            if not _may_have(b'"expect"', line.raw) or self.parse(line.raw).expect.is_nothing:
                count += 1
                if count <= most:
                    first.append(self._id_and_task(line.raw)[0])
        return count, first

    def __getitem__(self, entry_id: str) -> Entry:
        """Return the entry with this id; raise KeyError where there is none."""
        offset = self.offset_of(entry_id)
        with self.open() as file:
            file.seek(offset)
            return self.parse(file.readline())

    def position_of(self, entry_id: str) -> int:
        """Return the number of entries before this one; raise KeyError where there is none."""
        return self._position[entry_id]

    def offset_of(self, entry_id: str) -> int:
        """Return the offset in bytes of the entry's line; raise KeyError where there is none."""
        return self._index[1][self._position[entry_id]]

    def some(self, entry_ids: Iterable[str]) -> Iterator[Entry]:
        """Yield the entries with these ids, in this order; raise KeyError where there is none."""
        with self.open() as file:
            for _, _, raw in self._lines(file, entry_ids):
                yield self.parse(raw)

    def _lines(self, file: IO[bytes], entry_ids: Iterable[str]) -> Iterator[jsonl.Line]:
        """Yield these entries' lines."""
        for entry_id in entry_ids:
            offset = self.offset_of(entry_id)
            file.seek(offset)
            yield jsonl.Line(self.line_of(entry_id), offset, file.readline())

    def line_of(self, entry_id: str) -> int:
        """Return the number, from 1, of the entry's line; raise KeyError where there is none."""
        position = self._position[entry_id]
        return position + self.summary.header_line + 1 + bisect_right(self._before, position)

    def moved(self, path: Path) -> Manifest:
        """Return this manifest under its file's new path; raise ManifestError if it is unreadable.

        The file at ``path`` is read as a new manifest where its content differs.
        """
        with jsonl.open_regular(path) as file:
            same = self._is_this(file)
        if not same:
            return read_manifest(path)
        return Manifest(replace(self.summary, path=path), Places(list(self.ids), self._index[1]))

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
    def _index(self) -> tuple[Sequence[str], array[int]]:
        ids: list[str] = []
        offsets = array("Q")
        for line in self.lines():
            ids.append(jsonl.id_and_task(line.raw)[0])
            offsets.append(line.offset)
        return tuple(ids), offsets

    def open(self) -> IO[bytes]:
        """Open the file after its header; raise ManifestError where its content was changed."""
        file = jsonl.open_regular(self._file)
        if not self._is_this(file):
            file.close()
            raise self._changed()
        for _ in range(self.summary.header_line):
            file.readline()
        return file

    def _is_this(self, file: IO[bytes]) -> bool:
        """Return whether the file just opened has the content that this manifest was read from."""
        stamp = stamp_of(file)
        if stamp == self._stamp:
            return True
        same = stamp[1] == self.summary.size and digest_of(file, self.path) == self.sha256
        if same:
            self._stamp = stamp  # only touched: compare the content once
        return same

    def parse(self, raw: bytes) -> Entry:
        """Parse the entry of a line; raise ManifestError if it changed.

        The line was checked with its file, so only a change under an open file can make it invalid.
        """
        try:
            return Entry.model_validate_json(raw, context=PARSED)
        except ValidationError:
            raise self._changed() from None

    def _id_and_task(self, raw: bytes) -> tuple[str, str]:
        try:
            return jsonl.id_and_task(raw)
        except (ValueError, KeyError, TypeError):  # only a change under an open file can do that
            raise self._changed() from None

    def _changed(self) -> ManifestError:
        return jsonl.file_error(self.path, "the file was changed while it was in use; start again")


def _may_have(key: bytes, raw: bytes) -> bool:
    """Return whether a line may have this quoted key; it may be written with escapes."""
    return key in raw or b"\\u" in raw
