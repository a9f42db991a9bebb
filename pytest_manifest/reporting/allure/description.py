"""Describe an entry in a few lines of Markdown: its call, expectations and verdict."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.reporting.allure.text import code, escaped
from pytest_manifest.schema import Entry
from pytest_manifest.verdict import short

_WIDTH = 300


def description(
    record: EntryRecord,
    one: AttemptRecord | None,
    place: str,
    doc: str | None = None,
    papers: str | None = None,
) -> str:
    """Return the Markdown that describes one attempt at an entry.

    ``one``: the attempt, None if none was sent; ``place``: the manifest's name and the line;
    ``doc``: the test's own Markdown, which comes first; ``papers``: Markdown that comes last.
    """
    last = one is None or one is record.last
    if one is None or last:
        kind = record.kind
        sentence = None if record.verdict is None else record.verdict.sentence
    else:
        kind, sentence = one.kind, one.sentence
    parts = [code(_call(record.entry))]
    if doc:
        parts.insert(0, doc)
    if sentence is not None and kind != "passed":
        parts.append(escaped(sentence))
    facts = [("expected", ", ".join(_expectations(record.entry)))]
    facts += [("verdict", code(kind))] if kind is not None else []
    facts += _facts(record, last=last)
    facts.append(("ordered at", code(place)))
    parts.append("\n".join(f"- **{name}** {value}" for name, value in facts))
    if papers is not None:
        parts.append(papers)
    return "\n\n".join(parts)


def doc_of(text: str, entry: Entry) -> str | None:
    """Return the test's own part of a description that was made of this entry, None if empty."""
    return text.partition(code(_call(entry)))[0].rstrip() or None


def _call(entry: Entry) -> str:
    given = [short(value, _WIDTH) for value in entry.args]
    given += [f"{key}={short(value, _WIDTH)}" for key, value in entry.kwargs.items()]
    return f"{entry.task}({', '.join(given)})"


def _facts(record: EntryRecord, *, last: bool) -> Iterator[tuple[str, str]]:
    entry = record.entry
    if entry.after:
        yield "after", ", ".join(code(name) for name in entry.after[:20])
    for name, value in entry.meta.items():
        yield f"meta {escaped(name)}", code(value if isinstance(value, str) else short(value))
    if last and record.error_place is not None:
        yield "raised at", code(record.error_place)


def _expectations(entry: Entry) -> Iterator[str]:
    expect = entry.expect
    yield f"state {code(expect.state)}"
    if "result" in expect.model_fields_set:
        yield f"result {code(short(expect.result, _WIDTH))}"
    if expect.result_schema is not None:
        yield f"schema {code(short(expect.result_schema, _WIDTH))}"
    if expect.error is not None:
        words = [expect.error.type or "an error"]
        words += [f"matching {expect.error.match!r}"] if expect.error.match else []
        yield f"error {code(' '.join(words))}"
    if expect.max_runtime is not None:
        yield f"at most {expect.max_runtime:g} s"
    if expect.max_wait is not None:
        yield f"a wait of at most {expect.max_wait:g} s"
