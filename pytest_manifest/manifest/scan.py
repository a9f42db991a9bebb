"""Check a whole manifest in one pass and nearly constant memory.

Check a manifest's ids: unique, each ``after`` names an entry, and no circles.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from sys import intern
from typing import IO, Any, Final

from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.yaml_file import open_lines
from pytest_manifest.schema import Entry, Header
from pytest_manifest.schema.wire import canonical
from pytest_manifest.text import whole_text

_RING_END: Final = 5
"""How many lines of a long circle are named at its beginning and at its end."""

_TABLES: Final = """
    CREATE TABLE ids (line INTEGER PRIMARY KEY, id TEXT NOT NULL);
    CREATE TABLE waits (line INTEGER NOT NULL, id TEXT NOT NULL);
"""
_TWICE: Final = """
    SELECT line, id, first FROM ids JOIN (
        SELECT id AS twice, min(line) AS first FROM ids GROUP BY id HAVING count(*) > 1
    ) ON id = twice WHERE line > first ORDER BY line
"""
_UNKNOWN: Final = "SELECT line, id FROM waits WHERE id NOT IN (SELECT id FROM ids) ORDER BY line"
_WAITS: Final = "SELECT waits.line, ids.line FROM waits JOIN ids USING (id)"


class _Ids:
    """The ids of a manifest with their lines, and who waits for which, in a database that vanishes
    when it is closed: a million of them in a set of strings take about 150 MB."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")

    def add(self, entry_id: str, line: int) -> None:
        """Record that an id stands on a line."""
        self._db.execute("INSERT INTO ids VALUES (?, ?)", (line, whole_text(entry_id)))

    def want(self, ids: Iterable[str], line: int) -> None:
        """Record that the entry on a line depends on these ids (its ``after``)."""
        self._db.executemany("INSERT INTO waits VALUES (?, ?)", ((line, one) for one in ids))

    def check(self, faults: jsonl.Faults) -> None:
        """Record duplicate ids, each ``after`` that names no entry, and circles as faults."""
        self._db.execute("CREATE INDEX by_id ON ids (id)")
        for line, entry_id, first in self._db.execute(_TWICE):
            faults.add(
                line,
                f"entry id {entry_id!r} was used on line {faults.line(first)} already; "
                "ids must be unique within a manifest, so rename one",
            )
        for line, wanted in self._db.execute(_UNKNOWN):
            faults.add(
                line, f"'after' names {wanted!r}, which no entry here has; correct or remove"
            )
        for circle in islice(_circles(lambda: self._db.execute(_WAITS)), jsonl.MAX_FAULTS):
            faults.add(circle[0], self._waiting_for_one_another(circle, faults))

    def _waiting_for_one_another(self, circle: Sequence[int], faults: jsonl.Faults) -> str:
        """Say which entries wait for one another: all, or those at both ends of a long circle."""
        more = len(circle) - 2 * _RING_END
        shown = circle if more <= 0 else (*circle[:_RING_END], *circle[-_RING_END:])
        name = "SELECT id FROM ids WHERE line = ?"
        names = [self._db.execute(name, (line,)).fetchone()[0] for line in shown]
        lines = map(faults.line, shown)
        way = [f"{name!r} (line {line})" for name, line in zip(names, lines, strict=True)]
        if more > 0:
            way.insert(_RING_END, f"... {more:,} more ...")
        return (
            f"entries wait for one another: {' -> '.join([*way, repr(names[0])])}; "
            "none could ever be sent, so take one of these ids out of an 'after'"
        )


Pairs = Iterable[tuple[int, int]]


def _circles(references: Callable[[], Pairs]) -> Iterator[list[int]]:
    """Yield circles, each as its lines in the order of waiting, until no circle is left.

    ``references`` gives, each time anew, the pairs (line that waits, line that it waits for). Where
    lines wait only for earlier ones, as nearly always, one look at each pair tells; else some 300
    bytes a pair are kept. Of a circle one wait is given up to find the next.
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
    for line, target in sorted(pairs):
        if (line, target) not in given_up:
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
    blank ones at the end. ``stamp`` changes when the file does. ``traits``: what each entry has.
    ``numbers``: the lines of a file in YAML, by those that it stands for.
    """

    path: Path
    header: Header
    header_line: int
    entries: int
    sha256: str
    size: int
    stamp: tuple[int, int, int]
    traits: bytes
    remarks: Sequence[int] = ()
    numbers: Sequence[int] = ()

    def shown_line(self, line: int) -> int:
        """Return the number of a line in the file as the user knows it."""
        return self.numbers[line - 1] if self.numbers else line


TAGS, AFTER, KEY, EXPECTS = 1, 2, 4, 8


def traits_of(entry: Entry) -> int:
    """Return which of ``TAGS``, ``AFTER``, ``KEY`` and ``EXPECTS`` an entry has."""
    expects = "expect" in entry.model_fields_set and not entry.expect.is_nothing
    return (
        (TAGS if entry.tags else 0)
        | (AFTER if entry.after else 0)
        | (KEY if entry.key else 0)
        | (EXPECTS if expects else 0)
    )


def check_manifest(path: Path) -> Summary:
    """Check a whole manifest, which is new, without keeping it.

    Raises ManifestError with every fault (at most 20, and the number
    of the others).
    """
    return scan(path, is_new=True)


def manifest_digest(path: Path) -> str:
    """Return the SHA-256, in hex, of all bytes after the header line (of all, if it has none).

    The entries are not checked. Raises ManifestError where the file cannot be read.
    """
    with open_lines(path) as file:
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
    return jsonl.JsonLines.stamp_of(file)


@dataclass(frozen=True, slots=True)
class Places:
    """The entries' ids, their tasks, and the offsets of their lines, in bytes."""

    ids: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, entry_id: str, task: str, offset: int) -> None:
        """Add the next entry."""
        self.ids.append(entry_id)
        self.tasks.append(intern(task))
        self.offsets.append(offset)


def scan(
    path: Path,
    places: Places | None = None,
    *,
    shown: Path | None = None,
    most_faults: int = jsonl.MAX_FAULTS,
    is_new: bool = False,
) -> Summary:
    """Check a whole manifest; store the entries' ids and offsets in ``places``, if given.

    Faults name ``shown`` instead of ``path`` where it is given. ``is_new``: the file was not
    accepted before, so that it has limits, and placeholders are faults. Raises ManifestError.
    """
    with open_lines(path) as file:
        numbers = file.numbers if isinstance(file, jsonl.JsonLines) else ()
        faults = jsonl.Faults(shown or path, most_faults, numbers)
        try:
            with closing(sqlite3.connect("", isolation_level=None)) as db:
                return _Scan(faults, file, places, _Ids(db), is_new=is_new).run()
        except sqlite3.Error as error:
            why = f"its ids cannot be kept in {tempfile.gettempdir()} ({error}); free some space"
            raise jsonl.file_error(faults.path, why) from error


class _Scan:
    """The state of one pass."""

    def __init__(
        self,
        faults: jsonl.Faults,
        file: IO[bytes],
        places: Places | None,
        ids: _Ids,
        *,
        is_new: bool,
    ) -> None:
        self.path = faults.path
        self.file = file
        self.places = places
        self.is_new = is_new
        self.faults = faults
        self.ids = ids
        self.digest = hashlib.sha256()
        self.header: Header | None = None
        self.header_line = 0
        self.remarks = array("Q")
        self.blanks = array("Q")
        self.traits = bytearray()
        self.entries = 0

    def run(self) -> Summary:
        stamp = stamp_of(self.file)
        for line in jsonl.read_lines(self.file, self.faults, has_limit=self.is_new):
            self.digest.update(self._take(line))
        self._check_totals(stamp[1])
        self.ids.check(self.faults)
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
            traits=bytes(self.traits),
            remarks=self.remarks or (),
            numbers=self.file.numbers if isinstance(self.file, jsonl.JsonLines) else (),
        )

    def _take(self, line: jsonl.Line) -> bytes:
        """Check a line; return its bytes to digest, b"" of the header."""
        raw = line.raw
        if jsonl.is_remark(raw):
            self.remarks.append(line.number)
            if jsonl.is_blank(raw):
                self.blanks.append(line.number)
            return raw
        if self.blanks:
            self._refuse_blanks()
        document = jsonl.parse_object(line, self.faults)
        if not (self.entries or self.header_line) and is_header(document, line.raw):
            self._take_header(document, line)
            return b""
        self.entries += 1
        if self.is_new and self.entries > jsonl.LIMITS["entries"]:
            self.faults.add(0, jsonl.beyond("entries"))
            raise self.faults.error()
        if document is not None:
            self._take_entry(document, line)
        return raw

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
        if self.is_new and len(line.raw) > jsonl.LIMITS["schema"]:
            schema = canonical(entry.expect.result_schema)
            if schema is not None and len(schema) > jsonl.LIMITS["schema"]:
                self.faults.add(line.number, jsonl.beyond("schema"))
        if entry.after:
            self.ids.want(entry.after, line.number)
        self.traits.append(traits_of(entry))
        if self.places is not None:
            self.places.add(entry.id, entry.task, line.offset)

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
