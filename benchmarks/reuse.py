"""What a plan costs of which 95 % has passed before: ``--manifest-reuse``.

    python -m benchmarks.reuse [--entries=N] [--rounds=N] [--json=FILE]

Whole sessions on the stack in memory: the plan run whole, and the same plan after a run of 95 of
100 of its entries, which it reuses. It is the processor time of pytest with broker and worker, for
jobs that do nothing. That is the worst case: what is reused costs the same however long its job
took. A session of one entry is taken as well, and what the two take beyond it is compared; by that
it is computed what the ratio is for jobs of 100 ms and 1 s.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import (
    PLUGIN,
    PYTEST,
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
LENGTHS: Final = (0.1, 1.0)
"""Seconds that a job takes."""


def session(folder: Path, manifest: str, *arguments: str) -> Taken:
    """Run a manifest in a session of its own."""
    command = [*PYTEST, *PLUGIN, f"--manifest={manifest}", "--manifest-aggregate=task"]
    return take([*command, "--manifest-broker=memory://", *arguments], folder)


def reused_by(folder: Path) -> int:
    """Count the entries that were reused, in all of the folder's runs."""
    found = 0
    for path in (folder / ".manifest" / "runs").glob("*.sqlite"):
        with Ledger.open(path) as ledger:
            found += sum(ledger.queries.reused_runs().values())
    return found


def one_round(folder: Path, old: int) -> tuple[Taken, Taken, Taken]:
    """Return what the whole plan takes, what it takes reused, and what one entry takes."""
    with quiet_about(folder / ".manifest"):
        whole = session(folder, "m.jsonl")
    with quiet_about(folder / ".manifest"):
        session(folder, "old.jsonl")
        reused = session(folder, "m.jsonl", "--manifest-reuse=all")
        number = reused_by(folder)
    with quiet_about(folder / ".manifest"):
        alone = session(folder, "one.jsonl")
    if number != old:
        raise SystemExit(f"{number} entries of {old} were reused")
    return whole, reused, alone


def main() -> None:
    """Take the figures and tell them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json")
    given = parser.parse_args()
    entries: int = given.entries
    old = int(OLD * entries)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        project(folder, entries)
        write_manifest(folder / "old.jsonl", old)
        write_manifest(folder / "one.jsonl", 1)
        rounds = [one_round(folder, old) for _ in range(given.rounds)]
    whole, reused, alone = rounds[-1]
    run, again = ((one.cpu - alone.cpu) / entries for one in (whole, reused))
    figures = [
        figure(
            f"a plan of {entries:,} jobs that do nothing, of which 95 % has passed",
            "the plan run whole (processor time beyond a session of one)",
            [(each[1].cpu - each[2].cpu) / (each[0].cpu - each[2].cpu) for each in rounds],
            details={
                "an entry run (us)": 1e6 * run,
                "an entry of the other plan (us)": 1e6 * again,
                "whole s": whole.cpu,
                "reused s": reused.cpu,
                "one entry s": alone.cpu,
            },
        )
    ]
    figures += [
        figure(
            f"a plan of jobs of {seconds:g} s, of which 95 % has passed",
            "the jobs and what the run of the whole plan takes for them",
            [((1 - OLD) * seconds + again) / (seconds + run)],
            goal=GOAL,
            at_most=True,
        )
        for seconds in LENGTHS
    ]
    tell(figures, given.json)


if __name__ == "__main__":
    main()
