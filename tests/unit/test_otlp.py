"""OpenTelemetry: the names of spans, what a run's spans say, and how a collector gets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv import schemas
from opentelemetry.semconv._incubating.attributes import (
    cicd_attributes,
    code_attributes,
    error_attributes,
    exception_attributes,
    messaging_attributes,
    service_attributes,
    test_attributes,
)

from pytest_manifest.analysis.metrics import METRICS
from pytest_manifest.broker.message_spans import publishing
from pytest_manifest.cli import telemetry
from pytest_manifest.cli.telemetry import Follower
from pytest_manifest.errors import StackError
from pytest_manifest.ledger.run_info import TRACE
from pytest_manifest.reporting.otlp import conventions
from pytest_manifest.reporting.otlp.collector import Collector, _rejected
from pytest_manifest.schema import tracing
from pytest_manifest.schema.tracing import RunTrace, SpanContext, trace_note
from tests.otlp_receiver import Found, Receiver, parsed, receiver, rows
from tests.unit.cli_support import as_json, manifest, refusal
from tests.unit.following_support import MadeRun

PUBLISHED = (
    *(cicd_attributes, code_attributes, error_attributes, exception_attributes),
    *(messaging_attributes, service_attributes, test_attributes),
)
CI = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeRun]:
    """A run of four entries: e0 passed, e1 failed, e2 was retried, e3 was not sent."""
    monkeypatch.chdir(tmp_path)
    made = MadeRun(tmp_path, monkeypatch, entries=4)
    made.ledger.info.set_meta(TRACE, json.dumps({"parent": CI}))
    made.do("e0", runtime=0.5)
    made.after(2)
    made.do("e1", status="failed", error="refused")
    made.send("e2")
    made.start("e2")
    made.again("e2", 2)
    made.after(2)
    made.send("e2", attempt=2)
    made.start("e2", attempt=2)
    made.judge("e2", attempt=2)
    yield made
    made.close()


def exported(text: str) -> list[Found]:
    """What lines of OTLP's JSON hold, each read by the published messages."""
    found: list[Found] = []
    for line in text.splitlines():
        kind = "metrics" if "resourceMetrics" in line else "traces"
        found += rows(parsed(f"/v1/{kind}", line.encode(), "application/json"))
    return found


def spans_of(found: list[Found]) -> dict[str, Found]:
    """Spans by what they are of: an entry's id, or "run"."""
    named = [one for one in found if one["signal"] == "span"]
    by_name = {one["attributes"].get("test.case.name", "run"): one for one in named}
    assert len(by_name) == len(named)
    return by_name


def test_each_name_is_of_the_conventions() -> None:
    """Those that are not our own, the version they are of, and the words of results."""
    published = {
        value
        for module in PUBLISHED
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {
        value
        for name, value in vars(conventions).items()
        if name.isupper() and isinstance(value, str) and "." in value and name != "SCHEMA_URL"
    }
    assert {one for one in ours if not one.startswith("manifest.")} <= published
    assert conventions.SCHEMA_URL in {one.value for one in schemas.Schemas}
    results = cicd_attributes.CicdPipelineResultValues
    statuses = test_attributes.TestSuiteRunStatusValues
    for result, status in conventions.RESULTS.values():
        assert result in {one.value for one in results}
        assert status in {one.value for one in statuses}
    cases = {one.value for one in test_attributes.TestCaseResultStatusValues}
    assert set(conventions.CASE_RESULTS.values()) == cases
    assert cicd_attributes.CicdPipelineActionNameValues.RUN.value == conventions.RUN


def test_a_run_is_one_trace_below_that_of_ci(run: MadeRun) -> None:
    """Each entry's span is a child of the run's, and says what became of it."""
    run.stop("stopped")
    found = spans_of(exported(manifest("export", "last", "-f", "otlp")))
    assert set(found) == {"run", "e0", "e1", "e2", "e3"}
    parent = SpanContext.parse(CI)
    assert parent is not None
    assert {one["traceId"] for one in found.values()} == {parent.trace_id}
    root = found.pop("run")
    assert root["parentSpanId"] == parent.span_id
    assert root["attributes"]["cicd.pipeline.result"] == "cancellation"
    assert {one["parentSpanId"] for one in found.values()} == {root["spanId"]}
    assert [one["status"].get("code") for one in found.values()] == [
        *("STATUS_CODE_OK", "STATUS_CODE_ERROR", "STATUS_CODE_OK"),
        None,
    ]
    assert found["e1"]["attributes"]["error.type"] == "Refused"
    assert found["e1"]["attributes"]["test.case.result.status"] == "fail"
    names = [one["name"] for one in found["e2"]["events"]]
    assert names.count("manifest.sent") == 2
    assert [one["name"] for one in found["e1"]["events"]][-1] == "exception"
    began, ended = (int(found["e2"][f"{one}TimeUnixNano"]) for one in ("start", "end"))
    assert ended - began == 2_000_000_000
    assert "test.case.result.status" not in found["e3"]["attributes"]


def test_metrics_are_exported_with_spans(run: MadeRun) -> None:
    """By the names and units of the one table."""
    run.stop("stopped")
    every = exported(manifest("export", "last", "-f", "otlp"))
    found = [one for one in every if one["signal"] == "metric"]
    known = {one.name: one.unit for one in METRICS}
    assert {one["name"]: one["unit"] for one in found}.items() <= known.items()
    verdicts = [one for one in found if one["name"] == "manifest.run.verdicts"]
    counts = {one["status"]: one["value"] for one in verdicts}
    assert counts == {"passed": 2, "failed": 1}
    assert {one["manifest"] for one in found} == {"m.jsonl"}


def test_of_a_large_run_each_entry_has_a_trace(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a link to the run's; of those that did not fail a share is kept."""
    monkeypatch.setattr(tracing, "MOST_CHILDREN", 3)
    run.ledger.info.set_meta(TRACE, json.dumps({"parent": CI, "share": 0.0}))
    run.stop()
    found = spans_of(exported(manifest("export", "last", "-f", "otlp")))
    assert set(found) == {"run", "e1"}
    assert "parentSpanId" not in found["e1"]
    (link,) = found["e1"]["links"]
    assert link["spanId"] == found["run"]["spanId"]
    assert link["traceId"] == found["run"]["traceId"] != found["e1"]["traceId"]
    run.ledger.info.set_meta(TRACE, json.dumps({"share": 1.0}))
    found = spans_of(exported(manifest("export", "last", "-f", "otlp")))
    assert len({one["traceId"] for one in found.values()}) == 5


def test_a_share_of_many_traces_is_kept() -> None:
    """Some 1,000 of a run's, unless the environment says how many; of CI's unsampled trace none."""
    trace = RunTrace("r", 20_000)
    kept = sum(trace.of(f"e{n}").is_sampled for n in range(20_000))
    assert 850 < kept < 1150
    assert not any(RunTrace("r", 20_000, share=0.0).of(f"e{n}").is_sampled for n in range(100))
    parent = SpanContext.parse(CI[:-1] + "0")
    assert not RunTrace("r", 3, parent).of("e0").is_sampled


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (CI, True),
        (CI.replace("00-0af", "cc-0af") + "-more", True),
        (CI.replace("00-0af", "ff-0af"), False),
        (CI.upper(), False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("", False),
    ],
)
def test_a_traceparent_is_read_as_its_standard_says(text: str, is_one: bool) -> None:
    """W3C Trace Context, level 1; what is none is as if it were not there."""
    found = SpanContext.parse(text)
    assert (found is not None) == is_one
    note = trace_note({"TRACEPARENT": text})
    assert note == (json.dumps({"parent": str(found)}) if found else "")
    if text == CI:
        assert str(found) == CI


@pytest.mark.parametrize(("given", "share"), [("0.25", 0.25), ("7", 1.0), ("many", None)])
def test_the_environment_says_how_many_traces_are_kept(given: str, share: float | None) -> None:
    """As of OpenTelemetry's own samplers."""
    note = trace_note({"OTEL_TRACES_SAMPLER_ARG": given})
    assert RunTrace.noted("r", 5_000, note).share == share


def test_an_export_is_sent_to_a_collector(run: MadeRun, tmp_path: Path) -> None:
    """Which may be busy at first."""
    run.stop("stopped")
    with receiver(tmp_path, "busy") as collector:
        told = as_json("export", "last", "--format=otlp", f"--endpoint={collector.endpoint}")
        assert (told["file"], told["format"]) == (collector.endpoint, "otlp")
        assert len(collector.spans) == 5
        assert {one["name"] for one in collector.metrics} >= {"manifest.run.verdicts"}


def test_what_a_collector_does_not_take_is_told(run: MadeRun, tmp_path: Path) -> None:
    """It rejects some, is not there, or is no collector."""
    run.stop("stopped")
    to = ("export", "last", "--format=otlp")
    with receiver(tmp_path, "full") as collector:
        text = refusal(*to, f"--endpoint={collector.endpoint}")
        assert "it rejected 2 of them: no room" in text
        text = refusal(*to, f"--endpoint={collector.endpoint}/other")
        assert "it answered 400" in text
    text = refusal(*to, f"--endpoint={collector.endpoint}")
    assert "see whether a collector listens there" in text


def test_who_takes_protobuf_alone_is_sent_that(
    run: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the extra; one that shows traces and has no place for metrics is sent these alone."""
    run.stop("stopped")
    to = ("export", "last", "--format=otlp")
    with receiver(tmp_path, "protobuf") as collector:
        said = manifest(*to, f"--endpoint={collector.endpoint}")
        assert said.endswith(f"sent to {collector.endpoint}, which takes no metrics\n")
        assert spans_of(collector.spans) == spans_of(exported(manifest(*to)))
        monkeypatch.setitem(sys.modules, "google.protobuf.json_format", None)
        text = refusal(*to, f"--endpoint={collector.endpoint}")
        assert "it takes protobuf alone: pip install 'pytest-celery-manifest[otel]'" in text


@pytest.mark.parametrize("endpoint", ["http://[::1", "localhost:4318", "ftp://x", "http://a:b"])
def test_what_is_no_address_of_a_collector_is_refused(run: MadeRun, endpoint: str) -> None:
    run.stop("stopped")
    text = refusal("export", "last", "--format=otlp", f"--endpoint={endpoint}")
    assert "is no address of a collector; give a URL like http://localhost:4318" in text


def test_what_is_rejected_in_protobuf_is_told(run: MadeRun, tmp_path: Path) -> None:
    run.stop("stopped")
    with receiver(tmp_path, "protobuf-full") as collector:
        to = ("export", "last", "--format=otlp", f"--endpoint={collector.endpoint}")
        assert "it rejected 2 of them: no room" in refusal(*to)


@pytest.mark.parametrize(("number", "said"), [("0", ""), (0, ""), ("2", "2"), ("x", "x")])
def test_what_a_collector_says_of_a_part_is_read_whatever_it_is(number: object, said: str) -> None:
    """A warning alone rejects nothing, and a number that is none is no crash."""
    answer = {"partialSuccess": {"rejectedSpans": number, "errorMessage": "slow"}}
    assert _rejected(answer) == (said and f"it rejected {said} of them: slow")  # type: ignore[arg-type]  # JSON


def test_headers_are_those_of_the_environment() -> None:
    """Credentials, say, which no file has."""
    given = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc, x-tenant=a=b"}
    found = Collector("http://localhost:4318", given)._headers
    assert found == {"authorization": "Bearer abc", "x-tenant": "a=b"}


# While a run goes on


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(telemetry.METRICS_INTERVAL, "0")
    with receiver(tmp_path) as found:
        yield found


def test_spans_come_as_entries_are_judged(run: MadeRun, collector: Receiver) -> None:
    """Each once; what has no verdict, and the run, at the end: the same as an export has."""
    follower = Follower(Collector(collector.endpoint))
    follower.add(run.path)
    follower.look()
    assert spans_of(collector.spans).keys() == {"e0", "e1", "e2"}
    follower.look()
    run.do("e3")
    follower.look()
    run.stop()
    follower.end()
    assert follower.error == ""
    live = spans_of(collector.spans)
    after = spans_of(exported(manifest("export", "last", "-f", "otlp")))
    assert live.keys() == after.keys() == {"e0", "e1", "e2", "e3", "run"}
    for name, one in after.items():
        assert {key: live[name].get(key) for key in one} == one
    states = [one for one in collector.metrics if one["name"] == "manifest.run.active"]
    assert [one["value"] for one in states] == [1, 1, 1, 0]


def test_a_run_that_is_taken_up_again_sends_what_is_new(run: MadeRun, collector: Receiver) -> None:
    """And a span for that stretch, below the first one's."""
    run.stop("stopped")
    run.after(60)
    run.begin()
    run.after(1)
    follower = Follower(Collector(collector.endpoint))
    follower.add(run.path)
    run.ledger.info.set_status("running")
    run.do("e3")
    run.stop()
    follower.end()
    found = spans_of(collector.spans)
    assert found.keys() == {"e3", "run"}
    assert found["run"]["parentSpanId"] == found["e3"]["parentSpanId"]
    began = int(found["run"]["startTimeUnixNano"])
    assert int(found["e3"]["startTimeUnixNano"]) - began == 1_000_000_000


def test_an_entry_that_is_judged_again_has_one_span(run: MadeRun, collector: Receiver) -> None:
    """A correction is in a later export."""
    follower = Follower(Collector(collector.endpoint))
    follower.add(run.path)
    follower.look()
    run.infer("e0", "unknown")
    follower.look()
    run.stop()
    follower.end()
    names = [one["attributes"].get("test.case.name") for one in collector.spans]
    assert names.count("e0") == 1
    assert spans_of(exported(manifest("export", "last", "-f", "otlp")))["e0"]["status"][
        "code"
    ].endswith("ERROR")


def test_what_goes_on_without_pytest_is_left_to_an_export(
    run: MadeRun, collector: Receiver
) -> None:
    """What is open in a detached run has no span yet; pytest's own time has one."""
    follower = Follower(Collector(collector.endpoint))
    follower.add(run.path)
    run.send("e3")
    run.stop("detached")
    follower.end()
    assert spans_of(collector.spans).keys() == {"e0", "e1", "e2", "run"}


def test_of_a_trace_that_ci_does_not_keep_there_are_no_spans(
    run: MadeRun, collector: Receiver
) -> None:
    """They would be orphans; an export that somebody asks for has them."""
    run.ledger.info.set_meta(TRACE, json.dumps({"parent": CI[:-1] + "0"}))
    follower = Follower(Collector(collector.endpoint))
    follower.add(run.path)
    run.stop()
    follower.end()
    assert collector.spans == []
    assert collector.metrics != []
    assert len(spans_of(exported(manifest("export", "last", "-f", "otlp")))) == 5


def test_spans_wait_for_a_collector(
    run: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did not take comes later; what never came is told."""
    monkeypatch.setenv(telemetry.METRICS_INTERVAL, "0")
    taken: list[str] = []

    class Shaky(Collector):
        is_there = False

        def send(self, signal: str, document: object) -> None:
            if not self.is_there:
                raise StackError("nobody is there")
            taken.append(signal)

    shaky = Shaky("http://localhost:1")
    follower = Follower(shaky)
    follower.add(run.path)
    follower.look()
    assert (follower.error, follower.sent) == ("nobody is there", 0)
    shaky.is_there = True
    follower.look()
    assert (follower.error, follower.sent) == ("", 3)
    shaky.is_there = False
    run.do("e3")
    run.stop()
    follower.end()
    assert follower.error == "nobody is there; 2 spans lost"


# Beside OpenTelemetry's own instrumentation


def test_a_span_that_is_left_open_is_ended() -> None:
    """As the instrumentation leaves it of a task that this process does not have."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("t")
    before = trace.get_current_span()
    for _ in range(2):
        with publishing({"headers": {"traceparent": CI}}):
            left = trace.use_span(tracer.start_span("apply_async/t"), end_on_exit=True)
            left.__enter__()
        assert trace.get_current_span() is before
    found = exporter.get_finished_spans()
    assert len(found) == 2
    parents = {one.parent.span_id for one in found if one.parent is not None}
    assert [f"{one:016x}" for one in parents] == [CI.split("-")[2]]


def test_what_names_no_span_is_published_as_it_is() -> None:
    """In whatever span of others it is."""
    tracer = TracerProvider().get_tracer("t")
    with tracer.start_as_current_span("theirs") as theirs:
        for options in ({}, {"headers": None}, {"headers": {"x": "1"}}):
            with publishing(options):
                assert trace.get_current_span() is theirs
