"""Receipts as they are made, without a broker: results, errors, evidence."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.app.backends import BACKEND_ALIASES
from celery.app.task import Context
from celery.exceptions import NotRegistered, Reject
from kombu.utils import json as kombu_json
from loguru import logger

from pytest_manifest.results import records
from pytest_manifest.schema import Receipt, wire
from pytest_manifest.schema.wire import code_digest
from pytest_manifest.worker import backends, evidence, instrument, job, signals
from pytest_manifest.worker.backends import ensure_receipts, with_receipts
from pytest_manifest.worker.children import Document
from pytest_manifest.worker.receipt import (
    TaskResult,
    encode,
    failed,
    failed_in_main_process,
    finished_record,
    prepare_receipt,
    receipt_document,
    refused,
    revoked,
    succeeded,
)
from pytest_manifest.worker.spool import TaskOutput

RUN = "20261124T150000-0123abcd"


def request(**fields: object) -> Any:
    return Context(
        {
            "id": "0123abcd-1",
            "task": "add",
            "args": [1],
            "kwargs": {},
            "hostname": "celery@host",
            "delivery_info": {"routing_key": "q", "redelivered": True},
            wire.HEADER_RUN: RUN,
            wire.HEADER_ENTRY: "entry",
            wire.HEADER_ATTEMPT: 3,
            wire.HEADER_STREAM: wire.stream_key(RUN),
            wire.HEADER_TTL: 60,
            wire.HEADER_SENT_AT: "2026-11-24T15:00:00.000000+00:00",
            **fields,
        }
    )


def document(ending: TaskResult, output: TaskOutput | None = None) -> Document:
    facts = job.delivery_of(request())
    assert facts is not None
    return receipt_document(facts, ending, job.RunMeasures(), output or TaskOutput(), None)


def receipt(ending: TaskResult, output: TaskOutput | None = None) -> Receipt:
    """As the other side reads it."""
    record = records.parse_record(json.loads(finished_record("x", document(ending, output))))
    assert isinstance(record, records.FinishedRecord)
    return Receipt.model_validate(record.receipt)


@pytest.fixture
def execution() -> Iterator[job.Execution]:
    facts = job.delivery_of(request())
    assert facts is not None
    running = job.Execution(facts, [1], {})
    running.begin()
    yield running
    running.end(killed=False)


def test_delivery_is_read_from_the_request() -> None:
    """Everything that the headers and the delivery say is there."""
    facts = job.delivery_of(request(retries=2))
    assert facts is not None
    assert (facts.run, facts.entry, facts.attempt, facts.task_id) == (RUN, "entry", 3, "0123abcd-1")
    assert (facts.queue, facts.redelivered, facts.retries, facts.ttl) == ("q", True, 2, 60)


def test_execution_is_named_once() -> None:
    """A delivery that nobody named is named when it is first looked at, and keeps its name."""
    one = request()
    first, second = job.delivery_of(one), job.delivery_of(one)
    assert first is not None
    assert first == second


@pytest.mark.parametrize("other", [Context({"id": "1"}), None, object(), {"manifest_run": "r"}])
def test_what_is_not_ours_is_none(other: object) -> None:
    """A request without our headers is nobody's delivery."""
    assert job.delivery_of(other) is None
    assert prepare_receipt(other, lambda: succeeded(1)) is None


@pytest.mark.parametrize("headers", [None, {}, "odd", {"task": "add"}])
def test_messages_that_are_not_ours(headers: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that the worker turned away is looked at with care."""
    backend = ensure_receipts(Celery(set_as_current=False, backend="cache+memory://").backend)
    monkeypatch.setattr(backend, "report", pytest.fail)
    consumer = SimpleNamespace(hostname="celery@host", app=SimpleNamespace(backend=backend))
    signals.on_rejected(consumer, SimpleNamespace(headers=headers))


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, "é\u0000\U0001f3ac", [], {"a": {"b": [1, "x", None]}}, 2**70],
)
def test_json_results_are_kept_as_they_are(value: Any) -> None:
    """A result that is JSON is in the receipt, with its digest."""
    made = receipt(succeeded(value))
    assert made.result == value
    assert made.result_sha256 == wire.json_sha256(value)


def test_tuples_and_number_keys_become_json() -> None:
    """What JSON writes another way is shown as JSON has it."""
    assert receipt(succeeded({1: (2, 3)})).result == {"1": [2, 3]}


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 24, tzinfo=timezone.utc),
        [date(2026, 11, 24), time(12, 30)],
        {"price": Decimal("1.10"), "key": UUID(int=1)},
        {"text": b"bytes", "raw": b"\xff"},
        {1: "one", "two": (2,)},
    ],
)
def test_types_of_kombu_are_what_kombu_makes_of_them(value: object) -> None:
    """The receipt has the JSON that the result store has, and its digest."""
    made = receipt(succeeded(value))
    assert made.result == json.loads(kombu_json.dumps(value))
    assert made.result_sha256 == wire.json_sha256(made.result)


@pytest.mark.parametrize(
    "value",
    [object(), math.nan, {"a": {1, 2}}, "\ud800", {("a", "b"): 1}, {"at": [math.inf, b"x"]}],
)
def test_other_results_are_left_out_and_said_so(value: object) -> None:
    """A result that JSON does not have is left out; the receipt says so and is valid."""
    made = receipt(succeeded(value))
    assert made.result is None
    assert made.result_sha256 is None
    assert "result_not_json" in made.evidence
    assert "not JSON" in made.log[-1]


def test_deep_results_are_left_out() -> None:
    """A result nested deeper than a receipt may be is left out, and so is its digest."""
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    made = receipt(succeeded(deep))
    assert made.result is None
    assert made.result_sha256 is None
    assert "result_not_json" in made.evidence


def test_endless_results_are_left_out() -> None:
    """A result that contains itself does not end the worker."""
    endless: list[Any] = []
    endless.append(endless)
    assert "result_not_json" in receipt(succeeded(endless)).evidence


def test_wide_results_are_kept() -> None:
    """Many brackets beside one another are not many levels."""
    wide = [[number] for number in range(1000)]
    assert receipt(succeeded(wide)).result == wide


def test_result_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is in bytes of JSON, and the environment's to set."""
    monkeypatch.setenv("MANIFEST_RESULT_LIMIT", "10")
    assert receipt(succeeded("x" * 8)).result == "x" * 8
    made = receipt(succeeded("x" * 9))
    assert made.result is None
    assert made.evidence == {"result_omitted": 11}
    assert "MANIFEST_RESULT_LIMIT" in made.log[-1]


def test_odd_limit_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is no number is no reason to lose receipts."""
    monkeypatch.setenv("MANIFEST_RESULT_LIMIT", "plenty")
    assert receipt(succeeded("x" * 1000)).result == "x" * 1000


def test_half_surrogates_in_a_message() -> None:
    """A message that is no UTF-8 still makes a record."""
    assert receipt(failed(ValueError("half \ud800"))).error is not None
    assert encode({"a": "\ud800"}) == b'{"a": "\\ud800"}'


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (failed(ValueError("x")), "failed"),
        (failed(SoftTimeLimitExceeded()), "timed_out"),
        # From inside a task these are other tasks' errors, raised again by result.get().
        (failed(WorkerLostError("x")), "failed"),
        (failed(TimeLimitExceeded(3)), "failed"),
        (failed(NotRegistered("x")), "failed"),
        (failed_in_main_process(WorkerLostError("x")), "crashed"),
        (failed_in_main_process(SystemExit(3)), "crashed"),
        (failed_in_main_process(TimeLimitExceeded(3)), "timed_out"),
        (failed_in_main_process(Reject("x")), "rejected"),
        (failed_in_main_process(ValueError("x")), "failed"),
        (revoked("expired"), "expired"),
        (revoked("revoked"), "revoked"),
        (revoked("terminated"), "revoked"),
        (refused("unknown_task", NotRegistered("x")), "unknown_task"),
        (refused("rejected", None), "rejected"),
    ],
)
def test_states(ending: TaskResult, state: str) -> None:
    """Every ending has its state, and makes a valid receipt."""
    assert receipt(ending).state == state


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TimeLimitExceeded(2.5), "the hard time limit of 2.5 s was exceeded"),
        (SoftTimeLimitExceeded(), "the soft time limit was exceeded"),
        (NotRegistered("no.such"), "no task of the name 'no.such' is registered with this worker"),
        (Reject("not mine"), "not mine"),
        (Reject(), ""),
        (ValueError(), ""),
        (KeyError("k"), "'k'"),
    ],
)
def test_messages_are_readable(error: Exception, message: str) -> None:
    """Errors whose own text says little get words."""
    ending = failed_in_main_process(error)
    assert ending.error is not None
    assert ending.error["message"] == message


def test_errors_that_cannot_even_be_printed() -> None:
    """An exception with a broken __str__ is named."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    ending = failed(BrokenError())
    assert ending.error is not None
    assert ending.error["type"] == "BrokenError"
    assert "RuntimeError" in str(ending.error["message"])


def test_worker_frames_are_taken_out() -> None:
    """The frames of the worker that called the task are not shown, the task's own are."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "/venv/celery/app/trace.py", line 564, in trace_task\n'
        "    R = retval = fun(*args, **kwargs)\n"
        "                 ^^^^^^^^^^^^^^^^^^^^\n"
        '  File "/venv/celery/app/trace.py", line 883, in __protected_call__\n'
        "    return self.run(*args, **kwargs)\n"
        '  File "/home/me/celery/app/tasks.py", line 3, in add\n'
        "    raise ValueError('no')\n"
        "ValueError: no\n"
    )
    ending = failed(ValueError("no"), text)
    assert ending.error is not None
    assert ending.error["traceback"] == (
        "Traceback (most recent call last):\n"
        '  File "/home/me/celery/app/tasks.py", line 3, in add\n'
        "    raise ValueError('no')\n"
        "ValueError: no\n"
    )


def test_long_texts_keep_their_ends() -> None:
    """A huge message keeps its beginning and its end."""
    ending = failed(ValueError("begin" + "x" * 1_000_000 + "end"))
    assert ending.error is not None
    message = ending.error["message"]
    assert message is not None
    assert len(message) <= 16 * 1024
    assert message.startswith("begin")
    assert message.endswith("end")


def test_passwords_are_taken_out_of_errors() -> None:
    """The password in a URL that an error quotes is not in the receipt."""
    error = RuntimeError("cannot reach postgresql://me:hunter2secret@host/db")
    made = receipt(failed(error, f"Traceback\nRuntimeError: {error}"))
    assert "hunter2secret" not in made.model_dump_json()


def test_evidence_is_merged(execution: job.Execution) -> None:
    """Later facts replace earlier ones of the same name."""
    evidence(a=1, b=[1])
    evidence(a=2)
    assert execution.output().evidence == {"a": 2, "b": [1]}


@pytest.mark.parametrize("value", [object(), {1: 2}, math.inf, {"deep": [b"x"]}])
def test_evidence_that_is_no_json(execution: job.Execution, value: Any) -> None:
    """The error names the fact, and nothing of the call is kept."""
    with pytest.raises(TypeError, match="evidence 'odd'"):
        evidence(fine=1, odd=value)
    assert execution.output().evidence == {}


def test_evidence_cannot_be_endless(
    execution: job.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a receipt may carry is refused, by name."""
    monkeypatch.setenv("MANIFEST_RESULT_LIMIT", "100")
    evidence(small=1)
    with pytest.raises(ValueError, match="big"):
        evidence(big="x" * 200)


def test_evidence_outside_a_task() -> None:
    """Outside a task of ours nothing happens."""
    assert job.current_execution() is None
    evidence(a=1)


def test_the_same_line_by_two_ways_is_one(execution: job.Execution) -> None:
    """A record that a relay shows to both logging systems is kept once; a repetition twice."""
    execution.add_log("one", message="one", origin="loguru")
    execution.add_log("one", message="one", origin="logging")
    execution.add_log("one", message="one", origin="loguru")
    execution.add_log("one", message="one", origin="logging")
    execution.add_log("one", message="one", origin="logging")
    assert execution.output().lines == ["one", "one", "one"]


def test_context_ends_with_the_task(execution: job.Execution) -> None:
    """loguru's context is as before once the task has ended."""
    seen: list[dict[str, object]] = []
    handler = logger.add(lambda message: seen.append(dict(message.record["extra"])))
    try:
        logger.info("in")
        execution.end(killed=False)
        logger.info("out")
    finally:
        logger.remove(handler)
    assert seen[0]["task_id"] == "0123abcd-1"
    assert seen[1] == {}


def test_the_code_that_ran_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt from the process that ran the task has the digest of the task's code."""
    monkeypatch.setattr(job, "catch_stdlib", lambda: None)  # its handler would stay
    app = Celery("code", set_as_current=False)
    add: Any = app.task(shared=False, autoretry_for=(ValueError,))(request)
    add.push_request(vars(request()))
    try:
        signals.on_prerun(add, [1], {})
        pending = prepare_receipt(add.request, lambda: succeeded(1))
        signals.on_postrun(add, "SUCCESS", 1)
    finally:
        add.pop_request()
    assert pending is not None
    assert Receipt.model_validate(pending.receipt).code == code_digest(request) is not None


def test_a_receipt_from_outside_names_no_code() -> None:
    """Who did not run the task does not know; nor its arguments, where nobody read them."""
    pending = prepare_receipt(request(), lambda: revoked("expired"))
    assert pending is not None
    made = Receipt.model_validate(pending.receipt)
    assert (made.code, made.args_sha256) == (None, wire.arguments_sha256([1], {}))
    unread = Context({name: value for name, value in vars(request()).items() if name != "args"})
    pending = prepare_receipt(unread, lambda: refused("rejected", None))
    assert pending is not None
    assert pending.receipt["args_sha256"] is None


@pytest.mark.parametrize(
    ("nesting", "replaced"), [({}, False), ({"replaced_task_nesting": 1}, True)]
)
def test_a_job_that_was_handed_on_says_so(nesting: dict[str, object], replaced: bool) -> None:
    """Celery's Task.replace: another task ends the job, under the same id."""
    pending = prepare_receipt(request(**nesting), lambda: succeeded(1))
    assert pending is not None
    assert Receipt.model_validate(pending.receipt).replaced is replaced


def test_receipts_of_older_workers_are_read() -> None:
    """They lack what was added since."""
    made = document(succeeded(1))
    del made["code"], made["replaced"]
    old = Receipt.model_validate(made)
    assert (old.code, old.replaced) == (None, False)


def test_second_receipt_is_not_made() -> None:
    """An execution that has handed in its receipt hands in no other."""
    one = request()
    first = prepare_receipt(one, lambda: succeeded(1))
    assert first is not None
    first.mark_sent()
    assert prepare_receipt(one, lambda: failed(ValueError("late"))) is None


def test_receipt_that_cannot_be_made_breaks_nothing() -> None:
    """A fault of ours is logged; the task's own outcome is stored as ever."""

    def broken() -> TaskResult:
        raise ZeroDivisionError

    said: list[str] = []
    handler = logger.add(lambda message: said.append(str(message)))
    try:
        assert prepare_receipt(request(), broken) is None
    finally:
        logger.remove(handler)
    assert "0123abcd-1" in said[0]


def test_instrumenting_twice_changes_nothing_more() -> None:
    """An app can be instrumented again, and before or after its configuration."""
    app = Celery("twice", set_as_current=False)
    instrument(app)
    once = dict(app.loader.override_backends)
    instrument(app)
    assert app.loader.override_backends == once
    app.conf.result_backend = "redis://127.0.0.1:1/0"
    assert type(app.backend).__name__ == "RedisBackendWithReceipts"


def test_backend_that_was_made_already() -> None:
    """A backend that is there hands in receipts as well, and stays the same object."""
    app = Celery("early", backend="redis://127.0.0.1:1/0", set_as_current=False)
    backend = app.backend
    assert ensure_receipts(backend) is backend
    assert ensure_receipts(backend) is backend
    assert type(backend).__name__ == "RedisBackendWithReceipts"


def test_backends_of_the_app_stay_its_own() -> None:
    """An app's own table of backends is not overridden."""
    app = Celery("own", set_as_current=False)
    app.loader.override_backends = {"redis": "my.module:Backend"}
    instrument(app)
    assert app.loader.override_backends["redis"] == "my.module:Backend"
    assert "db" in app.loader.override_backends


def test_an_app_without_a_store_stays_without() -> None:
    """The backend that stores nothing is not touched."""
    app = Celery("none", set_as_current=False)
    plain: Any = type(app.backend)
    assert with_receipts(plain) is plain


def test_no_name_of_ours_hides_a_scheme_of_celery() -> None:
    """Celery looks its backends up in our module, by their schemes."""
    assert not vars(backends).keys() & BACKEND_ALIASES.keys()


def test_backend_can_be_pickled() -> None:
    """A result that refers to its backend can be pickled still, and read without this package."""
    app = Celery("pickled", backend="cache+memory://", set_as_current=False)
    backend: Any = ensure_receipts(app.backend)
    _, arguments = backend.__reduce__()[:2]
    assert arguments[0].__module__.startswith("celery.")


def test_standard_handlers_are_left_alone() -> None:
    """Importing the worker side adds no handler to the root logger."""
    names = [type(handler).__module__ for handler in logging.getLogger().handlers]
    assert not any(name.startswith("pytest_manifest") for name in names)
