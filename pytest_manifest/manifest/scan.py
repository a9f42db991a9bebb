"""Check a whole manifest in one pass and nearly constant memory.

Check a manifest's ids: unique, each ``after`` names an entry, and no circles.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from pytest_manifest.errors import Fault, ManifestError
from pytest_manifest.manifest import jsonl
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.wire import canonical

_RING_END: Final = 5
"""How many lines of a long circle are named at its beginning and at its end."""

Again = Callable[[set[int]], Iterable[tuple[int, Mapping[str, Any]]]]
"""Reads lines a second time, to tell suspicion from fact."""


def check_ids(ids: IdIndex, faults: jsonl.Faults, again: Again) -> None:
    """Record duplicate ids, each ``after`` that names no entry, and circles as faults."""
    twice = ids.suspected_twice()
    waiting = {line for line, target in ids.references() if not target}
    rings = [
        (len(circle), _shown(circle))
        for circle in islice(circles(ids.references), jsonl.MAX_FAULTS)
    ]
    in_rings = {line for _, shown in rings for line in shown}
    if not (twice or waiting or rings):
        return
    first: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, document in again(twice | waiting | in_rings):
        entry_id = names[number] = document["id"]
        if first.setdefault(entry_id, number) != number:
            faults.add(
                number,
                f"entry id {entry_id!r} was used on line {first[entry_id]} already; "
                "ids must be unique within a manifest, so rename one",
            )
        if number in waiting:
            _check_references(number, document, ids, faults)
    for length, shown in rings:
        faults.add(shown[0], _waiting_for_one_another(length, shown, names))


def _check_references(
    number: int, document: Mapping[str, Any], ids: IdIndex, faults: jsonl.Faults
) -> None:
    for wanted in document.get("after", ()):
        if not ids.has(wanted):
            faults.add(
                number, f"'after' names {wanted!r}, which no entry here has; correct or remove"
            )


def _shown(circle: Sequence[int]) -> list[int]:
    """Return the lines of a circle to name in a fault: all, or both ends of a long circle."""
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


_BUCKETS = 256


class IdIndex:
    """Remember ids as 64-bit hashes with their lines: 12 bytes an id, whatever its length.

    A million ids in a set of strings take about 150 MB. What the hashes say is a suspicion, to be
    confirmed on the lines themselves: two ids may share a hash, though in a file of a million
    the odds are 1 in 37 million. Buckets keep what is unpacked at a time small. An id that another
    entry waits for costs 12 bytes more.
    """

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._lines = [array("I") for _ in range(_BUCKETS)]
        self._wanted = [array("q") for _ in range(_BUCKETS)]
        self._wanted_by = [array("I") for _ in range(_BUCKETS)]

    def add(self, entry_id: str, line: int) -> None:
        """Record that an id stands on a line."""
        key = hash(entry_id)
        self._hashes[key % _BUCKETS].append(key)
        self._lines[key % _BUCKETS].append(line)

    def want(self, ids: Iterable[str], line: int) -> None:
        """Record that the entry on a line depends on these ids (its ``after``)."""
        for entry_id in ids:
            key = hash(entry_id)
            self._wanted[key % _BUCKETS].append(key)
            self._wanted_by[key % _BUCKETS].append(line)

    def suspected_twice(self) -> set[int]:
        """Return the lines whose id has the same hash as the id of another line."""
        suspects: set[int] = set()
        for hashes, lines in zip(self._hashes, self._lines, strict=True):
            if len(set(hashes)) == len(hashes):
                continue
            by_hash: dict[int, list[int]] = {}
            for key, line in zip(hashes, lines, strict=True):
                by_hash.setdefault(key, []).append(line)
            suspects.update(line for same in by_hash.values() if len(same) > 1 for line in same)
        return suspects

    def references(self) -> Iterator[tuple[int, int]]:
        """Yield (line that waits, line that it waits for; 0 where no line has that id)."""
        for bucket, wanted in enumerate(self._wanted):
            if wanted:
                where = dict(zip(self._hashes[bucket], self._lines[bucket], strict=True))
                for key, line in zip(wanted, self._wanted_by[bucket], strict=True):
                    yield line, where.get(key, 0)

    def has(self, entry_id: str) -> bool:
        """Return whether the id's hash is known; scans a list, so it is for error reports only."""
        key = hash(entry_id)
        return key in self._hashes[key % _BUCKETS]


Pairs = Iterable[tuple[int, int]]


def circles(references: Callable[[], Pairs]) -> Iterator[list[int]]:
    """Yield circles, each as its lines in the order of waiting, until no circle is left.

    ``references`` gives, each time anew, the pairs (line that waits, line that it waits for; 0:
    none). Where lines wait only for earlier ones, as nearly always, one look at each pair tells;
    else some 300 bytes a pair are kept. Of a circle one wait is given up to find the next.
    """
    if all(target < line for line, target in references()):
        return
    given_up: set[tuple[int, int]] = set()
    while circle := _circle(references(), given_up):
        yield circle
        given_up.add((circle[-1], circle[0]))


def _circle(pairs: Pairs, given_up: set[tuple[int, int]]) -> list[int]:
    """Find one circle, from its first line on; empty where there is none."""
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for line, target in sorted(pairs):  # hashes order them, differently in each process
        if target and (line, target) not in given_up:
            sorter.add(line, target)
    try:
        sorter.prepare()
    except CycleError as error:
        found: list[int] = error.args[1][:0:-1]  # dependencies come first in it
        first = found.index(min(found))
        return found[first:] + found[:first]
    return []


@dataclass(frozen=True, slots=True)
class Summary:
    """The totals of a whole manifest.

    ``header`` always has ``entries`` and ``sha256``, also where the file has no header line, and
    ``header_line`` is 0; ``remarks`` are the numbers, from 1, of the lines with comments and of the
    blank ones at the end. ``stamp`` changes when the file does.
    """

    path: Path
    header: Header
    header_line: int
    entries: int
    sha256: str
    size: int
    stamp: tuple[int, int, int]
    remarks: Sequence[int] = ()


def check_manifest(path: Path) -> Summary:
    """Check a whole manifest without keeping it: 12 bytes an entry, plus 12 for each ``after``.

    Placeholders are faults, too. Raises ManifestError with every fault (at most 20, and the number
    of the others).
    """
    return scan(path, is_new=True)


def manifest_digest(path: Path) -> str:
    """Return the SHA-256, in hex, of all bytes after the header line (of all, if it has none).

    The entries are not checked. Raises ManifestError where the file cannot be read.
    """
    with jsonl.open_regular(path) as file:
        return digest_of(file, path)


def digest_of(file: IO[bytes], path: Path) -> str:
    """Return the SHA-256 of an open file's entry lines; leave the file at its beginning.

    The file has to stand at its beginning. ``path`` names it in errors.
    """
    digest = hashlib.sha256()
    while (first := file.readline()) and jsonl.is_remark(first):
        digest.update(first)
    if is_header(jsonl.parse_object(jsonl.Line(1, 0, first), jsonl.Faults(path)), first):
        digest = hashlib.sha256()
    else:
        digest.update(first)
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def is_header(document: dict[str, Any] | None, raw: bytes) -> bool:
    """Return whether a first line is a header, or was meant as one but is not valid JSON."""
    if document is None:
        return raw.lstrip(b"\xef\xbb\xbf \t").startswith(b'{"manifest"')
    return "manifest" in document


def stamp_of(file: IO[bytes]) -> tuple[int, int, int]:
    """Return inode, size and time of change (ns), one of which changes when a file is edited."""
    stat = os.fstat(file.fileno())
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Places:
    """The entries' ids, and the offsets of their lines, in bytes."""

    ids: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("Q"))


def scan(
    path: Path,
    places: Places | None = None,
    *,
    shown: Path | None = None,
    most_faults: int = jsonl.MAX_FAULTS,
    limits: jsonl.Limits | None = None,
    is_new: bool = False,
) -> Summary:
    """Check a whole manifest; store the entries' ids and offsets in ``places``, if given.

    Faults name ``shown`` instead of ``path`` where it is given. ``limits``: None for a file that
    was accepted before, unless it ``is_new``: placeholders are faults then. Raises ManifestError.
    """
    with jsonl.open_regular(path) as file:
        if limits is not None and (line := jsonl.longer_line(file, limits.line)):
            raise ManifestError([Fault(shown or path, line, jsonl.beyond("line", limits.line))])
        state = _Scan(jsonl.Faults(shown or path, most_faults), file, places, limits)
        state.is_new = is_new or limits is not None
        return state.run()


class _Scan:
    """The state of one pass."""

    def __init__(
        self,
        faults: jsonl.Faults,
        file: IO[bytes],
        places: Places | None,
        limits: jsonl.Limits | None = None,
    ) -> None:
        self.path = faults.path
        self.file = file
        self.places = places
        self.limits = limits
        self.is_new = False
        self.faults = faults
        self.ids = IdIndex()
        self.digest = hashlib.sha256()
        self.header: Header | None = None
        self.header_line = 0
        self.remarks = array("Q")
        self.blanks = array("Q")
        self.entries = 0

    def run(self) -> Summary:
        stamp = stamp_of(self.file)
        offset = 0
        for number, raw in enumerate(self.file, 1):
            self.digest.update(self._take(jsonl.Line(number, offset, raw)))
            offset += len(raw)
            if self.faults.enough(number):
                raise self.faults.error()
        self._check_totals(stamp[1])
        check_ids(self.ids, self.faults, self._again)
        self.faults.raise_any()
        facts = {"entries": self.entries, "sha256": self.digest.hexdigest()}
        return Summary(
            path=self.path,
            header=(self.header or Header()).model_copy(update=facts),
            header_line=self.header_line,
            entries=self.entries,
            sha256=self.digest.hexdigest(),
            size=stamp[1],
            stamp=stamp,
            remarks=self.remarks or (),
        )

    def _take(self, line: jsonl.Line) -> bytes:
        """Check a line; return its bytes to digest, b"" of the header."""
        line = jsonl.without_bom(line, self.faults)
        if jsonl.is_blank(line.raw):
            self.blanks.append(line.number)
            self.remarks.append(line.number)
            return line.raw
        jsonl.check_end(line, self.faults)
        if jsonl.is_remark(line.raw):
            self.remarks.append(line.number)
            return line.raw
        self._refuse_blanks()
        document = jsonl.parse_object(line, self.faults)
        if not (self.entries or self.header_line) and is_header(document, line.raw):
            self._take_header(document, line)
            return b""
        self.entries += 1
        if self.limits is not None and self.entries > self.limits.entries:
            self.faults.add(0, jsonl.beyond("entries", self.limits.entries))
            raise self.faults.error()
        if document is not None:
            self._take_entry(document, line)
        return line.raw

    def _refuse_blanks(self) -> None:
        """Record the blank lines before this one as faults: only at the end they are none."""
        for number in self.blanks:
            self.faults.add(number, jsonl.BLANK)
            if self.faults.enough(number):
                break
        del self.blanks[:]

    def _take_header(self, document: dict[str, Any] | None, line: jsonl.Line) -> None:
        self.header_line = line.number
        self.digest = hashlib.sha256()  # of what follows
        if document is not None:
            self.header = jsonl.check_document(document, line, Header, self.faults)
            if self.header is None and document.get("manifest") != 1:
                raise self.faults.error()  # another version: its entries are not ours to judge

    def _take_entry(self, document: dict[str, Any], line: jsonl.Line) -> None:
        if "manifest" in document:
            self.faults.add(line.number, "a header may only be the first line; remove this one")
            return
        entry_id = document.get("id")
        if isinstance(entry_id, str):  # of a faulty entry too, so that no fault hides another
            self.ids.add(entry_id, line.number)
        if self.is_new and jsonl.MARK in line.raw:
            for message in jsonl.placeholder_faults(document):
                self.faults.add(line.number, message)
        entry = jsonl.check_document(document, line, Entry, self.faults)
        if entry is None:
            return
        if self.limits is not None and len(line.raw) > self.limits.schema:
            schema = canonical(entry.expect.result_schema)
            if schema is not None and len(schema) > self.limits.schema:
                self.faults.add(line.number, jsonl.beyond("schema", self.limits.schema))
        if entry.after:
            self.ids.want(entry.after, line.number)
        if self.places is not None:
            self.places.ids.append(entry.id)
            self.places.offsets.append(line.offset)

    def _check_totals(self, size: int) -> None:
        if not size:
            self.faults.add(0, "the file is empty; plan it again, or write one entry a line")
        elif not self.entries and not self.faults:
            what = "there is a header but no entries" if self.header_line else "it has no entries"
            self.faults.add(0, f"{what}, so nothing would be run; plan it again")
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

    def _again(self, numbers: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read these lines a second time, to confirm or dismiss faults suspected from hashes."""
        unheard = jsonl.Faults(self.path)
        self.file.seek(0)
        for line in jsonl.read_lines(self.file, unheard):
            if line.number in numbers:
                document = jsonl.parse_object(line, unheard)
                if document is not None:
                    yield line.number, document
