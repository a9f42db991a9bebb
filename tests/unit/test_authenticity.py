"""Receipts that lie, and honest ones that must never be taken for liars."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import new_run_id, task_id_for
from pytest_manifest.results import records
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.results.collector import backend_receipt
from pytest_manifest.schema import Entry, Receipt, wire
from pytest_manifest.verdict.belief import CLOCK_TOLERANCE
from pytest_manifest.worker.job import RunMeasures, delivery_of
from pytest_manifest.worker.receipt import (
    TaskResult,
    failed,
    finished_record,
    receipt_document,
    succeeded,
)
from pytest_manifest.worker.spool import TaskOutput
from tests.reasons import noted, phrase
from tests.verdicts import evaluate, lie_of

SENT_AT = datetime(2026, 11, 24, 15, 0, 0, 123456, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Sending:
    """One sending of an entry, as the ledger knows it."""

    entry: Entry
    run: str
    task_id: str
    attempt: int
    sent_at: datetime | None = SENT_AT
    set_back: timedelta = timedelta()

    def lie(self, receipt: Receipt) -> str:
        """What is said of a receipt that came for it."""
        why = lie_of(
            self.entry,
            receipt,
            run=self.run,
            task_id=self.task_id,
            attempt=self.attempt,
            sent_at=self.sent_at,
            set_back=self.set_back,
        )
        return phrase(why)

    def honest(self, ending: TaskResult, finished_at: datetime = SENT_AT) -> Receipt:
        """The receipt that an instrumented worker makes, after its way through JSON."""
        headers = {
            "id": self.task_id,
            "task": self.entry.task,
            "hostname": "celery@w1",
            wire.HEADER_RUN: self.run,
            wire.HEADER_ENTRY: self.entry.id,
            wire.HEADER_ATTEMPT: self.attempt,
            wire.HEADER_SENT_AT: self.sent_at and wire.timestamp(self.sent_at),
        }
        facts = delivery_of(Context(headers))
        assert facts is not None
        args, kwargs = json.loads(json.dumps([self.entry.args, self.entry.kwargs]))
        digest = wire.arguments_sha256(tuple(args), kwargs)
        ran = RunMeasures(
            started_at=wire.timestamp(SENT_AT), finished_at=wire.timestamp(finished_at)
        )
        document = receipt_document(facts, ending, ran, TaskOutput(), digest, "py3.11:" + "0" * 64)
        record = records.parse_record(json.loads(finished_record("x", document)))
        assert isinstance(record, records.FinishedRecord)
        receipt = Receipt.model_validate(record.receipt)
        return Receipt.model_validate_json(receipt.model_dump_json())  # as the ledger keeps it


def sending(entry: Entry, attempt: int = 1) -> Sending:
    """A sending of it in a new run."""
    run = new_run_id()
    return Sending(entry, run, task_id_for(run, entry.id, attempt), attempt)


def altered(receipt: Receipt, **fields: object) -> Receipt:
    """The receipt with some fields changed on its way."""
    return Receipt.model_validate({**receipt.model_dump(), **fields})


ENTRY = Entry(id="e-1", task="tasks.crud.work", args=[1, 2.0], kwargs={"data": {"b": 1, "a": None}})
SENDING = sending(ENTRY)
HONEST = SENDING.honest(succeeded({"rows": [1, 2]}))

names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"), max_size=9)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
# What tasks return: also tuples, numbers as keys, and things that JSON does not have.
results = st.recursive(
    scalars | st.dates() | st.decimals() | st.binary(max_size=4) | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(), inner, max_size=4)
        | st.dictionaries(st.floats(allow_infinity=False, allow_nan=False), inner, max_size=4)
        | st.dictionaries(st.booleans() | st.none(), inner, max_size=2)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
entries = st.builds(
    Entry,
    id=names,
    task=names,
    args=st.lists(json_values, max_size=3),
    kwargs=st.dictionaries(names, json_values, max_size=3),
)
sendings = st.builds(sending, entries, st.integers(1, 9))
endings = results.map(succeeded) | st.text(max_size=9).map(lambda text: failed(ValueError(text)))


@given(sendings, endings)
def test_an_honest_receipt_is_never_doubted(one: Sending, ending: TaskResult) -> None:
    """Whatever the entry, its arguments and the task's result are."""
    assert one.lie(one.honest(ending)) == ""


@pytest.mark.parametrize("levels", [99, 100, 101, 300])
def test_a_result_too_deep_for_a_receipt_is_no_lie(levels: int) -> None:
    """A receipt without its result, because no receipt can hold it, is honest about that."""
    deep: object = 1
    for _ in range(levels):
        deep = [deep]
    assert SENDING.lie(SENDING.honest(succeeded(deep))) == ""
    assert SENDING.lie(SENDING.honest(succeeded({1: deep}))) == ""


@given(sendings, sendings, endings, st.data())
def test_any_fact_of_another_sending_is_noticed(
    one: Sending, other: Sending, ending: TaskResult, data: st.DataObject
) -> None:
    """One field of the receipt's identity, taken from another receipt, gives it away."""
    mine, theirs = one.honest(ending), other.honest(ending)
    facts = ["run", "entry", "attempt", "task_id", "task", "args_sha256"]
    name = data.draw(st.sampled_from(facts))
    assume(getattr(mine, name) != getattr(theirs, name))
    assert one.lie(altered(mine, **{name: getattr(theirs, name)})) != ""


@given(results, results)
def test_a_swapped_result_is_noticed(mine: object, theirs: object) -> None:
    """Where the worker made a digest of the result, no other result passes."""
    one, other = SENDING.honest(succeeded(mine)), SENDING.honest(succeeded(theirs))
    assume(one.result_sha256 is not None)
    assume(one.result_sha256 != other.result_sha256)
    assume(other.result is not None or "result_not_json" not in other.evidence)
    assert "its result" in SENDING.lie(altered(one, result=other.result))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"run": "r-2"}, "it is of another run: 'r-2', not '"),
        ({"entry": "e-2"}, "it is of another entry: 'e-2', not 'e-1'"),
        ({"attempt": 2}, "it is of another attempt: 2, not 1"),
        ({"task_id": "x"}, "it is of another task id: 'x', not '"),
        ({"task": "tasks.t"}, "it is of another task: 'tasks.t', not 'tasks.crud.work'"),
        ({"args_sha256": "0" * 64}, "ran with other arguments than this entry has now"),
        ({"result": {"rows": [1]}}, "its result {'rows': [1]} is not the one that the worker"),
        ({"result": None}, "its result None is not the one"),
        (
            {"sent_at": SENT_AT + timedelta(microseconds=1)},
            "24 15:00:00.123457 UTC, where this one was sent at 2026-11-24 15:00:00.123456 UTC",
        ),
        (
            {"started_at": SENT_AT - timedelta(minutes=6), "host": "w1"},
            "the job started at 2026-11-24 14:54:00.123456 UTC, before it was sent at 2026-11-24 ",
        ),
        (
            {"started_at": SENT_AT - timedelta(minutes=6), "host": "w1"},
            "15:00:00.123456 UTC: it is old, or the clock on w1 is wrong",
        ),
        ({"finished_at": SENT_AT - timedelta(minutes=6)}, "that the job finished at "),
        (
            {"started_at": None, "finished_at": SENT_AT - timedelta(minutes=6)},
            "that the job finished at ",
        ),
        (
            {"finished_at": SENT_AT - timedelta(minutes=6), "host": None},
            "15:00:00.123456 UTC: it is old, or the clock is wrong",
        ),
    ],
)
def test_each_lie_is_named(fields: dict[str, Any], says: str) -> None:
    """The phrase says what the receipt claims and what is true; the verdict has it in brackets."""
    liar = altered(HONEST, **fields)
    lie = SENDING.lie(liar)
    assert says in lie
    verdict = evaluate(ENTRY, liar, attempt=1, problem="forged", why=noted(lie))
    assert verdict.verdict == "forged"
    assert verdict.sentence.startswith(f"The receipt cannot be trusted ({lie}); find out what")
    assert verdict.mismatches == []


def test_a_lie_is_a_whole_phrase() -> None:
    """It stands in brackets in the verdict's sentence."""
    assert SENDING.lie(altered(HONEST, args_sha256="0" * 64)) == (
        "the job ran with other arguments than this entry has now"
    )
    assert SENDING.lie(altered(HONEST, result={"rows": [1]})) == (
        "its result {'rows': [1]} is not the one that the worker made its digest of, "
        "so it was changed on its way"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"args_sha256": None},
        {"result_sha256": None, "result": 1},
        {"result": None, "evidence": {"result_omitted": 9_000_000}},
        {"sent_at": None},
        {"started_at": None, "finished_at": None},
        {"started_at": SENT_AT - CLOCK_TOLERANCE},
        {"retries": 1, "args_sha256": "0" * 64},
        {"replaced": True, "task": "tasks.other", "args_sha256": "0" * 64},
        {"code": "py3.11:" + "1" * 64},
    ],
)
def test_what_a_receipt_may_honestly_lack_or_change(fields: dict[str, Any]) -> None:
    """Old workers, clocks a little apart, retries with other arguments, jobs handed on."""
    assert SENDING.lie(altered(HONEST, **fields)) == ""


def test_a_clock_that_was_set_back_belies_nothing() -> None:
    """A job that ends after that seems to end before it was sent; but no longer ago than that."""
    by = timedelta(hours=1)
    sending = Sending(ENTRY, SENDING.run, SENDING.task_id, 1, set_back=by)
    assert sending.lie(altered(HONEST, finished_at=SENT_AT - by - CLOCK_TOLERANCE)) == ""
    older = altered(HONEST, finished_at=SENT_AT - by - CLOCK_TOLERANCE - timedelta(seconds=1))
    assert "before it was sent" in sending.lie(older)


def test_without_our_own_time_the_receipts_is_taken() -> None:
    """A ledger that does not know when it sent: what the receipt says must fit together."""
    unsure = Sending(ENTRY, SENDING.run, SENDING.task_id, 1, sent_at=None)
    assert unsure.lie(HONEST) == ""
    assert "before it was sent" in unsure.lie(
        altered(HONEST, finished_at=SENT_AT - timedelta(hours=1))
    )


def test_a_receipt_made_of_a_plain_result_is_believed() -> None:
    """A worker that knows nothing of us has no digests that could differ."""
    awaited: Any = SimpleNamespace(run=SENDING.run, entry=ENTRY, number=1)
    plain = backend_receipt(SENDING.task_id, awaited, BackendResult(state="succeeded", result=[1]))
    assert SENDING.lie(plain) == ""


@pytest.mark.parametrize("value", [{10: "a", 2: "b"}, {2.5: 1, 10.0: 2}, {"1": {True: 0, 2: 1}}])
def test_keys_that_are_no_text_have_the_digest_of_what_is_read(value: object) -> None:
    """JSON makes text of them, which sorts otherwise; the digest is that of the JSON."""
    receipt = SENDING.honest(succeeded(value))
    assert receipt.result_sha256 == wire.json_sha256(receipt.result) is not None
    assert SENDING.lie(receipt) == ""


def test_a_value_without_a_digest_cannot_be_held_against_its_receipt() -> None:
    """A date becomes text, of which the worker makes no digest."""
    assert SENDING.lie(SENDING.honest(succeeded([date(2026, 11, 24)]))) == ""
