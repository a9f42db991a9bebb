"""Read and write the receipts file: one receipt a line, without a header."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from pytest_manifest.manifest.faults import Faults
from pytest_manifest.manifest.lines import open_regular, parse_document, read_lines
from pytest_manifest.schema import Receipt

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_DEFAULTS: Final[dict[str, Any]] = {
    name: info.get_default(call_default_factory=True) for name, info in Receipt.model_fields.items()
}
_NUMBERS: Final = ("wait", "runtime", "cpu")


def read_receipts(path: Path) -> Iterator[Receipt]:
    """Stream the receipts in the file's order; an empty file is valid.

    After the first fault the rest of the file is only checked; then ManifestError is raised with
    every fault (at most 20, and the number of the others).
    """
    faults = Faults(path)
    with open_regular(path) as file:
        for line in read_lines(file, faults):
            receipt = parse_document(line, Receipt, faults)
            if receipt is not None and not faults:
                yield receipt
    faults.raise_any()


def receipt_line(kept: str) -> bytes:
    """Return a receipt's line, without its newline, from the JSON text that the ledger keeps.

    The bytes are those of ``dump_document``, which takes three times as long.
    """
    fields: dict[str, Any] = from_json(kept)
    lean: dict[str, Any] = {"receipt": 1}
    lean |= {
        name: value
        for name, value in fields.items()
        if name != "receipt" and value != _DEFAULTS.get(name)
    }
    if "error" in lean:
        lean["error"] = _told(lean["error"])
    if "retried" in lean:
        lean["retried"] = [_told(one) for one in lean["retried"]]
    for name in _NUMBERS:
        value = lean.get(name)
        if type(value) is float and value.is_integer() and abs(value) < 1e15:
            lean[name] = int(value)
    return _dumps(lean).encode()


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an object without its null fields, at every level of nested objects."""
    return {
        name: _told(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }
