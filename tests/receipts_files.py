"""Write files of receipts, and read them, each line by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.writer import dump_document, write_receipt_lines
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.receipts import ExportedDescendant


def read_receipts(path: Path) -> Iterator[Receipt]:
    """Stream the receipts of entries up to the first fault, then raise all faults at once."""
    faults = jsonl.Faults(path)
    with jsonl.open_regular(path) as file:
        for line in jsonl.read_lines(file, faults):
            if line.raw.lstrip().startswith(b'{"descendant"'):
                jsonl.parse_document(line, ExportedDescendant, faults)
                continue
            receipt = jsonl.parse_document(line, Receipt, faults)
            if receipt is not None and not faults:
                yield receipt
    faults.raise_any()


def write_receipts(path: Path, receipts: Iterable[Receipt]) -> int:
    """Write the receipts, whole or not at all; return their number."""
    return write_receipt_lines(path, map(dump_document, receipts))
