"""Removing evidence never turns red into green, and adding a claim does not either.

Each receipt goes the whole way that a record of the stream goes: read, weighed with the starts,
judged. It is then changed in one field, and in every field that there is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_manifest.results.records import ReceiptBatch, add_record
from pytest_manifest.schema import Entry, Receipt, wire
from pytest_manifest.schema.facts import Started
from tests.reports import started
from tests.rings import examples
from tests.unit.ledger_support import INFO, MOMENT
from tests.verdicts import judged

CODE, OTHER = ("py3.11:" + letter * 64 for letter in "ab")
Change = Mapping[str, Any]
EARLY = MOMENT - timedelta(hours=1)
RESULT = {"rows": [1, 2]}
TASK_ID = "t-e"


def document(**changes: Any) -> dict[str, Any]:
    """The receipt that a worker makes of a job in good order, as it stands in the stream."""
    known = {
        "receipt": 1,
        "run": INFO.run,
        "entry": "e",
        "attempt": 1,
        "task_id": TASK_ID,
        "task": "t",
        "state": "succeeded",
        "source": "worker",
        "result": RESULT,
        "worker": "w@h",
        "host": "h",
        "pid": 7,
        "queue": "celery",
        "sent_at": wire.timestamp(MOMENT),
        "received_at": wire.timestamp(MOMENT),
        "started_at": wire.timestamp(MOMENT),
        "finished_at": wire.timestamp(MOMENT + timedelta(seconds=2)),
        "wait": 0.0,
        "runtime": 2.0,
        "executions": 1,
        "code": CODE,
        "args_sha256": wire.arguments_sha256([1], {}),
        "result_sha256": wire.json_sha256(RESULT),
        "log": ["a line"],
        "cpu": 0.1,
        "max_rss": 1000,
        "evidence": {"rows": 2},
    }
    changed = known | changes
    if "result" in changes and "result_sha256" not in changes:
        changed["result_sha256"] = wire.json_sha256(changes["result"])
    return changed


def start(execution: str = "x", retries: int = 0) -> Started:
    return started(TASK_ID, execution, MOMENT, retries, "w@h", "h", 7, redelivered=False)


ERROR = {"type": "ValueError", "message": "no"}
FAILED: Change = {"state": "failed", "error": ERROR, "result": None, "result_sha256": None}
FAULTS: Mapping[str, Change] = {
    "another task": {"task": "u"},
    "other arguments": {"args_sha256": "0" * 64},
    "a swapped result": {"result": [], "result_sha256": wire.json_sha256(RESULT)},
    "a swapped digest": {"result_sha256": "0" * 64},
    "no result": {"result": None, "result_sha256": wire.json_sha256(RESULT)},
    "other code": {"code": OTHER},
    "too long": {"runtime": 31.0},
    "slow": {"runtime": 20.0},
    "waited": {"wait": 20.0},
    "sent at another time": {"sent_at": wire.timestamp(EARLY)},
    "began before it was sent": {"started_at": wire.timestamp(EARLY)},
    "ended before it was sent": {"finished_at": wire.timestamp(EARLY)},
    "another run": {"run": "20200101T000000-0badcafe"},
    "another attempt": {"attempt": 2},
    "failed": FAILED,
    "another result": {"result": {"rows": 3}},
    "nothing returned": {"result": None},
    "too large": {"result": None, "evidence": {"result_omitted": 5}, "result_sha256": "0" * 64},
    "no JSON": {"result": None, "evidence": {"result_not_json": "?"}, "result_sha256": None},
    "crashed": {"state": "crashed", "error": ERROR, "cpu": None, "runtime": None},
}
"""What is wrong with a receipt, for the entry that expects RESULT in time."""
STARTS: Mapping[str, list[Started]] = {
    "one": [start()],
    "two": [start(), start("y")],
    "another": [start("y")],
    "none": [],
}
EXPECTED: Mapping[str, Change] = {
    "result": {"result": RESULT},
    "in time": {"max_runtime": 10, "max_wait": 10},
    "nothing": {},
    "null": {"result": None},
    "schema": {"schema": {"type": "object"}},
    "failure": {"state": "failed", "error": {"type": "ValueError", "match": "^no$"}},
    "any failure": {"state": "failed"},
    "death": {"state": "crashed"},
}
CLAIMS: tuple[Change, ...] = (
    {"replaced": True},
    {"retries": 1},
    {"executions": 0},
    {"source": "backend"},
    {"source": "harness"},
    {"redelivered": True},
    {"log_dropped": 5},
    {"retried": []},
    {"evidence": {}},
    {"evidence": {"result_not_json": "a set"}},
    {"error": ERROR},
)


def kind(expect: Change, receipt: Change, starts: list[Started]) -> str:
    """The status by a record of the stream; "unread" where the harness goes on looking."""
    fields = {"id": "e", "task": "t", "args": [1], "timeout": 30.0, "expect": dict(expect)}
    entry, sip = Entry.model_validate(fields), ReceiptBatch()
    record = {"kind": "finished", "execution": "x", "receipt": dict(receipt)}
    try:
        add_record(record, sip)
    except ValueError:
        return "unread"
    ((_, execution, read),) = sip.finals
    ends = [(execution, read)]
    verdict, _ = judged(entry, ends, starts, MOMENT, run=INFO.run, task_id=TASK_ID, code=CODE)
    return verdict.verdict


def poorer(receipt: Change) -> Iterator[tuple[str, dict[str, Any]]]:
    """The receipt with one thing less, or with one claim more."""
    for name in Receipt.model_fields:
        yield f"without {name}", {key: v for key, v in receipt.items() if key != name}
        yield f"{name} null", {**receipt, name: None}
        value = receipt.get(name)
        for inner in value if isinstance(value, dict) else ():
            less = copy.deepcopy(dict(receipt))
            del less[name][inner]
            yield f"without {name}.{inner}", less
    for claim in CLAIMS:
        yield f"claiming {claim}", {**receipt, **claim}
    if receipt["result"] is not None:  # else it is what an honest worker says of a large result
        yield "claiming it large", {**receipt, "evidence": {"result_omitted": 9_000_000}}


@pytest.mark.parametrize(
    ("expect", "starts"),
    [*((expect, "one") for expect in EXPECTED), *(("nothing", starts) for starts in STARTS)],
)
def test_less_evidence_or_more_claims_turn_nothing_green(expect: str, starts: str) -> None:
    """Of every receipt with something wrong, as far as it is red."""
    tried = 0
    for fault, change in {"nothing wrong": {}, **FAULTS}.items():
        receipt = document(**change)
        if kind(EXPECTED[expect], receipt, STARTS[starts]) == "passed":
            continue
        for what, changed in poorer(receipt):
            tried += 1
            found = kind(EXPECTED[expect], changed, STARTS[starts])
            assert found != "passed", f"{fault}, {what}"
    assert tried > 500


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_several_things_less_turn_nothing_green_either(data: st.DataObject) -> None:
    """Of receipts with several faults at once, several fields removed."""
    faults = data.draw(st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3))
    receipt = document()
    for fault in faults:
        receipt |= FAULTS[fault]
    expect = EXPECTED[data.draw(st.sampled_from(sorted(EXPECTED)))]
    starts = STARTS[data.draw(st.sampled_from(sorted(STARTS)))]
    if kind(expect, receipt, starts) == "passed":
        return
    gone = data.draw(st.sets(st.sampled_from(sorted(Receipt.model_fields)), max_size=6))
    left = {key: value for key, value in receipt.items() if key not in gone}
    assert kind(expect, left, starts) != "passed", gone


def test_a_receipt_in_good_order_passes() -> None:
    """Else nothing could turn green."""
    assert kind(EXPECTED["result"], document(), STARTS["one"]) == "passed"
    assert kind(EXPECTED["failure"], document(**FAILED), STARTS["one"]) == "passed"
