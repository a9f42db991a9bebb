"""Each sentence of a verdict, whole: it is what a user reads, and all that many of them read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pytest

from pytest_manifest.broker.workers import with_effective_timeout
from pytest_manifest.schema import Entry, Mismatch, Receipt, State, VerdictStatus
from pytest_manifest.verdict import messages, problems, tree
from pytest_manifest.verdict.reasons import Problem, Reason, read_reason
from tests.reasons import noted

SENTENCES: dict[str, str] = json.loads(
    Path(__file__).with_name("data").joinpath("messages.json").read_text("utf-8")
)
"""What is said in each of these situations."""
Fields: TypeAlias = Mapping[str, Any]
Told: TypeAlias = Callable[[], Reason | str]
NOBODY: Fields = {"worker": None, "host": None, "pid": None}
SOFT: Fields = {"error": {"type": "billiard.exceptions.SoftTimeLimitExceeded", "message": ""}}


def entry(expect: Fields | None = None, **fields: Any) -> Entry:
    known = {"id": "e-1", "task": "jobs.work", "timeout": 30, "expect": expect or {}}
    return Entry.model_validate({**known, **fields})


def receipt(state: str = "succeeded", **fields: Any) -> Receipt:
    known = {
        "run": "20261124T150000-0a1b2c3d",
        "entry": "e-1",
        "attempt": 1,
        "task_id": "t-1",
        "task": "jobs.work",
        "worker": "celery@w1",
        "host": "w1",
        "pid": 77,
        "executions": 1,
        "runtime": 1.25,
    }
    return Receipt.model_validate({**known, "state": state, **fields})


def error(message: str = "no such film", kind: str = "ValueError") -> dict[str, str]:
    return {"type": kind, "message": message}


def differences(number: int, path: str = "result.a") -> Sequence[Mismatch]:
    return [Mismatch(path=path, expected="1", actual="2")] * number


def by_task(own: float = 60, **fields: Any) -> Entry:
    """An entry that is silent about its timeout, so that its task's own limit holds."""
    silent = Entry.model_validate({"id": "e-1", "task": "jobs.work", **fields})
    return with_effective_timeout(silent, own)


def held_for(delay: float) -> Reason:
    return messages.duplicated(entry(), receipt(executions=2)).having(delay=delay)


RECEIVED: Mapping[str, Told] = {
    "passed": partial(messages.passed, receipt()),
    "passed, of unknown length": partial(messages.passed, receipt(runtime=None)),
    "passed, by its host": partial(messages.passed, receipt(worker=None)),
    "passed, without its process": partial(messages.passed, receipt(pid=None)),
    "passed, of process 0": partial(messages.passed, receipt(pid=0)),
    "passed, nobody knows where": partial(messages.passed, receipt(**NOBODY)),
    "passed, by a hostile worker": partial(messages.passed, receipt(worker="w\x1b[2J\x07")),
    "failed as expected": partial(messages.passed, receipt("failed", error=error())),
    "failed as expected, without a word": partial(
        messages.passed, receipt("failed", error=error(""))
    ),
    "crashed as expected": partial(messages.passed, receipt("crashed", runtime=None)),
    "one difference": partial(messages.unmet, receipt(), differences(1), is_all=True),
    "two differences": partial(messages.unmet, receipt(), differences(2), is_all=True),
    "three differences": partial(messages.unmet, receipt(), differences(3), is_all=True),
    "more differences than are told": partial(
        messages.unmet, receipt(), differences(3), is_all=False
    ),
    "a difference of a failure": partial(
        messages.unmet, receipt("failed"), differences(1), is_all=True
    ),
    "a schema that is none": partial(
        messages.unmet,
        receipt(),
        [Mismatch(path="expect.schema", expected="a schema", actual="refers to itself")],
        is_all=True,
    ),
    "a result too large": partial(
        messages.unverifiable, receipt(evidence={"result_omitted": 5_000_002}), ["result"]
    ),
    "a result too large for a schema": partial(
        messages.unverifiable,
        receipt(evidence={"result_omitted": 5_000_002}),
        ["schema", "max_wait"],
    ),
    "a result that is no JSON": partial(
        messages.unverifiable, receipt(evidence={"result_not_json": "a set"}), ["result", "schema"]
    ),
    "no times": partial(
        messages.unverifiable,
        receipt(evidence={"result_omitted": 1, "result_not_json": "a set"}),
        ["max_runtime", "max_wait"],
    ),
    "fields left out": partial(messages.incomplete, receipt(), ["sent_at", "code"]),
    "run twice": partial(messages.duplicated, entry(), receipt(executions=2)),
    "run three times where two are allowed, by the broker": partial(
        messages.duplicated, entry({"executions": 2}), receipt(executions=3, redelivered=True)
    ),
    "run twice while a worker held it": partial(held_for, 90.0),
    "other code": partial(messages.other_code, receipt()),
    "other code, nobody knows where": partial(messages.other_code, receipt(host=None)),
    "other code on a hostile host": partial(messages.other_code, receipt(host="w\x1b[2J1\x07")),
    "refused by its store": partial(
        messages.refused_by_store, receipt(error=error(" of pipeline ", "ResponseError"))
    ),
    "refused by its store, nobody knows where": partial(
        messages.refused_by_store, receipt(error=error(""), **NOBODY)
    ),
}


def wrong(state: State, expect: Fields | None = None, **fields: Any) -> Reason:
    return messages.wrong_state(entry(expect), receipt(state, **fields), state)


FAILS: Fields = {"state": "failed"}
ENDED: Mapping[str, Told] = {
    **{f"{state}": partial(wrong, state) for state in get_args(State) if state != "succeeded"},
    **{
        f"{state}, and not as expected": partial(wrong, state, {"state": "crashed"})
        for state in get_args(State)
        if state not in ("succeeded", "crashed")
    },
    "crashed, and not as expected": partial(wrong, "crashed", FAILS),
    "succeeded": partial(wrong, "succeeded", FAILS),
    "succeeded, without an error": partial(
        wrong, "succeeded", {**FAILS, "error": {"type": "films.NoFilm"}}, **NOBODY
    ),
    "succeeded, without a message": partial(
        wrong, "succeeded", {**FAILS, "error": {"match": "no film"}}
    ),
    "failed, and said why": partial(wrong, "failed", error=error()),
    "failed, without a word": partial(wrong, "failed", error=error(" \n ", "films.NoFilm")),
    "failed, and said much": partial(
        wrong, "failed", error=error("no such\n\x1b[31mfilm" + "!" * 500)
    ),
    "failed with a hostile error": partial(wrong, "failed", error=error("", "E\x07")),
    "crashed, and said why": partial(
        wrong, "crashed", error=error("exitcode -9.", "WorkerLostError")
    ),
    "rejected before it began": partial(wrong, "rejected", pid=None, runtime=None),
    "rejected, by the store": partial(
        wrong, "rejected", pid=None, runtime=None, source="backend", redelivered=True
    ),
    "rejected, by a worker that got it again": partial(
        wrong, "rejected", pid=None, runtime=None, redelivered=True
    ),
    "rejected, and said why": partial(wrong, "rejected", error=error("no such queue", "Reject")),
    "ran for too long, at its own word": partial(
        messages.wrong_state, entry(), receipt(runtime=45.2), "timed_out"
    ),
    "ran for longer than its task's limit": partial(
        messages.wrong_state, by_task(), receipt(runtime=75), "timed_out"
    ),
    "stopped at its timeout": partial(wrong, "timed_out", runtime=30),
    "stopped at its task's limit": partial(
        messages.wrong_state, by_task(), receipt("timed_out", runtime=60), "timed_out"
    ),
    "stopped at the default timeout": partial(
        messages.wrong_state,
        Entry(id="e-1", task="jobs.work"),
        receipt("timed_out", runtime=3600),
        "timed_out",
    ),
    "stopped, nobody knows after how long": partial(wrong, "timed_out", runtime=None),
    "stopped as soon as that is its timeout": partial(wrong, "timed_out", runtime=27),
    "stopped too soon for that": partial(wrong, "timed_out", runtime=26.9),
    "stopped at its soft limit": partial(wrong, "timed_out", runtime=29.9, **SOFT),
    "stopped at its soft limit, nobody knows after how long": partial(
        wrong, "timed_out", runtime=None, **SOFT
    ),
    "stopped softly at its timeout": partial(wrong, "timed_out", runtime=30, **SOFT),
    "timed out by another error": partial(wrong, "timed_out", error=error()),
}
"""By their receipts, ends of jobs that were to end otherwise."""


def unreceived(status: VerdictStatus, note: str = "", expect: Fields | None = None) -> str:
    why = noted(note).of(entry(expect), status)
    return why.sentence(status)


MISSING: Mapping[str, Told] = {
    **{f"{status}": partial(unreceived, status) for status in get_args(VerdictStatus)},
    **{
        f"{status}, with a note": partial(unreceived, status, " somebody said so.. ")
        for status in get_args(VerdictStatus)
    },
    "a note that ends in a name": partial(unreceived, "unknown", "nobody knows worker X."),
    "never sent": partial(problems.NeverSent().sentence, "unknown"),
    "made no message": partial(problems.NotMade(error="returned None").sentence, "unknown"),
    "over at the run's deadline": partial(problems.RunDeadline(limit=90.0).sentence, "timed_out"),
    "lost on its worker": partial(problems.LostInFlight(worker="w@h").sentence, "lost"),
    "crashed, as expected of its job": partial(unreceived, "crashed", expect={"state": "crashed"}),
    "timed out, as expected of its job": partial(
        unreceived, "timed_out", "as nobody told", {"state": "timed_out"}
    ),
    "crashed, where an error is expected": partial(
        unreceived, "crashed", expect={"state": "crashed", "error": {"type": "WorkerLostError"}}
    ),
    "crashed, where a failure is expected": partial(unreceived, "crashed", expect=FAILS),
    "ended as expected": partial(
        messages.EndedAsExpected, ended="revoked", why=noted("an order came.")
    ),
    "ended as expected, without a note": partial(
        messages.EndedAsExpected, ended="crashed", why=Problem()
    ),
}
"""Without a receipt."""


def with_tree(reason: Reason, descendants: int) -> Reason:
    return reason.with_tree(descendants, "passed")


def reused(entry: str = "", why: Reason | None = None) -> messages.Reused:
    return messages.Reused(run="r-1", entry=entry, why=why or messages.passed(receipt()))


TREES: Mapping[str, Told] = {
    **{
        f"{name}, with {count}": partial(with_tree, reason, count)
        for count in (1, 1_200)
        for name, reason in {
            "passed": messages.passed(receipt()),
            "failed as expected": messages.passed(receipt("failed", error=error())),
            "ended as expected": messages.EndedAsExpected(ended="crashed", why=Problem()),
            "reused": reused(),
        }.items()
    },
    "not as expected": partial(
        tree.DescendantsDiffer, path="count", actual="2", expected="exactly 3"
    ),
}
"""With so many tasks that they started."""
REUSED: Mapping[str, Told] = {
    "itself": reused,
    "another entry": partial(reused, "e-1\x07" + "0" * 500),
    "without a receipt": partial(reused, why=noted("somebody said so")),
}
"""Judged by a job of an earlier run."""
SAID: Mapping[str, Told] = {
    **{f"a receipt: {name}": said for name, said in RECEIVED.items()},
    **{f"an end: {name}": said for name, said in ENDED.items()},
    **{f"no receipt: {name}": said for name, said in MISSING.items()},
    **{f"a tree: {name}": said for name, said in TREES.items()},
    **{f"reused: {name}": said for name, said in REUSED.items()},
}


@pytest.mark.parametrize("name", SAID)
def test_each_situation_has_its_sentence(name: str) -> None:
    """What happened, what is known, what to do next; a change of it is read before it lands."""
    said = SAID[name]()
    if isinstance(said, Reason):
        assert read_reason(json.loads(json.dumps(said.document()))) == said
        said = said.sentence("passed")
    assert said == SENTENCES[name]


OWN_KEY = "Command # 1 (SETEX celery-task-meta-t-1 86400) of pipeline caused error"


@pytest.mark.parametrize(
    ("message", "kind", "is_of_store"),
    [
        (OWN_KEY, "redis.exceptions.ResponseError", True),
        (OWN_KEY, "redis.exceptions.OutOfMemoryError", True),
        (OWN_KEY, "ReadOnlyError", True),
        (OWN_KEY, "jobs.DiskFull", False),
        ("SETEX celery-task-meta-t-2", "ResponseError", False),
        ("failed to store result on the backend", "celery.exceptions.BackendStoreError", True),
        ("failed to store result on the backend", "BackendStoreError", True),
        (f"the job's own: {OWN_KEY}", "BackendStoreError", False),
        ("failed to store result on the backend", "jobs.DiskFull", False),
    ],
)
def test_what_a_store_refused_at_a_jobs_end_is_no_failure_of_its_task(
    message: str, kind: str, *, is_of_store: bool
) -> None:
    """Only a stored failure can be that: a worker reports what the task itself raised."""
    raised = error(message, kind)
    stored = receipt("failed", source="backend", error=raised)
    assert messages.is_of_store(stored) is is_of_store
    assert not messages.is_of_store(receipt("failed", error=raised))


def test_a_stored_end_without_an_error_is_no_refusal_of_the_store() -> None:
    assert not messages.is_of_store(receipt("failed", source="backend"))


def test_of_a_reused_job_what_its_own_reason_advises_is_advised() -> None:
    why = noted("nobody knows")
    assert reused(why=why).advice("unknown") == why.advice("unknown") != why.advice("lost")


def test_no_sentence_is_of_a_situation_that_is_gone() -> None:
    """And each is one line, with its full stop."""
    assert set(SENTENCES) == set(SAID)
    for told in SENTENCES.values():
        assert told.isprintable()
        assert told.endswith(".")
