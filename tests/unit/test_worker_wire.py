"""The wire format: names, digests, records, and receipts inside results."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime, timedelta, timezone

import pytest

from pytest_manifest.results import records
from pytest_manifest.schema import wire


def test_stream_key_carries_the_runs_eight_characters() -> None:
    """The stream of a run is named after the end of its id."""
    assert wire.stream_key("20261124T150000-0123abcd") == "manifest:0123abcd:receipts"


def test_timestamps_are_utc_to_the_microsecond() -> None:
    """A time of any zone is written in UTC and read back as the same instant."""
    moment = datetime(2026, 11, 24, 16, 0, 0, 5, timezone(timedelta(hours=1)))
    text = wire.timestamp(moment)
    assert text == "2026-11-24T15:00:00.000005+00:00"
    assert wire.parse_timestamp(text) == moment


@pytest.mark.parametrize("text", [None, 5, "", "yesterday", "2026-11-24T15:00:00"])
def test_what_is_no_time_is_none(text: object) -> None:
    """Anything but a time with its zone is read as None."""
    assert wire.parse_timestamp(text) is None


def test_digest_is_of_compact_sorted_json() -> None:
    """The digest is that of the documented bytes, whatever the order of keys."""
    expected = hashlib.sha256('[["é"],{"a":1,"b":[true,null]}]'.encode()).hexdigest()
    assert wire.arguments_sha256(("é",), {"b": [True, None], "a": 1}) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {"a": {1, 2}}, "\ud800"])
def test_no_digest_of_what_is_no_json(value: object) -> None:
    """What JSON cannot hold has no digest."""
    assert wire.json_sha256(value) is None


STARTED = {
    "kind": "started",
    "run": "20261124T150000-0123abcd",
    "entry": "e",
    "attempt": 1,
    "task_id": "0123abcd-1",
    "task": "add",
    "worker": "celery@host",
    "host": "host",
    "pid": 7,
    "queue": "celery",
    "sent_at": "2026-11-24T15:00:00.000000+00:00",
    "received_at": None,
    "started_at": "2026-11-24T15:00:01.000000+00:00",
    "redelivered": False,
    "retries": 2,
    "execution": "abc",
    "boot": "a boot",
    "pid_namespace": "pid:[1]",
}


def test_started_record() -> None:
    """A start is read into typed fields, its times as datetimes."""
    record = records.parse_record(STARTED)
    assert isinstance(record, records.StartedRecord)
    assert (record.execution, record.pid, record.retries) == ("abc", 7, 2)
    assert record.started_at == datetime(2026, 11, 24, 15, 0, 1, tzinfo=timezone.utc)
    assert (record.boot, record.pid_namespace) == ("a boot", "pid:[1]")


def test_finished_record() -> None:
    """An end is its execution and its receipt."""
    record = records.parse_record({"kind": "finished", "execution": "abc", "receipt": {"run": "r"}})
    assert record == records.FinishedRecord("abc", {"run": "r"})


def test_records_of_a_later_release_are_passed_over() -> None:
    """A kind that is not known is None, not an error."""
    assert records.parse_record({"kind": "heartbeat"}) is None


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "finished", "execution": "abc"},
        {"kind": "finished", "receipt": {}},
        {**STARTED, "task_id": None},
    ],
)
def test_broken_records_are_refused(record: dict[str, object]) -> None:
    """A record that says of nothing what it says is a ValueError."""
    with pytest.raises(ValueError, match="record"):
        records.parse_record(record)


def test_receipt_around_a_result() -> None:
    """A success's receipt stands beside its result, which is put into it."""
    meta = {"result": {"manifest_receipt": {"state": "succeeded"}, "manifest_result": [1]}}
    assert wire.unwrap_result(meta) == ({"state": "succeeded", "result": [1]}, [1])


def test_receipt_that_leaves_its_result_out() -> None:
    """A receipt that says that it has no result keeps none."""
    inner = {"manifest_receipt": {"state": "succeeded", "result": None}, "manifest_result": "x"}
    assert wire.unwrap_result({"result": inner}) == (inner["manifest_receipt"], "x")


def test_receipt_behind_a_traceback() -> None:
    """A failure's receipt stands behind the traceback, which can be had without it."""
    traceback = "Traceback\nValueError: no" + wire.TRACEBACK_MARK + json.dumps({"state": "failed"})
    meta = {"result": ValueError("no"), "traceback": traceback}
    assert wire.unwrap_result(meta) == ({"state": "failed"}, None)
    beside = {"result": ValueError("x"), "manifest_receipt": {"state": "failed"}}
    assert wire.unwrap_result(beside) == ({"state": "failed"}, None)
    assert wire.plain_traceback(traceback) == "Traceback\nValueError: no"


def test_receipt_without_a_traceback() -> None:
    """A killed task has no traceback of its own."""
    assert wire.plain_traceback(wire.TRACEBACK_MARK + "{}") is None


@pytest.mark.parametrize(
    ("meta", "result"),
    [
        ({"result": 3, "traceback": None}, 3),
        ({"result": {"manifest_receipt": "odd"}}, {"manifest_receipt": "odd"}),
        ({"result": ValueError("x"), "traceback": "Traceback"}, None),
        ({"result": None, "traceback": wire.TRACEBACK_MARK + "{cut"}, None),
        ({"result": object()}, None),
        ({}, None),
    ],
)
def test_plain_results_have_no_receipt(meta: dict[str, object], result: object) -> None:
    """What a worker stored that is not instrumented, or was cut off, has no receipt."""
    assert wire.unwrap_result(meta) == (None, result)


def test_tracebacks_of_others_are_left_as_they_are() -> None:
    """A traceback without a receipt is not changed."""
    assert wire.plain_traceback("Traceback\nValueError: no\n") == "Traceback\nValueError: no"
    assert wire.plain_traceback(None) is None
