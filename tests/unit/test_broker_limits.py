"""How long a job may run: its entry's timeout, and what its task and workers set themselves."""

from __future__ import annotations

import pytest
from celery import Celery

from pytest_manifest.broker.checks import demand_of
from pytest_manifest.broker.workers import (
    TaskLimit,
    TaskLimits,
    Worker,
    message_limits,
    pool_warnings,
    with_effective_timeout,
    workers_of,
)
from pytest_manifest.schema import Entry, Receipt
from tests.verdicts import evaluate

SAYS_NOTHING = Entry(id="a", task="t")
SAYS_60 = Entry(id="a", task="t", timeout=60)


@pytest.mark.parametrize(
    ("entry", "own", "expected"),
    [
        (SAYS_NOTHING, TaskLimit(), (300, None)),
        (SAYS_NOTHING, TaskLimit(hard=1), (1, None)),
        (SAYS_NOTHING, TaskLimit(hard=7200), (7200, None)),
        (SAYS_NOTHING, TaskLimit(hard=7200, soft=7000), (7200, 7000)),
        (SAYS_60, TaskLimit(), (60, None)),
        (SAYS_60, TaskLimit(hard=1), (1, None)),
        (SAYS_60, TaskLimit(hard=7200), (60, None)),
        (SAYS_60, TaskLimit(soft=5.5), (60, 5.5)),
        (SAYS_60, TaskLimit(soft=600), (60, 60)),
        (Entry(id="a", task="t", timeout=300), TaskLimit(hard=7200), (300, None)),
    ],
)
def test_the_limits_of_a_message(
    entry: Entry, own: TaskLimit, expected: tuple[float, float | None]
) -> None:
    """The smaller one where the entry says one; the task's own where it says none; never a soft
    one beyond the hard one."""
    assert message_limits(entry, own) == expected


def limits(**conf: float) -> TaskLimits:
    app = Celery(set_as_current=False)
    app.conf.update(conf)
    return TaskLimits(app)


def test_whose_limit_counts() -> None:
    """As in Celery: what a route or the task says before what the worker has for all tasks."""
    made = limits(task_time_limit=50, task_soft_time_limit=40)
    assert made.limit_for("t", {}) == TaskLimit(50, 40)
    made.update([Worker("w", limit=TaskLimit(9, None), limits={"t": TaskLimit(7, 6)})])
    assert made.limit_for("t", {}) == TaskLimit(7, 6)
    assert made.limit_for("other", {}) == TaskLimit(9, None)
    assert made.limit_for("t", {"time_limit": 3}) == TaskLimit(3, 6)


def test_a_worker_that_said_nothing_of_limits_changes_none() -> None:
    """The app's own hold until one does."""
    made = limits(task_time_limit=50)
    slow = Worker("slow", unsaid=frozenset({"stats"}))
    made.update([slow])
    assert made.limit_for("t", {}) == TaskLimit(50)
    made.update([slow, Worker("w", limit=TaskLimit(9))])
    assert made.limit_for("t", {}) == TaskLimit(9)


def test_of_several_workers_the_strictest_counts() -> None:
    """Any of them may get the job; one without a limit sets none."""
    made = limits()
    made.update([Worker("v", limit=TaskLimit(9, 5)), Worker("w", limit=TaskLimit(7)), Worker("x")])
    assert made.limit_for("t", {}) == TaskLimit(7, 5)


def test_what_workers_say_of_limits_and_pools() -> None:
    """Read out of Celery's replies."""
    pool = {"implementation": "celery.concurrency.prefork:TaskPool", "timeouts": [0, 30]}
    answers: dict[str, dict[str, object]] = {
        "registered": {"w": ["t [acks_late=True time_limit=2.5 soft_time_limit=2]", "u", "v [x]"]},
        "active_queues": {},
        "stats": {"w": {"pool": pool}},
    }
    worker = workers_of(answers)["w"]
    assert worker.limits == {"t": TaskLimit(2.5, 2)}
    assert (worker.limit, worker.pool) == (TaskLimit(30, None), "prefork")
    assert worker.tasks == {"t": True, "u": False, "v [x]": False}


def test_pools_that_enforce_nothing_are_named_once() -> None:
    """In one sentence a kind; prefork, and workers that did not say, are in none."""
    workers = [
        Worker("one", pool="thread"),
        Worker("two", pool="thread"),
        Worker("three", pool="gevent"),
        Worker("four", pool="prefork"),
        Worker("five"),
    ]
    gevent, threads = pool_warnings(workers)
    assert "three (gevent)" in gevent
    assert "one, two (thread)" in threads
    assert "its verdict says afterwards" in threads
    [untimed] = pool_warnings([Worker("stock", {"t": False}, pool="solo")])
    assert "no verdict says it" in untimed


def test_what_a_job_may_occupy_is_by_its_tasks_own_limit() -> None:
    """A message is held for as long as its job runs."""
    [held] = demand_of([SAYS_NOTHING], own_limit=lambda _: 7200.0).held.values()
    assert held.timeouts == {7200: 1}
    [held] = demand_of([SAYS_NOTHING]).held.values()
    assert held.timeouts == {300: 1}


@pytest.mark.parametrize(
    ("own", "runtime", "error", "words"),
    [
        (None, 0.3, "SoftTimeLimitExceeded", "as its own soft time limit was over"),
        (None, 300.0, "SoftTimeLimitExceeded", "as its timeout of 300 s was over"),
        (None, 300.1, "TimeLimitExceeded", "as its timeout of 300 s was over"),
        (1.0, 1.1, "TimeLimitExceeded", "as its own time limit of 1 s was over"),
        (None, 1.1, "TimeLimitExceeded", "after 1.1 s, as its own time limit was over"),
    ],
)
def test_the_verdict_names_the_limit(
    own: float | None, runtime: float, error: str, words: str
) -> None:
    """A limit of the task is told as the task's."""
    receipt = Receipt.model_validate(
        {
            "run": "r",
            "entry": "a",
            "attempt": 1,
            "task_id": "i",
            "task": "t",
            "state": "timed_out",
            "runtime": runtime,
            "error": {"type": error, "message": ""},
        }
    )
    verdict = evaluate(with_effective_timeout(SAYS_NOTHING, own), receipt, attempt=1)
    assert verdict.verdict == "timed_out"
    assert words in verdict.sentence


def test_a_job_may_run_for_as_long_as_its_task_allows() -> None:
    """Longer than the default that stands for what no entry says."""
    document = {"run": "r", "entry": "a", "attempt": 1, "task_id": "i", "task": "t"}
    receipt = Receipt.model_validate(
        {**document, "state": "succeeded", "runtime": 400.0, "executions": 1, "source": "backend"}
    )
    assert evaluate(SAYS_NOTHING, receipt, attempt=1).verdict == "timed_out"
    assert (
        evaluate(with_effective_timeout(SAYS_NOTHING, 7200), receipt, attempt=1).verdict == "passed"
    )
