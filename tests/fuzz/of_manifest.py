"""A manifest of any bytes: read, refused by sentences, read by all ways alike, written and read."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import (
    Manifest,
    check_manifest,
    dump_entry,
    id_and_task,
    jsonl,
    read_manifest,
    write_manifest,
)
from pytest_manifest.manifest.jsonl import Faults, Line, parse_document
from pytest_manifest.schema import Entry, Header
from tests.fuzz.oracles import expect, expect_refusal, same, scratch

LIMITS = {"line": 1 << 16, "entries": 200, "schema": 1 << 14}
MOST_LINES = 60


@patch.dict(jsonl.LIMITS, LIMITS)
def check(data: bytes) -> None:
    """Read these bytes as a manifest."""
    path = scratch() / "m.jsonl"
    path.write_bytes(data)
    for raw in data.splitlines(keepends=True)[:MOST_LINES]:
        if len(raw) <= LIMITS["line"]:
            compare_line(raw)
    try:
        manifest = read_manifest(path, is_new=True)
    except ManifestError as error:
        expect_refusal(error)
        return
    read_alike(manifest)
    write_and_read(manifest)


def compare_line(raw: bytes) -> None:
    """What a check takes of a line is what reading it again makes of it."""
    line = Line(2, 0, raw)
    faults = Faults(Path("m"))
    entry = parse_document(line, Entry, faults)
    expect((entry is None) == bool(faults), "refused without a fault, or the other way", raw)
    if entry is None:
        return
    again = Entry.model_validate_json(raw)
    expect(same(again.model_dump(), entry.model_dump()), "the parsers differ", raw)
    written = dump_entry(entry)
    nothing = "expect" not in jsonl._parse(Line(2, 0, written))
    expect(entry.expect.is_nothing == nothing, "other expectations", raw)
    expect(id_and_task(raw) == (entry.id, entry.task), "another id or task", raw)
    found = parse_document(Line(2, 0, written + b"\n"), Entry, faults)
    expect(found == entry, "another entry after it was written", raw, written)


def read_alike(manifest: Manifest) -> None:
    """Whichever way it is read, the same is found."""
    path = manifest.path
    entries = list(manifest)
    ids = [entry.id for entry in entries]
    data = path.read_bytes()
    for line, entry_id in zip(manifest.lines(), ids, strict=True):
        number = data.count(b"\n", 0, line.offset) + 1
        places = (manifest.offset_of(entry_id), manifest.line_of(entry_id), number)
        expect(places == (line.offset, line.number, line.number), "another place", entry_id, places)
        expect(data.startswith(line.raw, line.offset), "another line", entry_id)
    expect(len(manifest) == len(entries) == len(set(ids)), "not each id once", ids)
    expect(list(manifest.ids) == ids, "other ids", ids, manifest.ids)
    lean = read_manifest(path, lean=True, is_new=True)
    expect(list(lean.ids) == ids, "other ids, read leanly", ids, lean.ids)
    expect(check_manifest(path).sha256 == manifest.sha256, "another digest")
    expect([manifest[one] for one in ids[:5]] == entries[:5], "other entries by their ids")
    told = [(one.id, one.task, list(one.tags)) for one in manifest.outlines()]
    expect(told == [(one.id, one.task, one.tags) for one in entries], "other outlines", told)
    number, _ = manifest.expecting_nothing(most=3)
    expect(0 <= number <= len(ids), "expecting nothing", number)
    waiting = [(ids[one], ids[other]) for one, other in manifest.dependencies()]
    named = [(one.id, other) for one in entries for other in one.after]
    expect(waiting == named, "other dependencies", waiting, named)


def write_and_read(manifest: Manifest) -> None:
    """Written anew it is the same, and written once more the same bytes."""
    first, second = scratch() / "first.jsonl", scratch() / "second.jsonl"
    entries = list(manifest)
    header: Header = manifest.header
    try:
        written = write_manifest(first, header, entries)
    except ManifestError as error:
        expect(False, "cannot be written", str(error))
        return
    expect(list(written) == entries, "other entries after they were written")
    facts = {"entries": written.header.entries, "sha256": written.header.sha256}
    expect(written.header == header.model_copy(update=facts), "another header")
    write_manifest(second, written.header, list(written))
    expect(first.read_bytes() == second.read_bytes(), "other bytes at the second time")
