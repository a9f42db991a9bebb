"""One set of outcomes, the same on every stack: what a test in memory says, holds live as well.

What must differ is in ``DIFFERENCES``, and on the page about testing planners and verifiers.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.testing import Stack
from tests.contract import stacks
from tests.contract.app import ROUTED
from tests.contract.work import HOLD, WORK, Outcomes, run_all
from tests.live.broker_support import database

DIFFERENCES: Final = {
    "Time limits": "a job in a thread cannot be ended; its runtime, or the deadline, is judged",
    "Death of a process": "os._exit, a signal or a crash in C ends pytest itself",
    "Priorities": "first come, first served",
    "Log lines": "no printed text, and of logging what the process's own level lets through",
    "Memory": "no high-water mark, and CPU time is that of one thread",
    "Separation": "jobs share modules, environment and working directory with the tests",
    "Waiting for jobs": "a task that waits for another one's result is not stopped",
    "Lifetime": "stop forgets it all, so nothing can be sent now and audited later",
}
"""What a stack in memory does otherwise than a live one, and in which way."""

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-planners-and-verifiers.md"


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        pytest.param("embedded", marks=pytest.mark.live),
        pytest.param("valkey", marks=pytest.mark.live),
        pytest.param("rabbitmq", marks=[pytest.mark.live, pytest.mark.rabbitmq]),
    ],
)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What became of all the contract's work on one stack."""

    def backend(number: int) -> str:
        return database(request.getfixturevalue("valkey"), number)

    contexts: Mapping[str, Callable[[], AbstractContextManager[Stack]]] = {
        "memory": stacks.memory,
        "embedded": stacks.embedded,
        "valkey": lambda: stacks.external(backend(11), backend(12)),
        "rabbitmq": lambda: stacks.external(request.getfixturevalue("rabbitmq_url"), backend(13)),
    }
    # The stack ends before the first test: on a shared broker its worker would take others' jobs.
    with contexts[request.param]() as stack:
        return run_all(stack, tmp_path_factory.mktemp("contract"))


KINDS: Final[Mapping[str, VerdictStatus]] = {
    "wrong result": "failed",
    "raises": "failed",
    "retries in vain": "failed",
    "by a chain that fails": "failed",
    "ignored": "failed",
    "rejected": "rejected",
    "unknown task": "unknown_task",
    "expired": "expired",
    "revoked": "revoked",
    "no JSON": "failed",
    "schema broken": "failed",
    "too long": "timed_out",
    "beyond its own limit": "timed_out",
    "beyond the smaller limit": "timed_out",
    "slow": "failed",
    "leaves": "crashed",
}
"""The verdicts; all others pass."""


NOT_FROM_A_WORKER: Final = ("unknown task", "revoked", "by a chain that fails")
"""The last, as what fails is another job, and Celery then stores a failure for the rest."""
UNREAD: Final = "expected to be unknown"
"""A job whose worker knows no such task, and so does not read its arguments."""


def receipt_of(outcomes: Outcomes, entry: str) -> Receipt:
    """The receipt of an entry, which must have one."""
    receipt = outcomes[entry].receipt
    assert receipt is not None
    return receipt


@pytest.mark.parametrize("entry", WORK)
def test_the_verdict(outcomes: Outcomes, entry: str) -> None:
    """Each job comes to the verdict that is its own, on the first attempt."""
    said = outcomes[entry].verdict
    assert said.verdict == KINDS.get(entry, "passed"), f"{said.sentence}\n{outcomes.facts[entry]}"


def test_every_job_has_one_verdict(outcomes: Outcomes) -> None:
    """None is missing, and none is there that was not asked for."""
    assert outcomes.keys() == WORK.keys()


# Celery stores "revoked" at once, without a receipt; either may be the first that is seen.
@pytest.mark.parametrize("entry", [name for name in WORK if name not in NOT_FROM_A_WORKER])
def test_the_receipt_names_its_job(outcomes: Outcomes, entry: str) -> None:
    """Every receipt is the worker's own, of this entry, with the arguments that were sent."""
    receipt, work = receipt_of(outcomes, entry), WORK[entry]
    assert (receipt.entry, receipt.attempt) == (entry, 1)
    assert receipt.source == "worker"
    if not receipt.replaced:
        assert receipt.task == work.task
        digest = None if entry == UNREAD else arguments_sha256(work.args, work.kwargs)
        assert receipt.args_sha256 == digest
    assert receipt.sent_at is not None
    assert receipt.finished_at is not None
    assert receipt.sent_at <= receipt.finished_at


def test_the_receipt_of_a_success(outcomes: Outcomes) -> None:
    """It says what came out, where, when, and that it was once."""
    receipt = receipt_of(outcomes, "succeeds")
    assert (receipt.state, receipt.result, receipt.error) == ("succeeded", 3, None)
    assert receipt.result_sha256 == json_sha256(3)
    assert (receipt.executions, receipt.retries, receipt.redelivered) == (1, 0, False)
    assert receipt.queue == "celery"
    assert receipt.host == socket.gethostname()
    assert receipt.pid is not None
    assert "@" in (receipt.worker or "")
    assert receipt.wait is not None
    assert receipt.wait >= 0
    assert receipt.runtime is not None
    assert receipt.cpu is not None
    times = [receipt.sent_at, receipt.received_at, receipt.started_at, receipt.finished_at]
    assert times == sorted(time for time in times if time is not None)


def test_the_wrong_result_is_named(outcomes: Outcomes) -> None:
    """The mismatch says where, and what was there."""
    [mismatch] = outcomes["wrong result"].verdict.mismatches
    assert (mismatch.path, mismatch.expected, mismatch.actual) == ("result", "4", "3")


def test_the_receipt_of_a_failure(outcomes: Outcomes) -> None:
    """It has the exception's type, words and place."""
    error = receipt_of(outcomes, "raises").error
    assert error is not None
    assert (error.type, error.message) == ("ValueError", "no")
    assert "raise ValueError(message)" in (error.traceback or "")


def test_retries_are_no_further_executions(outcomes: Outcomes) -> None:
    """A task that asks to be tried again has one receipt, with the number of retries."""
    for entry in ("retries", "retries in vain"):
        receipt = receipt_of(outcomes, entry)
        assert (receipt.retries, receipt.executions) == (2, 1)
    assert receipt_of(outcomes, "retries in vain").state == "failed"


def test_what_a_job_is_replaced_by_is_no_further_execution(outcomes: Outcomes) -> None:
    """Whoever ends a job that was handed on hands in its receipt: one, of one execution."""
    replaced = [name for name, work in WORK.items() if work.task == "contract.replace"]
    ended = {name: receipt_of(outcomes, name) for name in replaced if name not in KINDS}
    assert {name: receipt.executions for name, receipt in ended.items()} == dict.fromkeys(ended, 1)
    assert all(receipt.replaced for receipt in ended.values())
    assert ended["by one that retries"].retries == 1


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        ("ignored", "ignored"),
        ("rejected", "rejected"),
        ("expired", "expired"),
        ("revoked", "revoked"),
        ("leaves", "crashed"),
    ],
)
def test_the_state(outcomes: Outcomes, entry: str, state: str) -> None:
    """What Celery stores nothing of, or the same for two things, has its own state here."""
    receipt = receipt_of(outcomes, entry)
    assert receipt.state == state
    assert receipt.result is None


@pytest.mark.parametrize("entry", ["beyond its own limit", "beyond the smaller limit"])
def test_the_limit_of_the_task_itself_is_told(outcomes: Outcomes, entry: str) -> None:
    """Whatever the entry says, and the more so where it says nothing."""
    assert "its own time limit of 0.5 s" in outcomes[entry].verdict.sentence


@pytest.mark.parametrize("entry", ["expired", "revoked"])
def test_what_never_began_has_no_runtime(outcomes: Outcomes, entry: str) -> None:
    """A job that the worker turned away was not run."""
    receipt = receipt_of(outcomes, entry)
    assert (receipt.started_at, receipt.runtime) == (None, None)


def test_an_unknown_task_is_not_sent(outcomes: Outcomes) -> None:
    """Nobody knows it, so there is no receipt."""
    assert outcomes["unknown task"].receipt is None


def test_a_result_that_is_no_json(outcomes: Outcomes) -> None:
    """It cannot be stored, which fails the job; the error says what it was."""
    error = receipt_of(outcomes, "no JSON").error
    assert error is not None
    assert error.type == "EncodeError"
    assert "lock" in error.message


def test_logs_and_evidence(outcomes: Outcomes) -> None:
    """Lines of loguru and of the standard library, and facts that the task added, arrive."""
    receipt = receipt_of(outcomes, "talks")
    text = "\n".join(receipt.log)
    assert "INFO" in text
    assert "loguru says grüße" in text
    assert "logging says grüße" in text
    assert receipt.evidence == {"rows": 3, "text": "grüße"}


@pytest.mark.parametrize(
    ("entry", "queue"), [("other queue", stacks.OTHER_QUEUE), ("routed", ROUTED)]
)
def test_the_queue(outcomes: Outcomes, entry: str, queue: str) -> None:
    """A job goes where its entry, or the app's route, sends it."""
    assert receipt_of(outcomes, entry).queue == queue


def test_a_countdown_is_waited_for(outcomes: Outcomes) -> None:
    """The worker holds the job until it is due."""
    wait = receipt_of(outcomes, "countdown").wait
    assert wait is not None
    assert wait >= HOLD


def test_a_task_with_a_call_of_its_own_keeps_its_request(outcomes: Outcomes) -> None:
    """The task sees its own id, whatever its class does around it."""
    receipt = receipt_of(outcomes, "own call")
    assert receipt.result == receipt.task_id


@pytest.mark.live
def test_a_store_is_asked_for_uuids_alone(valkey: str, tmp_path: Path) -> None:
    """One that refuses other ids loses nothing, of whatever is kept in it or looked for.

    No receipts are read from a store of an app's own, only results.
    """
    store = f"tests.contract.checking_store:CheckingStore+{database(valkey, 15)}"
    with stacks.external(database(valkey, 14), store) as stack:
        outcomes = run_all(stack, tmp_path)
    assert outcomes.keys() == WORK.keys()
    assert not [one for one in outcomes.values() if "UUID" in one.verdict.sentence]
    assert {outcomes[name].verdict.verdict for name in ("succeeds", "countdown")} == {"passed"}
    assert outcomes["raises"].verdict.verdict == "failed"


def test_the_differences_are_on_the_page() -> None:
    """Whoever reads about the stack in memory is told what it cannot show."""
    table = re.findall(r"^\| ([A-Z][^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert set(table) - {"What"} == DIFFERENCES.keys()


def test_memory_is_this_process(outcomes: Outcomes, request: pytest.FixtureRequest) -> None:
    """Only the stack in memory runs its jobs here."""
    here = receipt_of(outcomes, "succeeds").pid == os.getpid()
    assert here == ("[memory" in request.node.name)
