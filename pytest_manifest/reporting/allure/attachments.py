"""What is attached to a result: entry, receipt, log lines, error, differences."""

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
"""Characters that a description has room for."""

_BREAK: Final = re.compile(
    ',(?="(?:task_id|state|result|worker|sent_at|started_at|wait|retried|ended_at|error|code|cpu'
    '|args_sha256|result_sha256|evidence|args|kwargs|timeout|after|tags|cost|meta|expect)":)'
)
"""Commas that a line ends with. None of them is in a text: there the quotation mark is escaped."""
_AFTER: Final = ",\n "

Attachment = tuple[str, str, str, str]
"""Name, MIME type, file extension and text."""


def of_last(record: EntryRecord) -> Iterator[Attachment]:
    """Of the attempt that an entry's verdict is about."""
    yield from of_verdict(record.verdict)
    yield from of_receipt(record.receipt)
    yield of_entry(record.entry)


def small_papers(record: EntryRecord) -> str | None:
    """Receipt and entry, in Markdown, of what has passed and has nothing to tell.

    Files are most of a report's cost, and of good entries there are most. None where the two are
    better attached: large, or with something beside them.
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
        write_file(f"{folder}/{source}", text.encode("utf-8", "replace"))
        told.append({"name": name, "source": source, "type": mime})
    return told


def write_file(path: str, content: bytes) -> None:
    """Write a file with as few calls as can be: ten thousand entries have at least as many."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        while content:
            content = content[os.write(file, content) :]
    finally:
        os.close(file)


def _document(document: Document) -> str:
    return visible_json(document.model_dump_json(indent=2, exclude_defaults=True))


def _block(document: Document) -> str:
    """A document as a block of Markdown, in a few lines that a page is wide enough for."""
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
