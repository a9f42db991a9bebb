"""What code of a task would run, as far as the workers tell it before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from celery import Celery

from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.workers import QUESTIONS, known_codes, workers_of
from pytest_manifest.schema.wire import CODE_ATTRIBUTE, told_digest
from pytest_manifest.worker import _take_digests

A, B = "py3.11:" + "a" * 64, "py3.11:" + "b" * 64


def told(name: str, code: str | None) -> str:
    """A line of Celery's answer about one task."""
    more = "" if code is None else f" time_limit=5 {CODE_ATTRIBUTE}={code}"
    return f"{name} [acks_late=False{more}]"


@pytest.mark.parametrize(
    ("registered", "known"),
    [
        ({"w1": [told("t", A)]}, {"t": A}),
        ({"w1": [told("t", A)], "w2": [told("t", A)]}, {"t": A}),
        ({"w1": [told("t", A)], "w2": [told("u", B)]}, {"t": A, "u": B}),
        ({"w1": [told("t", A)], "w2": [told("t", B)]}, {}),
        ({"w1": [told("t", A)], "w2": [told("t", None)]}, {}),
        ({"w1": [told("t", A)], "w2": ["t"]}, {}),
        ({"w1": [told("t", A)], "w2": {"error": "busy"}}, {}),
        ({"w1": [told("t", "py3.11:no-source")]}, {}),
        ({"w1": [told("t", None)]}, {}),
        ({}, {}),
    ],
    ids=[
        *("one tells it", "all tell the same", "of the task that it has", "two codes"),
        *("one tells none", "a stock worker", "one did not answer", "no source"),
        *("none tells it", "nobody answers"),
    ],
)
def test_it_is_known_where_all_that_have_the_task_tell_the_same(
    registered: Mapping[str, object], known: Mapping[str, str]
) -> None:
    """Any of them may get the job."""
    answers: Answers = {
        "registered": dict(registered),
        "active_queues": {},
        "stats": {name: {} for name in registered},
    }
    assert known_codes(workers_of(answers).values()) == known


def test_a_worker_tells_it_when_it_is_asked() -> None:
    """By an attribute of each task, which Celery's own remote control reads."""
    app = Celery("told", set_as_current=False)

    app.task(known_codes, name="t", shared=False)  # any function that has a source
    _take_digests(app)
    assert CODE_ATTRIBUTE in str(QUESTIONS["registered"])
    assert getattr(app.tasks["t"], CODE_ATTRIBUTE) == told_digest(app.tasks["t"])
    assert told_digest(app.tasks["t"]).startswith("py3")
