"""Write manifests and receipts: streamed, checked, and moved into place in one step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import IO, Any, NamedTuple

from pytest_manifest.files import FILE_MODE, new_file
from pytest_manifest.manifest.jsonl import Faults, Line, file_error, parse_document
from pytest_manifest.manifest.reader import Manifest, read_manifest
from pytest_manifest.manifest.scan import Places, Summary, stamp_of, traits_of
from pytest_manifest.schema import Entry, Expectations, Header
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.models import ASKED_BY_NAME
from pytest_manifest.schema.problems import model_in


def write_manifest(
    path: Path, header: Header, entries: Iterable[Entry], *, mode: int | None = None
) -> Manifest:
    """Write ``header``, with the count and digest filled in, and ``entries`` to ``path``.

    The same arguments give the same bytes. The file appears whole or not at all; ManifestError is
    raised, and nothing left behind, where it cannot be written or would not be valid (an id twice,
    an ``after`` that names no entry, no entries). What ``entries`` itself raises passes through.
    ``mode``: the file's; None: what the umask leaves, as of other sources.
    """
    # The header stands first but needs what comes after it.
    draft = Draft(path.parent)
    with contextlib.closing(draft):
        for line in map(dump_entry, entries):
            with writing(path):
                draft.add(line)
        return write_draft(path, header, draft, mode=mode)


def write_draft(path: Path, header: Header, draft: Draft, *, mode: int | None = None) -> Manifest:
    """Write ``header`` and the lines of ``draft`` as :func:`write_manifest` does; leave it open.

    Lines that were checked when they were added to the draft are not read and checked again.
    """
    with writing(path):
        complete = draft.complete(header)
    first = dump_document(complete) + b"\n"
    with atomic_file(path, mode) as file:
        with writing(path):
            file.write(first)
            draft.copy_to(file)
            file.flush()
        places = draft.places(len(first))
        read = parse_document(Line(1, 0, first), Header, Faults(path))
        if places is None or read is None:
            return read_manifest(Path(str(file.name)), shown=path)
        summary = Summary(
            path=path,
            header=read,
            header_line=1,
            entries=len(draft),
            sha256=complete.sha256 or "",
            size=file.tell(),
            stamp=stamp_of(file),
            traits=bytes(draft.traits),
        )
        return Manifest(summary, places)


def write_receipt_lines(path: Path, lines: Iterable[bytes], *, mode: int | None = FILE_MODE) -> int:
    """Write lines of receipts, or of entries, whole or not at all; return their number.

    Raises ManifestError.
    """
    count = 0
    with atomic_file(path, mode) as file:
        for count, line in enumerate(lines, 1):  # noqa: B007 (the last number is the count)
            with writing(path):
                file.write(line + b"\n")
    return count


_SPOOL = 1 << 20
_BLOCK = 1 << 16
_COPY = 1 << 20


class Draft:
    """Lines in a nameless file below ``folder`` (None: the system's temporary one).

    However many there are, only the ids of :meth:`add_entry` are kept in memory, and the last
    lines: a line's share of one large write is a fifth of what a write of its own takes. The file
    goes with :meth:`close`, with the object and with the process, however that ends. OSError is
    raised where it cannot be written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(_SPOOL, dir=place)  # noqa: SIM115 - see close()
        self._digest = hashlib.sha256()
        self._last: list[bytes] = []
        self._lines = 0
        self._size = 0
        self._written = 0
        self._tasks: dict[str, str] = {}
        self.traits = bytearray()
        self._offsets = array("Q")
        self._looks_ahead = False
        self.close = weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """Return the number of lines."""
        return self._lines

    def __contains__(self, entry_id: object) -> bool:
        """Return whether :meth:`add_entry` was called with this id."""
        return entry_id in self._tasks

    def add(self, line: bytes) -> None:
        """Take one line, without its newline; it is in here unless OSError is raised."""
        self._last.append(line)
        if self._size - self._written + len(line) >= _BLOCK:
            try:
                self.flush()
            except OSError:
                self._last.pop()
                raise
        self._size += len(line) + 1
        self._lines += 1

    def add_entry(self, line: bytes, entry: Entry) -> None:
        """Add the line of a valid entry, whose id is new to the draft."""
        offset = self._size
        self.add(line)
        self._offsets.append(offset)
        self.traits.append(traits_of(entry))
        if entry.after and not self._looks_ahead:
            self._looks_ahead = not self._tasks.keys() >= set(entry.after)
        self._tasks[entry.id] = intern(entry.task)

    def flush(self) -> None:
        """Write what is still in memory."""
        block = b"\n".join([*self._last, b""])
        self._file.seek(self._written)  # copy_to() or a failed write moved it
        self._file.write(block)
        self._written += len(block)
        self._digest.update(block)
        self._last.clear()

    def complete(self, header: Header) -> Header:
        """Return ``header`` with the number of these lines and their SHA-256 digest filled in."""
        self.flush()
        facts = {"entries": self._lines, "sha256": self._digest.hexdigest()}
        return header.model_copy(update=facts)

    def copy_to(self, file: IO[bytes]) -> None:
        """Write all lines to another file, from where that stands."""
        self.flush()
        self._file.truncate(self._size)
        self._file.seek(0)
        shutil.copyfileobj(self._file, file, _COPY)

    def places(self, start: int) -> Places | None:
        """Return ids and byte offsets of the entries in a file that holds them from byte ``start``.

        Returns None where the file has to be read and checked again: lines were added by
        :meth:`add`, or an ``after`` names an entry that was not added before, which may be missing
        or close a circle.
        """
        if self._looks_ahead or not len(self._tasks) == self._lines > 0:
            return None
        offsets = array("Q", map(start.__add__, self._offsets))
        return Places(list(self._tasks), list(self._tasks.values()), offsets)


@contextlib.contextmanager
def atomic_file(path: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that replaces it when the block ends without an error.

    At an error the temporary file is removed. File and folder are synced, so that the new file
    survives a power cut; a symbolic link is followed. Raises ManifestError, which names ``path``,
    where the file cannot be made or moved into place. ``mode``: the new file's; None: what the
    umask leaves, as of a manifest, which is a source.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    with contextlib.ExitStack() as undo:
        with writing(path):
            file = undo.enter_context(new_file(temporary, mode))
        undo.callback(temporary.unlink, missing_ok=True)
        yield file
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
            sync(target.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ManifestError that names ``path``."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise file_error(path, f"it cannot be written ({why}); check the folder") from error


def sync(path: Path) -> None:
    """Make a written file, or the entries of a folder, survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_VERSIONS = frozenset({"manifest", "receipt"})


_BY_BEING_SET: Mapping[type[Document], frozenset[str]] = {
    Entry: frozenset({"timeout"}),
    Expectations: ASKED_BY_NAME,
}


class _Field(NamedTuple):
    key: str
    default: object
    by_being_set: bool  # its default, given, says more than nothing: it is asked for
    verbatim: bool  # the user's own JSON, whose numbers stay as they are
    part: type[Document] | None


def dump_entry(entry: Entry) -> bytes:
    """Return an entry as one JSON line, without its newline."""
    return dump_document(entry)


def dump_document(document: Document) -> bytes:
    """Return one JSON line, without newline: keys in the model's order, default values left out."""
    given = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dump_fields(type(document), given)


def dump_fields(model: type[Document], given: Mapping[str, Any]) -> bytes:
    """Return the line of a document as its fields in JSON, those that are there."""
    return _dumps(_lean(model, given)).encode()


@lru_cache(maxsize=16)
def _fields(model: type[Document]) -> tuple[Mapping[str, int], tuple[_Field, ...]]:
    """Return the version that a document begins with, if any, and its other fields."""
    fields = [
        _Field(
            key=info.alias or name,
            default=info.get_default(call_default_factory=True),
            by_being_set=name in _BY_BEING_SET.get(model, ()),
            verbatim=any(type(mark).__name__ == "_JsonField" for mark in info.metadata),
            part=model_in(info.annotation),
        )
        for name, info in model.model_fields.items()
    ]
    version = {one.key: 1 for one in fields if one.key in _VERSIONS and one.default == 1}
    return version, tuple(one for one in fields if one.key not in version)


def _lean(model: type[Document], given: Mapping[str, Any]) -> dict[str, Any]:
    version, fields = _fields(model)
    lean: dict[str, Any] = dict(version)
    for key, default, by_being_set, verbatim, part in fields:
        if key not in given:
            continue
        value = given[key]
        if value == default and not by_being_set:
            continue
        if part is not None and isinstance(value, dict):
            value = _lean(part, value)
            if not value and default is not None and not by_being_set:
                continue
        elif part is not None and isinstance(value, list):
            value = [_lean(part, item) for item in value]
        elif type(value) is float and not verbatim and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        lean[key] = value
    return lean
