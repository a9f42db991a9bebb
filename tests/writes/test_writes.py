"""A short run whose n-th write fails goes on, or ends with a sentence and is completed later.

Each write of a ledger here; of whole sessions some of each kind. ``make writes`` has all fail.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.writes.disk import FAULTS, Call, Fault, is_possible
from tests.writes.ledger import fail_each_call
from tests.writes.playing import Job, play_all, sample
from tests.writes.trials import Trial

SEED = int(os.environ.get("MANIFEST_WRITES_SEED", "1"))
FEW = 24
"""Faults of sessions whose stack is in memory."""
OF_A_STACK = 5
"""Faults of a private stack, whose sessions take seconds."""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if not is_possible():
        missing("a disk that fails needs Linux and gcc")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_write_of_a_ledger_may_fail(fault: Fault, tmp_path: Path) -> None:
    """What was acknowledged is there, of the rest all or nothing, and the ledger can go on."""
    calls, wrong = fail_each_call(tmp_path / "disk", fault)
    assert calls > 50
    assert not wrong


def played(tmp_path: Path, stack: str, few: int) -> list[Trial]:
    """Play calls of different kinds, about ``few``, each with the next fault in turn."""
    trials: list[Trial] = []

    def jobs(calls: Sequence[Call]) -> list[Job]:
        numbers = sample(calls, 1, SEED)
        step = max(1, len(numbers) // few)
        chosen = numbers[SEED % step :: step]
        return [(FAULTS[(n + SEED) % len(FAULTS)].name, at) for n, at in enumerate(chosen)]

    play_all(tmp_path / "players", stack, 1, jobs, trials.append)
    return trials


def wrong_of(trials: Sequence[Trial]) -> list[str]:
    """Say of each trial that went wrong where, how, and what was printed."""
    return [
        f"{one.fault} at {one.call}: {one.wrong}\n" + "\n---\n".join(one.texts)
        for one in trials
        if one.wrong
    ]


def test_a_write_of_any_kind_may_fail(tmp_path: Path) -> None:
    """Ledger, locks, copies and reports; what ran is counted by what the jobs wrote."""
    trials = played(tmp_path, "in memory", FEW)
    assert len(trials) >= FEW
    assert not wrong_of(trials)
    assert {one.outcome for one in trials} >= {"went on", "ended", "killed"}


@pytest.mark.live
def test_a_write_of_a_private_stack_may_fail(tmp_path: Path) -> None:
    """Also what its broker, its supervisor and its workers write."""
    trials = played(tmp_path, "private", OF_A_STACK)
    assert len(trials) >= OF_A_STACK
    assert not wrong_of(trials)
