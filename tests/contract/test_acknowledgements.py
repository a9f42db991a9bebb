"""Jobs that Celery sends again, delivers again or drops after an end, by options of its 5.7.

An earlier Celery takes no notice of the options, so the same jobs end otherwise there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import celery
import pytest

from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.testing import Stack
from tests.contract import stacks
from tests.contract.work import entry, run_work, verdicts_of
from tests.live.broker_support import database

KNOWS: Final = celery.VERSION >= (5, 7)
KILLS: Final = 2
"""Deaths of a job, and deliveries after its end, after which it is taken out."""
QUIET: Final = 2.0
"""Seconds without a further execution: several times what a redelivery takes."""
IN_MEMORY: Final = "acks_on_failure"
"""The option that a stack in memory can show: no process ends there, and no time limit is kept."""


@dataclass(frozen=True)
class Ended:
    """What became of the jobs on one stack, and how often each has run."""

    verdicts: Mapping[str, EntryVerdict]
    ran: Mapping[str, int]


def work(folder: Path) -> dict[str, Entry]:
    """A job for each option; the last one watches for as long as one of them is delivered."""
    files = {name: str(folder / name) for name in ("weak", "poison", "acks_on_timeout", IN_MEMORY)}
    entries = (
        entry(IN_MEMORY, "refused", files[IN_MEMORY]),
        entry("acks_on_timeout", "held_up", files["acks_on_timeout"]),
        entry("weak", "dies", files["weak"], KILLS - 1, expect={"result": "lives"}),
        entry("poison", "dies", files["poison"], 9),
        entry("watch", "watch", files["acks_on_timeout"], KILLS + 1 if KNOWS else 1, QUIET),
    )
    return {one.id: one for one in entries}


LIVE: Final = [
    pytest.param("embedded", marks=pytest.mark.live),
    pytest.param("valkey", marks=pytest.mark.live),
    pytest.param("rabbitmq", marks=[pytest.mark.live, pytest.mark.rabbitmq]),
]
with_processes = pytest.mark.parametrize("ended", LIVE, indirect=True, scope="module")
"""Run a test on the stacks whose jobs run in processes of their own."""


@pytest.fixture(scope="module", params=["memory", *LIVE])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """What became of them on one stack, where all are run once; in memory of what can be."""

    def backend(number: int) -> str:
        return database(request.getfixturevalue("valkey"), number)

    contexts: Mapping[str, Callable[[], AbstractContextManager[Stack]]] = {
        "memory": stacks.memory,
        "embedded": lambda: stacks.embedded(2),
        "valkey": lambda: stacks.external(backend(11), backend(12), 2),
        "rabbitmq": lambda: stacks.external(
            request.getfixturevalue("rabbitmq_url"), backend(13), 2
        ),
    }
    folder = tmp_path_factory.mktemp("acknowledgements")
    jobs = work(folder)
    if request.param == "memory":
        jobs = {IN_MEMORY: jobs[IN_MEMORY]}
    with contexts[request.param]() as stack:
        run = run_work(stack.wait_broker(stacks.START_SECONDS), folder, jobs, kills=KILLS)
    assert run.error is None
    ran = {name: (folder / name).stat().st_size for name in jobs if name != "watch"}
    return Ended(verdicts_of(run), ran)


def receipt_of(ended: Ended, name: str) -> Receipt:
    """The receipt of an entry, which must have one."""
    receipt = ended.verdicts[name].receipt
    assert receipt is not None
    return receipt


def test_a_failure_that_is_not_acknowledged_is_one_failure(ended: Ended) -> None:
    """Its message is rejected, which the broker may make a dead letter of; it is not run again."""
    assert ended.verdicts[IN_MEMORY].verdict.verdict == "failed"
    receipt = receipt_of(ended, IN_MEMORY)
    assert (receipt.state, receipt.executions, ended.ran[IN_MEMORY]) == ("failed", 1, 1)
    assert receipt.error is not None
    assert (receipt.error.type, receipt.error.message) == ("ValueError", "no")


@with_processes
@pytest.mark.parametrize("name", ["weak", "poison"])
def test_what_is_retried_as_its_worker_was_lost(ended: Ended, name: str) -> None:
    """Its retries are no further executions, and each is a death; so many quarantine the entry."""
    again = {"weak": ("passed", [KILLS]), "poison": ("quarantined", [KILLS, KILLS + 1])}
    status, ran = again[name] if KNOWS else ("crashed", [1])
    assert ended.verdicts[name].verdict.verdict == status
    # The last death is known before its retry is taken, or while that begins.
    assert ended.ran[name] in ran
    if status == "passed":
        receipt = receipt_of(ended, name)
        died = [None if one.error is None else one.error.type for one in receipt.retried]
        assert (receipt.executions, receipt.retries, died) == (1, 1, ["WorkerLostError"])


@with_processes
def test_a_time_limit_that_is_not_acknowledged_is_met_so_often_and_no_more(ended: Ended) -> None:
    """The first one is the verdict; the start that follows too many has the job revoked."""
    assert ended.verdicts["acks_on_timeout"].verdict.verdict == "timed_out"
    ran = ended.ran["acks_on_timeout"]
    # It may begin once more before its worker knows that.
    assert ran in ((KILLS + 1, KILLS + 2) if KNOWS else (1,))
    assert ended.verdicts["watch"].verdict.verdict == "passed"
    assert receipt_of(ended, "watch").result == ran
