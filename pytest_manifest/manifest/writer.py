"""Write files: streamed, a manifest checked by the reader, and moved into place in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pytest_manifest.manifest.atomic import atomic_file, writing
from pytest_manifest.manifest.draft import Draft
from pytest_manifest.manifest.dump import dump_document, dump_entry, dump_header
from pytest_manifest.manifest.faults import Faults
from pytest_manifest.manifest.lines import Line, parse_document
from pytest_manifest.manifest.reader import Manifest, load
from pytest_manifest.manifest.scan import Summary, stamp_of
from pytest_manifest.schema import Entry, Header, Receipt


def write_manifest(path: Path, header: Header, entries: Iterable[Entry]) -> Manifest:
    """Write ``header``, with the count and digest filled in, and ``entries`` to ``path``.

    The same arguments give the same bytes. The file appears whole or not at all; ManifestError is
    raised, and nothing left behind, where it cannot be written or would not be valid (an id twice,
    an ``after`` that names no entry, no entries). What ``entries`` itself raises passes through.
    """
    # The header stands first but needs what comes after it.
    draft = Draft(path.parent)
    with contextlib.closing(draft):
        for line in map(dump_entry, entries):
            with writing(path):
                draft.add(line)
        return write_draft(path, header, draft)


def write_draft(path: Path, header: Header, draft: Draft) -> Manifest:
    """Write ``header`` and the lines of ``draft`` as :func:`write_manifest` does; leave it open.

    Lines that were checked when they were added to the draft are not read and checked again.
    """
    with writing(path):
        complete = draft.complete(header)
    first = dump_header(complete) + b"\n"
    with atomic_file(path) as file:
        with writing(path):
            file.write(first)
            draft.copy_to(file)
            file.flush()
        places = draft.places(len(first))
        read = parse_document(Line(1, 0, first), Header, Faults(path))
        if places is None or read is None:
            return load(Path(str(file.name)), shown=path)
        summary = Summary(
            path=path,
            header=read,
            has_header=True,
            entries=len(draft),
            sha256=complete.sha256 or "",
            size=file.tell(),
            stamp=stamp_of(file),
        )
        return Manifest(summary, (places.ids, places.offsets))


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> int:
    """Write the receipts, whole or not at all; return their number. Raises ManifestError."""
    return write_receipt_lines(path, map(dump_document, receipts))


def write_receipt_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write lines of receipts, each already in its final form, as :func:`write_receipts` does."""
    count = 0
    with atomic_file(path) as file:
        for count, line in enumerate(lines, 1):  # noqa: B007 (the last number is the count)
            with writing(path):
                file.write(line + b"\n")
    return count
