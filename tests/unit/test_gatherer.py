"""Gathering, with a stream and a result store that say what the test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from pytest_manifest.gather.backend_results import PlainResult, ResultReader
from pytest_manifest.gather.gatherer import Gatherer
from pytest_manifest.gather.stream import StreamReader
from pytest_manifest.run.engine import PATIENCE, Outage
from pytest_manifest.run.flights import InFlight
from pytest_manifest.schema import Entry

RUN = "20261124T150000-0123abcd"
AWAITED = {"t-a": InFlight(RUN, Entry(id="a", task="t"), 1, sent=0.0)}


class FakeStream:
    """Hands out prepared batches, then nothing."""

    position = "9-0"

    def __init__(self, *batches: Sequence[Mapping[str, object]]) -> None:
        self.batches = list(batches)

    def read(self, block_ms: int = 0) -> Sequence[Mapping[str, object]]:
        return self.batches.pop(0) if self.batches else []

    def close(self) -> None: ...


class FakeResults:
    """A plain result store with these results."""

    def __init__(self, results: dict[str, PlainResult]) -> None:
        self.results = results

    def read(self, task_ids: Sequence[str]) -> dict[str, PlainResult]:
        return {i: r for i, r in self.results.items() if i in task_ids}

    def close(self) -> None: ...


def gatherer(stream: FakeStream, results: dict[str, PlainResult]) -> Gatherer:
    return Gatherer(cast("StreamReader", stream), cast("ResultReader", FakeResults(results)))


def finished(**fields: object) -> dict[str, object]:
    receipt = {"run": RUN, "entry": "a", "attempt": 1, "task_id": "t-a", "task": "t"}
    receipt |= {"state": "succeeded", "runtime": 0.5} | fields
    return {"kind": "finished", "execution": "x1", "receipt": receipt}


def test_a_receipt_in_the_stream_goes_before_the_plain_result() -> None:
    """Even where it stands behind more records than one reading brings."""
    other = {"kind": "a newer worker's"}
    stream = FakeStream([other, other], [other], [finished()])
    sip = gatherer(stream, {"t-a": PlainResult(state="succeeded")}).sip(AWAITED, 0)
    ((task_id, execution, receipt),) = sip.finals
    assert (task_id, execution, receipt.runtime) == ("t-a", "x1", 0.5)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "finished", "execution": "x"},
        {"kind": "started", "task_id": 3},
        finished(state="no such state"),
        finished(result=float("nan")),
    ],
)
def test_a_malformed_record_is_passed_over(bad: Mapping[str, object]) -> None:
    """The plain result still gives the job its receipt, and the others are not touched."""
    sip = gatherer(FakeStream([bad]), {"t-a": PlainResult(state="failed")}).sip(AWAITED, 0)
    ((_, _, receipt),) = sip.finals
    assert (receipt.state, receipt.source) == ("failed", "backend")


def test_a_malformed_receipt_inside_a_result_is_passed_over() -> None:
    """What the result store says by itself is used instead."""
    wrapped = PlainResult(state="succeeded", result=7, receipt={"state": "?"})
    sip = gatherer(FakeStream(), {"t-a": wrapped}).sweep_all(AWAITED)
    ((_, _, receipt),) = sip.finals
    assert (receipt.state, receipt.result, receipt.source) == ("succeeded", 7, "backend")


def test_an_outage_ends_with_the_first_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short outages, hours apart, are not one long one."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    outage = Outage()
    assert not outage.goes_on()
    clock[0] = PATIENCE + 1
    assert outage.goes_on()
    outage.over()
    assert not outage.goes_on()
