"""A short run whose n-th write fails goes on, or ends with a sentence and is completed later.

Each write of a ledger here, and of whole sessions one of each family. ``make writes`` has all fail,
in every way.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.turns import part_of_the_day
from tests.writes.__main__ import LEDGER, NAMES, Choice, Row, table
from tests.writes.disk import FAULTS, Call, is_possible
from tests.writes.ledger import fail_each_call
from tests.writes.playing import Job, kind_of, play_all
from tests.writes.trials import Trial

SEED = int(os.environ.get("MANIFEST_WRITES_SEED", "1"))
FAMILIES = (
    ("write *.sqlite.new", "a torn page and the process killed"),
    ("rename *.sqlite", "I/O error, once"),
    ("write *.sqlite-wal", "a torn page and an I/O error"),
    ("create *.sqlite-shm", "no space from then on"),
    ("rename *.manifest.jsonl", "no space, once"),
    ("write junit.xml", "I/O error from then on"),
    ("write *-result.json.tmp", "no space, once"),
)
"""A call of each kind that something else has to be done about, and how it fails; half of them each
day."""
OF_A_STACK = (
    ("write appendonly.aof.*.incr.aof", "no space, once"),
    ("write boot", "I/O error from then on"),
)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if not is_possible():
        missing("a disk that fails needs Linux and gcc")


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[fault.name for fault in FAULTS])
def test_each_write_of_a_ledger_may_fail(number: int, tmp_path: Path) -> None:
    """What was acknowledged is there, of the rest all or nothing, and the ledger can go on.

    Here each call fails in one of the ways, the next one in the next.
    """
    fault = FAULTS[number]
    calls, wrong = fail_each_call(tmp_path / "disk", fault, number + 1, len(FAULTS))
    assert calls > 50 // len(FAULTS)
    assert not wrong


def played(tmp_path: Path, stack: str, families: Sequence[tuple[str, str]]) -> list[Trial]:
    """Play a call of each of these kinds."""
    trials: list[Trial] = []

    def jobs(calls: Sequence[Call]) -> Iterator[Job]:
        rng = random.Random(SEED)
        for kind, fault in families:
            of_kind = [call.number for call in calls if fnmatchcase(kind_of(call), kind)]
            assert of_kind, f"{kind}: no such call, only {sorted(set(map(kind_of, calls)))}"
            yield fault, rng.choice(of_kind)

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
    trials = played(tmp_path, "in memory", part_of_the_day(FAMILIES, 2))
    assert not wrong_of(trials)
    assert {one.outcome for one in trials} & {"ended", "killed"}


@pytest.mark.live
def test_a_write_of_a_private_stack_may_fail(tmp_path: Path) -> None:
    """Also what its broker, its supervisor and its workers write."""
    assert not wrong_of(played(tmp_path, "private", part_of_the_day(OF_A_STACK, 2)))


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    """In a sentence, with a status of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.writes"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (2, "", 1)
    assert "apt-get install gcc" in done.stdout


def test_the_table_keeps_what_was_not_run_this_time() -> None:
    """A part at a time may be run: each takes its time."""
    every = str(Choice(None, in_turn=False, seed=1))
    private = NAMES[-1]
    row, other = Row(private, FAULTS[0].name), Row(LEDGER, FAULTS[0].name)
    before = f"{table(dict.fromkeys(NAMES, every), [])}\n{row}\n{other}"
    after = table({private: str(Choice(1, in_turn=True, seed=7))}, [row, row], before)
    assert after.count(str(row)) == 2
    assert after.count(str(other)) == 1
    assert "- a ledger alone: every call in every way\n" in after
    assert "- pytest, stack private, in turn: 1 of each kind in one of the ways, chosen" in after
