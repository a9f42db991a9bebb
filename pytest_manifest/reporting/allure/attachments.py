"""Write the attachments of a result: entry, receipt, log lines, error and differences."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.reporting.allure.text import visible, visible_json
from pytest_manifest.schema import Document, Entry, Mismatch, Receipt, Verdict
from pytest_manifest.verdict import plural

_SMALL: Final = 4000
"""Most characters of receipt and entry that go into the description instead of files."""

_BREAK: Final = re.compile(
    ',(?="(?:task_id|state|result|worker|sent_at|started_at|wait|retried|ended_at|error|code|cpu'
    '|args_sha256|result_sha256|evidence|args|kwargs|timeout|after|tags|cost|meta|expect)":)'
)
"""Commas after which a line ends; none is within a JSON string, where quotes are escaped."""
_AFTER: Final = ",\n "

Attachment = tuple[str, str, str, str]
"""Name, MIME type, file extension and text."""


def of_last(record: EntryRecord) -> Iterator[Attachment]:
    """Yield the mismatches, receipt and entry of the attempt that decided the entry's verdict."""
    yield from of_verdict(record.verdict)
    yield from of_receipt(record.receipt)
    yield of_entry(record.entry)


def small_papers(record: EntryRecord) -> str | None:
    """Return receipt and entry as Markdown for a description; None if they become files.

    Files are most of a report's cost, and most entries pass. Only a passed entry without log lines
    and error, whose two documents are small together, goes without files.
    """
    receipt = record.receipt
    if record.kind != "passed" or receipt is None:
        return None
    if receipt.log or receipt.log_dropped or receipt.error is not None:
        return None
    text = f"**receipt**\n\n{_block(receipt)}\n\n**entry**\n\n{_block(record.entry)}"
    return text if len(text) <= _SMALL else None


def of_entry(entry: Entry) -> Attachment:
    return "entry", "application/json", "json", _document(entry)


def of_receipt(receipt: Receipt | None) -> Iterator[Attachment]:
    """Yield the receipt and, before it, its error and its log lines, as far as it has them."""
    if receipt is None:
        return
    if receipt.error is not None:
        yield "error", "text/plain", "txt", _error(receipt)
    if receipt.log or receipt.log_dropped:
        yield "worker log", "text/plain", "txt", _log(receipt)
    yield "receipt", "application/json", "json", _document(receipt)


def of_verdict(verdict: Verdict | None) -> Iterator[Attachment]:
    """Yield the verdict's mismatches as a diff of expected and actual values, if it has any."""
    if verdict is not None and verdict.mismatches:
        lines = ["--- expected", "+++ actual"]
        for mismatch in verdict.mismatches:
            lines += _difference(mismatch)
        yield "expected and actual", "text/plain", "txt", "\n".join(lines) + "\n"


def write(folder: Path, stem: str, attachments: Iterator[Attachment]) -> list[dict[str, str]]:
    """Write the attachments' files; return what the result's JSON says of them."""
    told: list[dict[str, str]] = []
    for number, (name, mime, extension, text) in enumerate(attachments):
        source = f"{stem}-{number}-attachment.{extension}"
        write_file(f"{folder}/{source}", text.encode("utf-8", "replace"))
        told.append({"name": name, "source": source, "type": mime})
    return told


def write_file(path: str, content: bytes) -> None:
    """Write a file with few system calls: ten thousand entries have at least as many files."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        while content:
            content = content[os.write(file, content) :]
    finally:
        os.close(file)


def _document(document: Document) -> str:
    return visible_json(document.model_dump_json(indent=2, exclude_defaults=True))


def _block(document: Document) -> str:
    """Return a document as a fenced block of JSON, with a line for each main field."""
    text = visible_json(document.model_dump_json(exclude_defaults=True))
    return f"```json\n{_BREAK.sub(_AFTER, text)}\n```"


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
