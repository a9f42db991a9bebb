"""What a plan costs of which 95 % has passed before: ``--manifest-reuse``.

    python -m benchmarks.reuse [--entries=N] [--rounds=N] [--timed=N] [--lengths S ...]

Whole sessions: the plan run whole, and the same plan after a run of 95 of 100 of its entries, which
it reuses. A session of one entry is taken as well, and what the two take beyond it is compared.

On the stack in memory it is the processor time of pytest with broker and worker, for jobs that do
nothing. That is the worst case: what is reused costs the same however long its job took. On the
embedded stack, which stays up between sessions and has eight processes that run jobs, it is the
time by the clock, for jobs of each of the ``--lengths`` (seconds): so many that they take
``--timed`` seconds. ``--entries=0`` leaves the former out, ``--lengths`` alone the latter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import (
    PLUGIN,
    PYTEST,
    Figure,
    Taken,
    figure,
    project,
    quiet_about,
    take,
    tell,
    write_manifest,
)
from pytest_manifest.ledger import Ledger

OLD: Final = 0.95
"""The share of the plan that has passed before."""
GOAL: Final = 0.1
LENGTHS: Final = (1.0, 0.1)
"""Seconds that a job takes."""
PROCESSES: Final = 8
RUNS: Final = Path(".manifest") / "runs"
MEMORY: Final = ("--manifest-broker=memory://",)
STANDING: Final = ("--manifest-stack",)
STACK: Final = (sys.executable, "-m", "pytest_manifest", "stack")
WAITING: Final = """
import time

from celery import Celery

app = Celery("jobs")


@app.task(name="jobs.wait")
def wait(number, seconds):
    time.sleep(seconds)
    return number
"""


def session(folder: Path, manifest: str, *arguments: str) -> Taken:
    """Run a manifest in a session of its own."""
    command = [*PYTEST, *PLUGIN, f"--manifest={manifest}", "--manifest-aggregate=task"]
    return take([*command, *arguments], folder, env=own_state(folder))


def own_state(folder: Path) -> dict[str, str]:
    """Have a stack that stays up be the folder's, and not the one that the user has up."""
    return {"XDG_RUNTIME_DIR": str(folder)}


def reused_by(folder: Path) -> int:
    """Count the entries that were reused, in all of the folder's runs."""
    found = 0
    for path in (folder / RUNS).glob("*.sqlite"):
        with Ledger.open(path) as ledger:
            found += sum(ledger.queries.reused_runs().values())
    return found


def one_round(folder: Path, old: int, stack: Sequence[str]) -> tuple[Taken, Taken, Taken]:
    """Return what the whole plan takes, what it takes reused, and what one entry takes."""
    with quiet_about(folder / RUNS):
        whole = session(folder, "m.jsonl", *stack)
    with quiet_about(folder / RUNS):
        session(folder, "old.jsonl", *stack)
        reused = session(folder, "m.jsonl", *stack, "--manifest-reuse=all")
        number = reused_by(folder)
    with quiet_about(folder / RUNS):
        alone = session(folder, "one.jsonl", *stack)
    if number != old:
        raise SystemExit(f"{number} entries of {old} were reused")
    return whole, reused, alone


@contextmanager
def standing_stack(folder: Path) -> Iterator[None]:
    """Have the project's stack up."""
    env = own_state(folder)
    take([*STACK, "up", f"--workers={PROCESSES}", "--timeout=180"], folder, env=env)
    try:
        yield
    finally:
        take([*STACK, "down"], folder, env=env)


def of_jobs_that_do_nothing(entries: int, rounds: int) -> Figure:
    """Compare the processor time of both plans, of jobs that do nothing."""
    old = int(OLD * entries)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        project(folder, entries)
        write_manifest(folder / "old.jsonl", old)
        write_manifest(folder / "one.jsonl", 1)
        taken = [one_round(folder, old, MEMORY) for _ in range(rounds)]
    whole, reused, alone = taken[-1]
    return figure(
        f"a plan of {entries:,} jobs that do nothing, of which 95 % has passed",
        "the plan run whole (processor time beyond a session of one)",
        [(each[1].cpu - each[2].cpu) / (each[0].cpu - each[2].cpu) for each in taken],
        details={
            "an entry run (us)": 1e6 * (whole.cpu - alone.cpu) / entries,
            "an entry of the other plan (us)": 1e6 * (reused.cpu - alone.cpu) / entries,
            "whole s": whole.cpu,
            "reused s": reused.cpu,
            "one entry s": alone.cpu,
        },
    )


def of_jobs_that_wait(timed: int, rounds: int, seconds: float) -> Figure:
    """Compare the time by the clock of both plans, of jobs that take so long, ``timed`` in all.

    The session of one has a job that takes no time: its time is that of pytest.
    """
    entries = round(timed * PROCESSES / seconds)
    old = int(OLD * entries)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "jobs.py").write_text(WAITING, "utf-8")
        (folder / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n", "utf-8")
        for name, number, wait in (("m", entries, seconds), ("old", old, seconds), ("one", 1, 0)):
            write_manifest(folder / f"{name}.jsonl", number, "jobs.wait", kwargs={"seconds": wait})
        with standing_stack(folder):
            taken = [one_round(folder, old, STANDING) for _ in range(rounds)]
    whole, reused, alone = taken[-1]
    return figure(
        f"a plan of {entries:,} jobs of {seconds:g} s, {PROCESSES} at a time, of which 95 % has "
        "passed",
        "the plan run whole (by the clock, beyond a session of one job of 0 s)",
        [(each[1].clock - each[2].clock) / (each[0].clock - each[2].clock) for each in taken],
        goal=GOAL,
        at_most=True,
        details={
            "of the whole session, x": reused.clock / whole.clock,
            "whole s": whole.clock,
            "reused s": reused.clock,
            "one entry s": alone.clock,
        },
    )


def main() -> None:
    """Take the figures and tell them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--timed", type=int, default=40)
    parser.add_argument("--lengths", type=float, nargs="*", default=LENGTHS)
    parser.add_argument("--json")
    given = parser.parse_args()
    figures = [of_jobs_that_wait(given.timed, given.rounds, one) for one in given.lengths]
    if given.entries:
        figures.insert(0, of_jobs_that_do_nothing(given.entries, given.rounds))
    tell(figures, given.json)


if __name__ == "__main__":
    main()
