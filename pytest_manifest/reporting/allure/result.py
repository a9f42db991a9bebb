"""Make one test's result of its entry's records in the ledger, and of what it says of itself.

Describe an entry in Markdown, and attach its documents: entry, receipt, log, differences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, origin_text
from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, is_builtin, tags_of
from pytest_manifest.files import write_whole
from pytest_manifest.reporting.allure import steps
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.markdown import MOST, escaped, verbatim
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.statuses import AllureStatus
from pytest_manifest.text import escape_hidden, plural, printable, seconds, short, visible

if TYPE_CHECKING:
    from allure_commons.model2 import TestResult

    from pytest_manifest.run.run import Run

_ONE_OF = frozenset({"severity", "owner", "layer"})
"""Labels that a test has once; the test's own take precedence over its entry's."""
_ENTRY = "entry"
_EXCLUDED = ("run", "attempt", "task id", "worker", "wait", "runtime", "cost")
"""``_ENTRY`` is a parameter that identifies the test; ``_EXCLUDED`` are no part of its identity."""
VERIFIED = "verified by the test"
SUITES = ("parentSuite", "suite", "subSuite")


Result = dict[str, Any]
"""A result as it is in its file: Allure's own format."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The test that a result describes.

    ``own``: what the test has reported of itself, as a result of Allure's, with the parameters that
    identify it; ``location``: the manifest and the line; ``planned_at``: when the run was made;
    ``live``: this session has waited for the verdict; ``trees``: the step of each attempt's
    descendants, by the attempt's task id.
    """

    own: Result
    location: str
    planned_at: datetime | None
    live: bool
    run: str | None
    trees: Mapping[str, Json] = field(default_factory=dict)


_OURS = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "manifest"})
_UNWANTED = frozenset({"host", "thread", "tag"})


def other_parameters(item: pytest.Item) -> list[tuple[str, str]]:
    """Return the names and values of the test's parameters besides its entry."""
    given = _parameters(item)
    return [(name, printable(repr(value))) for name, value in given.items() if name not in _OURS]


def own_result(
    item: pytest.Item, result: TestResult, title: str, history: str, hierarchy: Sequence[str]
) -> Result:
    """Return what a test has reported of itself, by what allure-pytest has made of it.

    Labels are pairs of name and value, links are triples of type, address and name.

    ``title``: the name that is shown; ``hierarchy``: workflow, mode and task, without missing ones.
    """
    from attr import asdict

    # As allure-commons writes it.
    whole: Result = asdict(result, filter=lambda _, value: bool(value) or value is False)
    doc = None if is_builtin(item) else result.description
    identifying = [
        {"name": name, "value": visible(value)} for name, value in other_parameters(item)
    ]
    return whole | {
        "name": visible(title),
        "fullName": str(result.fullName),
        "historyId": history,
        "testCaseId": history,
        "stage": "finished",
        "titlePath": [visible(part) for part in hierarchy],
        "description": escaped(doc, MOST) if doc else None,
        "labels": _own_labels(item, result),
        "parameters": [*identifying, *_dynamic(item, result)],
        "steps": whole.get("steps", []),
        "attachments": whole.get("attachments", []),
        "links": [(str(one.type), str(one.url), str(one.name)) for one in result.links],
    }


def _dynamic(item: pytest.Item, result: TestResult) -> Iterator[Json]:
    """Yield what ``allure.dynamic.parameter`` added, which is no part of the test's identity."""
    given = _parameters(item)
    for one in result.parameters:
        if one.name not in given:
            shown: Json = {"name": visible(str(one.name)), "value": visible(str(one.value))}
            yield shown | ({"mode": one.mode} if one.mode else {}) | {"excluded": True}


def _own_labels(item: pytest.Item, result: TestResult) -> list[tuple[str, str]]:
    """Return the test's labels without those of host, thread, folders and its entry's tags."""
    from allure_pytest.utils import allure_suite_labels  # type: ignore[import-untyped]  # no types

    folders = {(str(name), str(value)) for name, value in allure_suite_labels(item)}
    tags = tags_of(item)
    return [
        (name, value)
        for name, value in ((str(one.name), str(one.value)) for one in result.labels)
        if (name, value) not in folders
        and (name not in _UNWANTED or (name == "tag" and value not in tags))
    ]


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    params: Mapping[str, Any] = {} if callspec is None else callspec.params  # can be anything
    return params


REUSED: Final = "reused"
"""The tag of tests whose entry was judged by a job of an earlier run."""


def sent_attempts(record: EntryRecord) -> list[AttemptRecord]:
    """Return the attempts that were sent: one that was only planned is none to Allure."""
    return [one for one in record.attempts if one.sent_at is not None]


def last_sent(record: EntryRecord) -> AttemptRecord | None:
    """Return the last attempt that was sent, None if none was."""
    return next(reversed(sent_attempts(record)), None)


def _of_attempt(record: EntryRecord, subject: Subject, one: AttemptRecord | None) -> Result:
    """Return the test's own result with what an attempt says of it, but status, steps and links."""
    own = subject.own
    fields = {name: value for name, value in own.items() if name != "statusDetails"}
    return {
        **fields,
        **times(one, subject),
        "description": description(record, one, subject.location, own["description"]),
        "parameters": _parameters_of(record, subject, one),
        "labels": _labels(record, subject, one),
    }


def final_result(
    record: EntryRecord,
    subject: Subject,
    issue: Callable[[str], str | None],
    write: Callable[[Iterator[Attachment]], list[dict[str, str]]],
) -> Result:
    """Return the last attempt's result.

    ``issue`` returns an issue's address; ``write`` writes attachments, and returns what a result
    says of them.
    """
    last, documents, own = last_sent(record), small_documents(record), subject.own
    result = _of_attempt(record, subject, last)
    if documents is not None:
        result["description"] += f"\n\n{documents}"
    result["status"], details = _decided(record, subject)
    result |= {"statusDetails": details} if details else {}
    result["parameters"] += [one for one in own["parameters"] if one.get("excluded")]
    result["steps"] = _all_steps(record, subject)
    links = dict.fromkeys([*own["links"], *steps.links_of(record.entry, issue)])
    result["links"] = [{"type": kind, "url": url, "name": name} for kind, url, name in links]
    written = write(attachments_of_last(record)) if documents is None else []
    result["attachments"] = [*written, *own["attachments"]]
    return result


def _parameters_of(record: EntryRecord, subject: Subject, one: AttemptRecord | None) -> list[Json]:
    """Return the parameters: the entry's id and the test's own identify it, others are excluded."""
    found: list[Json] = [{"name": _ENTRY, "value": record.id}]
    found += [one for one in subject.own["parameters"] if not one.get("excluded")]
    values: Sequence[object] = (subject.run,)
    if one is not None:
        wait, runtime = (None if t is None else seconds(t) for t in (one.wait, one.runtime))
        values = (subject.run, one.number, one.task_id, one.place, wait, runtime, one.cost)
    found += [
        {"name": name, "value": visible(str(value)), "excluded": True}
        for name, value in zip(_EXCLUDED, values, strict=False)
        if value is not None
    ]
    return found


def _labels(record: EntryRecord, subject: Subject, one: AttemptRecord | None) -> list[Json]:
    """Return the labels of test and entry, the attempt's verdict, and, if a worker had it, host and
    thread for the timeline."""
    pairs = [*subject.own["labels"]]
    has = {name for name, _ in pairs}
    if not has & set(SUITES):
        pairs += zip(SUITES, subject.own["titlePath"], strict=False)
    pairs += [pair for pair in steps.labels_of(record.entry) if pair[0] not in has & _ONE_OF]
    pairs += [("tag", visible(tag)) for tag in record.entry.tags]
    pairs += [("tag", REUSED)] if record.reused_from is not None else []
    pairs.append(("verdict", (None if one is None else one.kind) or record.kind or "pending"))
    if one is not None and one.place is not None:
        # Worker and process, short, as the host has a label of its own.
        name = (one.worker or one.host or "").removesuffix(f"@{one.host}")
        thread = name if one.pid is None else f"{name} {one.pid}"
        pairs += [("host", visible(one.host or "unknown")), ("thread", visible(thread))]
    return [{"name": name, "value": value} for name, value in dict.fromkeys(pairs)]


def times(one: AttemptRecord | None, subject: Subject) -> dict[str, int]:
    """Return when the job started and stopped, in milliseconds since the epoch.

    A stop that is not known is the moment at which a live session read the verdict, or the start.
    An attempt that was never sent has the times of its test.
    """
    began = None if one is None else one.started_at or one.received_at or one.sent_at
    start = steps.milliseconds(began)
    if one is None or start is None:
        return {"start": subject.own["start"], "stop": subject.own["stop"]}
    stop = start if one.was_found_dead else steps.milliseconds(one.finished_at)
    if stop is None:
        stop = subject.own["start"] if subject.live else start
    return {"start": start, "stop": max(start, stop)}


def _decided(record: EntryRecord, subject: Subject) -> tuple[AllureStatus, Json]:
    """Return status and details: the verdict's where it is bad, else the test's own, also where the
    test was expected to fail, or did not run."""
    kind, own = record.kind, subject.own.get("status")
    told = {**subject.own.get("statusDetails", {})}
    if kind is None:
        own = "broken" if own in ("failed", "broken") else own
    elif kind != "passed":
        status = steps.status_of(kind)
        told["message"] = steps.message_of(kind, record.sentence)
        is_expected = own == "passed" or (own == "skipped" and status != "skipped")
        own = own if is_expected else status
    details: Json = {name: visible(told[name]) for name in ("message", "trace") if told.get(name)}
    if record.verdict is not None and kind != "passed" and record.verdict.mismatches:
        differing = record.verdict.mismatches
        details["expected"] = "\n".join(visible(f"{m.path}: {m.expected}") for m in differing)
        details["actual"] = "\n".join(visible(f"{m.path}: {m.actual}") for m in differing)
    sent = sent_attempts(record)
    if len(sent) > 1 or any(one.retries for one in sent):
        details["flaky"] = True
    if own in ("failed", "broken") and steps.is_known(record.entry):
        details["known"] = True
    return own or "skipped", details


def _all_steps(record: EntryRecord, subject: Subject) -> list[Json]:
    """Return the job's steps, and the test's if it has some or fails in spite of a good verdict."""
    attempts, own = sent_attempts(record) or list(record.attempts[-1:]), subject.own
    found = steps.steps_of(attempts, subject.planned_at, subject.trees) if attempts else []
    complains = record.kind == "passed" and own.get("status") in ("failed", "broken")
    if own["steps"] or complains:
        step: Json = {"name": VERIFIED, "status": own.get("status"), "stage": "finished"}
        found.append(step | {name: own[name] for name in ("start", "stop", "steps")})
    return found


def earlier_results(
    record: EntryRecord, subject: Subject, final: Result
) -> Iterator[tuple[AttemptRecord, Result]]:
    """Yield a result for each attempt before the last: Allure shows them as its retries.

    ``final``: the last attempt's result. Allure takes the result that starts or stops last for the
    latest, so an earlier attempt's times end before the last one's start.
    """
    before = final["start"]
    for one in sent_attempts(record)[:-1]:
        result = _of_attempt(record, subject, one)
        result |= {name: min(result[name], before - 1) for name in ("start", "stop")}
        result |= {
            "status": steps.status_of(one.kind),
            "links": final["links"],
            "steps": steps.steps_of([one], subject.planned_at, subject.trees),
        }
        if one.kind != "passed":
            message = steps.message_of(one.kind, one.sentence)
            result["statusDetails"] = {"message": message, "flaky": True}
        yield one, result


_TASK: Final = re.compile(rb'"task id",\s*"value":\s*"([^"]*)"')
_END: Final = "-result.json"


def corrected_results(folder: Path, run: Run) -> Iterator[tuple[str, Result]]:
    """Yield the results in a folder of jobs whose verdict has become a bad one, with the stems of
    their files, and with its status, message and label.

    The rest of them is as the tests had it, and so is what has passed after all: an audit writes it
    again. Raises OSError, ValueError or ManifestToolError.
    """
    entries = [one.verdict.entry for one in run.corrections if one.verdict.verdict != "passed"]
    with run.read() as ledger:
        records = read_some(ledger, run.manifest, list(dict.fromkeys(entries)))
    bad = {
        last.task_id: one
        for one in records
        if one.kind not in (None, "passed") and (last := last_sent(one)) is not None
    }
    for path in sorted(folder.glob(f"*{_END}")) if bad else ():
        found = _TASK.search(path.read_bytes())
        if found is None or (record := bad.get(found[1].decode())) is None:
            continue
        result: Result = json.loads(path.read_text("utf-8"))
        is_known = record.outcome == "skipped"
        result["status"] = "skipped" if is_known else steps.status_of(record.kind)
        message = steps.message_of(record.kind, record.sentence)
        result["statusDetails"] = {**result.get("statusDetails", {}), "message": message}
        for label in result["labels"]:
            if label["name"] == "verdict":
                label["value"] = record.kind
        yield path.name.removesuffix(_END), result


# Descriptions

_WIDTH = 300


def description(
    record: EntryRecord, one: AttemptRecord | None, location: str, doc: str | None
) -> str:
    """Return the Markdown that describes one attempt at an entry.

    ``one``: the attempt, None if none was sent; ``location``: the manifest's name and the line;
    ``doc``: the test's own Markdown, which comes first.
    """
    last = one is None or one is record.last
    decided = record if one is None or last else one
    status, sentence = decided.kind, decided.sentence
    paragraphs = [*([doc] if doc else []), verbatim(_call(record.entry))]
    if sentence is not None and status != "passed":
        paragraphs.append(escaped(sentence, MOST))
    rows = [("expected", ", ".join(_expectations(record.entry)))]
    rows += [("verdict", verbatim(status))] if status is not None else []
    rows += _metadata(record, last=last)
    rows.append(("ordered at", verbatim(location)))
    paragraphs.append("\n".join(f"- **{name}** {value}" for name, value in rows))
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
