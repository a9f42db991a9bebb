"""Describe an entry in Markdown, and attach its documents: entry, receipt, log, differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, origin_text
from pytest_manifest.files import write_whole
from pytest_manifest.reporting.markdown import MOST, escaped, verbatim
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.fields import Document
from pytest_manifest.text import escape_hidden, plural, short, visible

_WIDTH = 300


def description(
    record: EntryRecord,
    one: AttemptRecord | None,
    location: str,
    doc: str | None = None,
    documents: str | None = None,
) -> str:
    """Return the Markdown that describes one attempt at an entry.

    ``one``: the attempt, None if none was sent; ``location``: the manifest's name and the line;
    ``doc``: the test's own Markdown, which comes first; ``documents``: Markdown that comes last.
    """
    last = one is None or one is record.last
    status, sentence = record.kind, record.sentence
    if one is not None and not last:
        status, sentence = one.kind, one.sentence
    paragraphs = [verbatim(_call(record.entry))]
    if doc:
        paragraphs.insert(0, doc)
    if sentence is not None and status != "passed":
        paragraphs.append(escaped(sentence, MOST))
    rows = [("expected", ", ".join(_expectations(record.entry)))]
    rows += [("verdict", verbatim(status))] if status is not None else []
    rows += _metadata(record, last=last)
    rows.append(("ordered at", verbatim(location)))
    paragraphs.append("\n".join(f"- **{name}** {value}" for name, value in rows))
    if documents is not None:
        paragraphs.append(documents)
    return "\n\n".join(paragraphs)


def _call(entry: Entry) -> str:
    given = [short(value, _WIDTH) for value in entry.args]
    given += [f"{key}={short(value, _WIDTH)}" for key, value in entry.kwargs.items()]
    return f"{entry.task}({', '.join(given)})"


def _metadata(record: EntryRecord, *, last: bool) -> Iterator[tuple[str, str]]:
    entry = record.entry
    if entry.after:
        yield "after", ", ".join(verbatim(name) for name in entry.after[:20])
    for name, value in entry.meta.items():
        yield f"meta {escaped(name)}", verbatim(value if isinstance(value, str) else short(value))
    if last and record.error_place is not None:
        yield "raised at", verbatim(record.error_place)
    if last and record.reused_from is not None:
        yield "reused from", verbatim(origin_text(record.reused_from))


def _expectations(entry: Entry) -> Iterator[str]:
    expect = entry.expect
    yield f"state {verbatim(expect.state)}"
    if "result" in expect.model_fields_set:
        yield f"result {verbatim(short(expect.result, _WIDTH))}"
    if expect.result_schema is not None:
        yield f"schema {verbatim(short(expect.result_schema, _WIDTH))}"
    if expect.error is not None:
        words = [expect.error.type or "an error"]
        words += [f"matching {expect.error.match!r}"] if expect.error.match else []
        yield f"error {verbatim(' '.join(words))}"
    if expect.max_runtime is not None:
        yield f"at most {expect.max_runtime:g} s"
    if expect.max_wait is not None:
        yield f"a wait of at most {expect.max_wait:g} s"


# Attachments

_SMALL: Final = 4000
"""Most characters of receipt and entry that go into the description instead of files."""

Attachment = tuple[str, str, str, str]
"""Name, MIME type, file extension and text."""


def attachments_of_last(record: EntryRecord) -> Iterator[Attachment]:
    """Yield mismatches as a diff, receipt and entry of the attempt that decided the verdict."""
    if record.verdict is not None and record.verdict.mismatches:
        lines = ["--- expected", "+++ actual"]
        for one in record.verdict.mismatches:
            lines.append(f"@@ {visible(one.path)} @@")
            lines += (f"-{line}" for line in visible(one.expected).split("\n"))
            lines += (f"+{line}" for line in visible(one.actual).split("\n"))
        yield "expected and actual", "text/plain", "txt", "\n".join(lines) + "\n"
    yield from attachments_of_receipt(record.receipt)
    yield "entry", "application/json", "json", _document(record.entry)


def small_documents(record: EntryRecord) -> str | None:
    """Return receipt and entry as Markdown for a description; None if they become files.

    Files are most of a report's cost, and most entries pass. Only a passed entry without log lines
    and error, whose two documents are small together, goes without files.
    """
    receipt = record.receipt
    if record.kind != "passed" or receipt is None:
        return None
    if receipt.log or receipt.log_dropped or receipt.error is not None:
        return None
    papers = {"receipt": receipt, "entry": record.entry}
    text = "\n\n".join(
        f"**{name}**\n\n```json\n{_document(one)}\n```" for name, one in papers.items()
    )
    return text if len(text) <= _SMALL else None


def attachments_of_receipt(receipt: Receipt | None) -> Iterator[Attachment]:
    """Yield the receipt and, before it, its error and its log lines, as far as it has them."""
    if receipt is None:
        return
    if (error := receipt.error) is not None:
        texts = [f"{error.type}: {error.message}", error.traceback]
        text = "\n\n".join(visible(one) for one in texts if one)
        yield "error", "text/plain", "txt", f"{text}\n"
    if receipt.log or receipt.log_dropped:
        lines = [visible(line) for line in receipt.log]
        if receipt.log_dropped:
            lines.insert(0, f"... {plural(receipt.log_dropped, 'earlier line')} left out ...")
        yield "worker log", "text/plain", "txt", "\n".join(lines) + "\n"
    yield "receipt", "application/json", "json", _document(receipt)


def write_attachments(
    folder: Path, stem: str, mode: int, attachments: Iterator[Attachment]
) -> list[dict[str, str]]:
    """Write the attachments' files, of this mode; return what the result's JSON says of them."""
    written: list[dict[str, str]] = []
    for number, (name, mime, extension, text) in enumerate(attachments):
        source = f"{stem}-{number}-attachment.{extension}"
        write_whole(f"{folder}/{source}", text.encode("utf-8", "replace"), mode)
        written.append({"name": name, "source": source, "type": mime})
    return written


def _document(document: Document) -> str:
    return escape_hidden(document.model_dump_json(indent=2, by_alias=True, exclude_defaults=True))
