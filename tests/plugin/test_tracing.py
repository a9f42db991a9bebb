"""A run traced while it goes on: pytest, workers and what these do are one trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.otlp_receiver import Found, Receiver, receiver
from tests.plugin.conftest import JOBS, Project

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

CI = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACED = (
    JOBS
    + """

def trace_this_process():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


from celery.signals import worker_process_init


@worker_process_init.connect(weak=False)
def _begin(**_):
    trace_this_process()


@app.task(name="jobs.query")
def query(n):
    from opentelemetry import trace

    with trace.get_tracer("shop").start_as_current_span("SELECT shop"):
        return n


@app.task(name="jobs.parent")
def parent():
    query.delay(1)
"""
)
OTLP = ("-o", "manifest_otlp=env")


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector that the environment names, beside a trace of CI."""
    with receiver(tmp_path) as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        monkeypatch.setenv("TRACEPARENT", CI)
        yield found


@pytest.fixture
def traced(project: Project) -> Project:
    """A project whose workers are traced, with five entries, one of which fails."""
    project.write("jobs.py", TRACED)
    rows = [{"id": f"q-{n}", "task": "jobs.query", "args": [n]} for n in range(3)]
    rows += [{"id": "bad", "task": "jobs.fail", "args": ["no"]}]
    rows += [{"id": "tree", "task": "jobs.parent"}]
    project.manifest("m.jsonl", rows)
    return project


def ancestors(spans: dict[str, Found], of: Found) -> list[str]:
    """The names of a span's ancestors, the nearest first; the last is that of CI."""
    above = of.get("parentSpanId", "")
    if above not in spans:
        return [above]
    return [spans[above]["name"], *ancestors(spans, spans[above])]


@pytest.mark.parametrize("is_pytest_traced", [False, True])
def test_a_run_is_one_trace_from_ci_to_a_query(
    traced: Project, collector: Receiver, is_pytest_traced: bool
) -> None:
    """No span is an orphan, none comes twice; also where pytest's own messages are traced."""
    if is_pytest_traced:
        traced.write("conftest.py", "from jobs import trace_this_process\ntrace_this_process()\n")
    traced.run_process("--manifest=m.jsonl", *OTLP).assert_outcomes(passed=4, failed=1)
    found = collector.spans
    spans = {one["spanId"]: one for one in found}
    assert len(spans) == len(found)
    _, trace_id, ci, _ = CI.split("-")
    assert {one["traceId"] for one in found} == {trace_id}
    for one in found:
        assert ancestors(spans, one)[-1] == ci
    sent = ["apply_async/jobs.query"] if is_pytest_traced else []
    query = ["run/jobs.query", *sent, "send jobs.query", "RUN m.jsonl", ci]
    chains = [ancestors(spans, one) for one in found if one["name"] == "SELECT shop"]
    assert chains.count(query) == 3
    assert len(chains) == 4  # and that of the task that a job has started
    assert [one[-3] for one in chains if one != query] == ["send jobs.parent"]
    names = Counter(one["name"] for one in found)
    assert (names["RUN m.jsonl"], names["run/jobs.fail"], names["send jobs.fail"]) == (1, 1, 1)
    states = [one["value"] for one in collector.metrics if one["name"] == "manifest.run.active"]
    assert states[-1] == 0


@pytest.mark.ring(2)
def test_messages_name_no_span_unless_that_is_asked_for(
    traced: Project, collector: Receiver
) -> None:
    """Then a worker's spans are traces of their own, as in every project."""
    traced.run_process("--manifest=m.jsonl").assert_outcomes(passed=4, failed=1)
    found = collector.spans
    assert CI.split("-")[1] not in {one["traceId"] for one in found}
    assert not [one for one in found if one["name"].startswith(("RUN", "send"))]


def test_an_address_that_is_none_is_said_in_a_line(project: Project) -> None:
    project.doubles(count=1)
    result = project.run(
        "--manifest=m.jsonl", "--manifest-broker=memory://", "-o", "manifest_otlp=http://[::1"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["manifest_otlp: 'http://[[]::1' is no address of a collector; give a URL*"]
    )


@pytest.mark.ring(2)
@pytest.mark.parametrize("manner", ["hanging", "full", "away"])
def test_a_collector_that_fails_is_nothing_to_the_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    """It hangs, rejects, or is not there: a line says so, and the session passes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
    project.doubles(count=3)
    memory = "--manifest-broker=memory://"
    with receiver(tmp_path, manner if manner != "away" else "") as collector:
        endpoint = ("-o", f"manifest_otlp={collector.endpoint}")
        if manner != "away":
            result = project.run("--manifest=m.jsonl", memory, *endpoint)
    if manner == "away":
        result = project.run("--manifest=m.jsonl", memory, *endpoint)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=3)
    (line,) = [one for one in result.outlines if one.startswith("manifest_otlp: ")]
    # On a busy machine the process that sends may have just begun by then.
    assert "were not taken (" in line or "the rest is sent without pytest" in line
