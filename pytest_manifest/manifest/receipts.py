"""Reading the receipts file: one receipt a line, without a header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.manifest.faults import Faults
from pytest_manifest.manifest.lines import open_regular, parse_document, read_lines
from pytest_manifest.schema import Receipt


def read_receipts(path: Path) -> Iterator[Receipt]:
    """The receipts in the file's order, streamed; a file without any is valid.

    At the first fault the rest of the file is only checked, and then ManifestError raised with
    every fault (at most 20, and the number of the others).
    """
    faults = Faults(path)
    with open_regular(path) as file:
        for line in read_lines(file, faults):
            receipt = parse_document(line, Receipt, faults)
            if receipt is not None and not faults:
                yield receipt
    faults.raise_any()
