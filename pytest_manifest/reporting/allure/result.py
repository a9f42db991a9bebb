"""Make one test's result of its entry's records in the ledger, and of what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, is_builtin, tags_of
from pytest_manifest.reporting.allure.content import description
from pytest_manifest.reporting.allure.steps import (
    Json,
    is_known,
    labels_of,
    links_of,
    message_of,
    milliseconds,
    status_of,
    steps_of,
)
from pytest_manifest.reporting.markdown import MOST, escaped
from pytest_manifest.schema.statuses import AllureStatus, VerdictStatus
from pytest_manifest.text import printable, seconds, visible

if TYPE_CHECKING:
    from allure_commons.model2 import TestResult

_ONE_OF = frozenset({"severity", "owner", "layer"})
"""Labels that a test has once; the test's own take precedence over its entry's."""
OF_AN_ATTEMPT = frozenset({"verdict", "host", "thread"})
_AGAIN = "a late receipt has made it good since, and the test was not run again"
ENTRY = "entry"
EXCLUDED = ("run", "attempt", "task id", "worker", "wait", "runtime", "cost")
"""``ENTRY`` is a parameter that identifies the test; ``EXCLUDED`` are no part of its identity."""
VERIFIED = "verified by the test"
_SUITES = ("parentSuite", "suite", "subSuite")


Label = dict[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """The test that a result describes.

    ``hierarchy``: workflow, mode and task, without missing ones; ``location``: the manifest and the
    line; ``title``: the name that is shown; ``builtin``: the test verifies the verdict alone;
    ``planned_at``: when the run was made; ``live``: this session has waited for the verdict;
    ``others``: further parameters of the test; ``trees``: the step of each attempt's descendants,
    by the attempt's task id.
    """

    history: str
    full_name: str
    title: str
    hierarchy: Sequence[str]
    location: str
    builtin: bool
    planned_at: datetime | None
    live: bool
    others: Sequence[tuple[str, str]]
    run: str | None
    trees: Mapping[str, Json] = field(default_factory=dict)


_OURS = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "manifest"})
_UNWANTED = frozenset({"host", "thread", "tag"})


@dataclass(frozen=True, slots=True)
class OwnReport:
    """A test's own report of itself.

    ``start`` and ``stop``: of the test itself, in milliseconds since the epoch; ``verdict_read``:
    by the test; ``doc``: its description in Markdown; ``html``: HTML to show instead.
    """

    status: AllureStatus | None
    message: str | None
    trace: str | None
    start: int
    stop: int
    verdict_read: VerdictStatus | None
    doc: str | None
    html: str | None
    labels: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str, str]]
    parameters: Sequence[Json]
    steps: Sequence[object]
    attachments: Sequence[object]


def other_parameters(item: pytest.Item) -> list[tuple[str, str]]:
    """Return the names and values of the test's parameters besides its entry."""
    given = _parameters(item)
    return [(name, printable(repr(value))) for name, value in given.items() if name not in _OURS]


def own_report(item: pytest.Item, result: TestResult) -> OwnReport:
    """Return what a test has reported of itself, by what allure-pytest has made of it."""
    details = result.statusDetails
    doc = None if is_builtin(item) else result.description
    message, trace = (None, None) if details is None else (details.message, details.trace)
    return OwnReport(
        status=result.status,
        message=message,
        trace=trace,
        start=result.start,
        stop=result.stop,
        verdict_read=_verdict_read(item),
        doc=escaped(doc, MOST) if doc else None,
        html=result.descriptionHtml,
        labels=_own_labels(item, result),
        links=[(str(one.type), str(one.url), str(one.name)) for one in result.links],
        parameters=list(_dynamic(item, result)),
        steps=[_dict(one) for one in result.steps],
        attachments=[_dict(one) for one in result.attachments],
    )


def _verdict_read(item: pytest.Item) -> VerdictStatus | None:
    """Return the verdict that the test has read; a late receipt may have changed it since."""
    for name, value in item.user_properties:
        if name == "manifest_verdict":
            return value  # type: ignore[return-value]  # properties are of any type
    return None


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
        pair
        for pair in ((str(one.name), str(one.value)) for one in result.labels)
        if pair not in folders
        and (pair[0] not in _UNWANTED or (pair[0] == "tag" and pair[1] not in tags))
    ]


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    params: Mapping[str, Any] = {} if callspec is None else callspec.params  # can be anything
    return params


def _dict(thing: object) -> object:
    """Return a step or an attachment as allure-commons writes it."""
    from attr import asdict

    fields: object = asdict(thing, filter=lambda _, value: bool(value) or value is False)  # type: ignore[arg-type]  # allure ships no types
    return fields


REUSED: Final = "reused"
"""The tag of tests whose entry was judged by a job of an earlier run."""


def sent_attempts(record: EntryRecord) -> list[AttemptRecord]:
    """Return the attempts that were sent: one that was only planned is none to Allure."""
    return [one for one in record.attempts if one.sent_at is not None]


def last_sent(record: EntryRecord) -> AttemptRecord | None:
    """Return the last attempt that was sent, None if none was."""
    sent = sent_attempts(record)
    return sent[-1] if sent else None


def base_fields(
    record: EntryRecord,
    subject: Subject,
    report: OwnReport,
    one: AttemptRecord | None,
    documents: str | None = None,
) -> Json:
    """Return the fields that name and describe a test; ``documents``: Markdown of its receipt."""
    fields: Json = {
        "name": visible(subject.title),
        "fullName": subject.full_name,
        "historyId": subject.history,
        "testCaseId": subject.history,
        "titlePath": [visible(part) for part in subject.hierarchy],
        "stage": "finished",
        "description": description(record, one, subject.location, report.doc, documents),
    }
    if report.html:
        fields["descriptionHtml"] = report.html
    return fields


def final_result(
    record: EntryRecord,
    subject: Subject,
    report: OwnReport,
    last: AttemptRecord | None,
    issue: Callable[[str], str | None],
    documents: str | None,
) -> Json:
    """Return the last attempt's result but attachments; ``issue`` returns an issue's address."""
    result = base_fields(record, subject, report, last, documents) | times(last, subject, report)
    status, message, trace = _decided(record, subject, report)
    result["status"] = status
    if details := _details(record, status, message, trace):
        result["statusDetails"] = details
    result["parameters"] = [*parameters(record, subject, last), *report.parameters]
    result["steps"] = all_steps(record, subject, report)
    result["labels"] = labels(record, subject, last, report.labels)
    result["links"] = links(record, issue, report.links)
    return result


def parameters(record: EntryRecord, subject: Subject, one: AttemptRecord | None) -> list[Json]:
    """Return the parameters: the entry's id and the test's own identify it, others are excluded."""
    found: list[Json] = [{"name": ENTRY, "value": record.id}]
    found += [{"name": name, "value": visible(value)} for name, value in subject.others]
    values: Sequence[object] = (subject.run,)
    if one is not None:
        wait, runtime = (None if t is None else seconds(t) for t in (one.wait, one.runtime))
        values = (subject.run, one.number, one.task_id, one.place, wait, runtime, one.cost)
    found += [
        {"name": name, "value": visible(str(value)), "excluded": True}
        for name, value in zip(EXCLUDED, values, strict=False)
        if value is not None
    ]
    return found


def labels(
    record: EntryRecord,
    subject: Subject,
    one: AttemptRecord | None,
    given: Iterable[tuple[str, str]] = (),
) -> list[Label]:
    """Return the labels of a result; ``given``: the test's own."""
    pairs = list(dict.fromkeys(given))
    has = {name for name, _ in pairs}
    if not has & set(_SUITES):
        pairs += zip(_SUITES, map(visible, subject.hierarchy), strict=False)
    pairs += [pair for pair in labels_of(record.entry) if pair[0] not in has & _ONE_OF]
    pairs += [("tag", visible(tag)) for tag in record.entry.tags]
    pairs += [("tag", REUSED)] if record.reused_from is not None else []
    unique = [{"name": name, "value": value} for name, value in dict.fromkeys(pairs)]
    return [*unique, *_attempt_labels(record, one)]


def _attempt_labels(record: EntryRecord, one: AttemptRecord | None) -> list[Label]:
    """Return the attempt's verdict, and host and thread in the timeline if a worker had it."""
    found = {"verdict": str((None if one is None else one.kind) or record.kind or "pending")}
    if one is not None and one.place is not None:
        found |= {"host": visible(one.host or "unknown"), "thread": visible(_thread(one))}
    return [{"name": name, "value": value} for name, value in found.items()]


def links(
    record: EntryRecord,
    pattern: Callable[[str], str | None],
    given: Iterable[tuple[str, str, str]] = (),
) -> list[Json]:
    """Return the links of a result; ``given``: type, address and name of the test's own."""
    found = dict.fromkeys([*given, *links_of(record.entry, pattern)])
    return [{"type": kind, "url": url, "name": name} for kind, url, name in found]


def times(one: AttemptRecord | None, subject: Subject, report: OwnReport) -> dict[str, int]:
    """Return when the job started and stopped, in milliseconds since the epoch.

    A stop that is not known is the moment at which a live session read the verdict, or the start.
    An attempt that was never sent has the times of its test.
    """
    start = None if one is None else milliseconds(one.started_at or one.received_at or one.sent_at)
    if one is None or start is None:
        return {"start": report.start, "stop": report.stop}
    stop = start if one.was_found_dead else milliseconds(one.finished_at)
    if stop is None:
        stop = report.start if subject.live else start
    return {"start": start, "stop": max(start, stop)}


def _decided(
    record: EntryRecord, subject: Subject, report: OwnReport
) -> tuple[AllureStatus, str | None, str | None]:
    """Return status, message and trace: the verdict's where it is bad or corrected, else the
    test's own, also where the test was expected to fail, or did not run."""
    kind, own, message, trace = record.kind, report.status, report.message, report.trace
    # A late receipt has changed the verdict that the test has read.
    is_corrected = kind is not None and report.verdict_read not in (None, kind)
    if kind is None:
        own = "broken" if own in ("failed", "broken") else own
    elif kind != "passed":
        status, message = status_of(kind), message_of(kind, record.sentence)
        if is_corrected:
            return status, message, None
        is_expected = own == "passed" or (own == "skipped" and status != "skipped")
        own = own if is_expected else status
    elif is_corrected and subject.builtin:
        return "passed", None, None
    elif is_corrected:
        message = f"corrected: when this test ran, its job was held for {report.verdict_read}; "
        message += _AGAIN
    return own or "skipped", message, trace


def _details(
    record: EntryRecord, status: AllureStatus, message: str | None, trace: str | None
) -> Json:
    details: Json = {}
    if record.verdict is not None and record.kind != "passed" and record.verdict.mismatches:
        differing = record.verdict.mismatches
        details["expected"] = "\n".join(visible(f"{m.path}: {m.expected}") for m in differing)
        details["actual"] = "\n".join(visible(f"{m.path}: {m.actual}") for m in differing)
    details |= {
        name: visible(text) for name, text in (("message", message), ("trace", trace)) if text
    }
    sent = sent_attempts(record)
    if len(sent) > 1 or any(one.retries for one in sent):
        details["flaky"] = True
    if status in ("failed", "broken") and is_known(record.entry):
        details["known"] = True
    return details


def all_steps(record: EntryRecord, subject: Subject, report: OwnReport) -> list[Json]:
    """Return the job's steps, and the test's if it has some or fails in spite of a good verdict."""
    attempts = sent_attempts(record) or list(record.attempts[-1:])
    steps = steps_of(attempts, subject.planned_at, subject.trees) if attempts else []
    complains = record.kind == "passed" and report.status in ("failed", "broken")
    if report.steps or complains:
        step: Json = {"name": VERIFIED, "status": report.status, "stage": "finished"}
        steps.append(
            step | {"start": report.start, "stop": report.stop, "steps": list(report.steps)}
        )
    return steps


def earlier_results(
    record: EntryRecord, subject: Subject, report: OwnReport, final: Json
) -> Iterator[tuple[AttemptRecord, Json]]:
    """Yield a result for each attempt before the last: Allure shows them as its retries.

    ``final``: the last attempt's result. Allure takes the result that starts or stops last for the
    latest, so an earlier attempt's times end before the last one's start.
    """
    before, given = final["start"], final["labels"]
    assert isinstance(before, int)
    assert isinstance(given, list)
    kept = [label for label in given if label["name"] not in OF_AN_ATTEMPT]
    for one in sent_attempts(record)[:-1]:
        status = status_of(one.kind)
        took = times(one, subject, report)
        result = base_fields(record, subject, report, one)
        result |= {name: min(moment, before - 1) for name, moment in took.items()}
        result |= {
            "status": status,
            "parameters": parameters(record, subject, one),
            "labels": [*kept, *_attempt_labels(record, one)],
            "links": final["links"],
            "steps": steps_of([one], subject.planned_at, subject.trees),
        }
        if status != "passed":
            message = visible(message_of(one.kind, one.sentence))
            result["statusDetails"] = {"message": message, "flaky": True}
        yield one, result


def _thread(one: AttemptRecord) -> str:
    """Return worker and process, short for Allure's timeline; the host has a label of its own."""
    name = (one.worker or one.host or "").removesuffix(f"@{one.host}")
    return name if one.pid is None else f"{name} {one.pid}"
