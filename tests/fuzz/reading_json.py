"""Each kind of JSON in each format, and the table of what becomes of those that are open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.results.records import ReadErrors, ReceiptBatch, add_record
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.worker.backend_memory import stores
from tests.fuzz.json_kinds import FORMATS, KINDS, OBJECT, Kind
from tests.fuzz.oracles import scratch
from tests.receipts_files import read_receipts

KEY: Final = stream_key("20261124T150000-0123abcd")
RECEIPT: Final = (
    b'{"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t","task":"t",'
    b'"state":"succeeded","result":[0,%s]}'
)
OBJECTS: Final[Mapping[str, bytes]] = {
    "manifest": b'{"id":"a","task":"t","args":[0,%s]}',
    "receipts": RECEIPT,
    "stream": b'{"kind":"finished","execution":"x","receipt":' + RECEIPT + b"}",
}


class RefusedError(Exception):
    """A text that is refused; its text is what a user is told."""


def line_of(kind: Kind, form: str) -> bytes:
    """Return the line of a format that shows a kind."""
    if not kind.is_line:
        return OBJECTS[form].replace(b"%s", kind.text)
    whole = OBJECTS[form].replace(b"%s", b"1")
    if kind.text.startswith(b"utf-"):
        return whole.decode().encode(kind.text.decode())
    return kind.text.replace(OBJECT, whole)


def read(kind: Kind, form: str) -> Any:
    """Return what the value of a kind is read as; raise RefusedError where it is refused."""
    return READERS[form](line_of(kind, form))


def _file(line: bytes) -> Path:
    path = scratch() / "kinds.jsonl"
    path.write_bytes(line + b"\n")
    return path


def _in_manifest(line: bytes) -> Any:
    try:
        (entry,) = read_manifest(_file(line))
    except ManifestError as error:
        raise RefusedError(error.faults[0].message) from None
    return entry.args[-1]


def _in_receipts(line: bytes) -> Any:
    try:
        (receipt,) = read_receipts(_file(line))
    except ManifestError as error:
        raise RefusedError(error.faults[0].message) from None
    return _last(receipt.result)


def _in_stream(line: bytes) -> Any:
    stores.now.clear()
    stores.now.xadd(KEY, {"r": line})
    warnings: list[str] = []
    records = StreamReader("memory://", KEY, flaws=ReadErrors(warnings)).read()
    if not records:
        raise RefusedError(warnings[0])
    batch = ReceiptBatch()
    try:
        add_record(records[0], batch)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    return _last(batch.finals[0][2].result)


def _last(result: Any) -> Any:
    return result[-1]


READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "manifest": _in_manifest,
    "receipts": _in_receipts,
    "stream": _in_stream,
}


def table() -> str:
    """Make the tables in Markdown: how many kinds there are, and what becomes of open ones."""
    counts = Counter(kind.rule for kind in KINDS)
    lines = [
        "| kinds | number | manifest, receipts file, record of the stream |",
        "|---|---|---|",
        f"| JSON by RFC 8259 | {counts['right']} | all taken, with the value that they say |",
        f"| no JSON, or no object | {counts['wrong']} | all refused, with a sentence |",
        f"| left open | {counts['open']} | as follows |",
        "",
        "| left open by RFC 8259 | taken by | decision |",
        "|---|---|---|",
    ]
    for kind in KINDS:
        if kind.rule == "open":
            by = "all" if kind.taken == FORMATS else ", ".join(kind.taken) or "none"
            lines.append(f"| {kind.name} | {by} | {kind.decision} |")
    return "\n".join(lines)
