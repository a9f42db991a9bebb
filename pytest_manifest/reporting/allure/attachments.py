"""What is attached to a result: entry, receipt, log lines, error, differences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.reporting.allure.text import visible, visible_json
from pytest_manifest.schema import Document, Entry, Mismatch, Receipt, Verdict
from pytest_manifest.verdict import plural

Attachment = tuple[str, str, str, str]
"""Name, MIME type, file extension and text."""


def of_passed(entry: Entry, receipt: Receipt) -> Iterator[Attachment]:
    """Both in one: a file costs more than what is in it, and of good entries there are most."""
    if receipt.log or receipt.log_dropped or receipt.error is not None:
        yield from of_receipt(receipt)
        yield of_entry(entry)
        return
    text = f'{{"entry": {_document(entry)},\n"receipt": {_document(receipt)}}}\n'
    yield "entry and receipt", "application/json", "json", text


def of_entry(entry: Entry) -> Attachment:
    return "entry", "application/json", "json", _document(entry)


def of_receipt(receipt: Receipt | None) -> Iterator[Attachment]:
    """The receipt itself, and out of it what a person looks for first."""
    if receipt is None:
        return
    if receipt.error is not None:
        yield "error", "text/plain", "txt", _error(receipt)
    if receipt.log or receipt.log_dropped:
        yield "worker log", "text/plain", "txt", _log(receipt)
    yield "receipt", "application/json", "json", _document(receipt)


def of_verdict(verdict: Verdict | None) -> Iterator[Attachment]:
    """The differences between what was expected and what came."""
    if verdict is not None and verdict.mismatches:
        lines = ["--- expected", "+++ actual"]
        for mismatch in verdict.mismatches:
            lines += _difference(mismatch)
        yield "expected and actual", "text/plain", "txt", "\n".join(lines) + "\n"


def write(folder: Path, stem: str, attachments: Iterator[Attachment]) -> list[dict[str, str]]:
    """Write the files, and give what the result says of them."""
    told: list[dict[str, str]] = []
    for number, (name, mime, extension, text) in enumerate(attachments):
        source = f"{stem}-{number}-attachment.{extension}"
        write_file(f"{folder}/{source}", text)
        told.append({"name": name, "source": source, "type": mime})
    return told


def write_file(path: str, text: str) -> None:
    """Write a file as quickly as can be: ten thousand entries have forty thousand of them."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb", 0) as file:  # noqa: PTH123
        file.write(text.encode("utf-8", "replace"))


def _document(document: Document) -> str:
    return visible_json(document.model_dump_json(indent=2, exclude_defaults=True))


def _error(receipt: Receipt) -> str:
    error = receipt.error
    assert error is not None
    parts = [visible(f"{error.type}: {error.message}")]
    if error.traceback:
        parts.append(visible(error.traceback))
    return "\n\n".join(parts) + "\n"


def _log(receipt: Receipt) -> str:
    lines = [visible(line) for line in receipt.log]
    if receipt.log_dropped:
        lines.insert(0, f"... {plural(receipt.log_dropped, 'earlier line')} left out ...")
    return "\n".join(lines) + "\n"


def _difference(mismatch: Mismatch) -> Iterator[str]:
    yield f"@@ {visible(mismatch.path)} @@"
    yield from (f"-{line}" for line in visible(mismatch.expected).split("\n"))
    yield from (f"+{line}" for line in visible(mismatch.actual).split("\n"))
