"""What Allure costs for an entry, against what allure-pytest costs for a test that does nothing.

Both are the difference between a pytest with ``--alluredir`` and one without, divided by the number
of tests: here of entries that an audit judges (so no job runs meanwhile), there of an empty test
that is parametrized by as many ids. Ours writes times, steps and the receipt for it. Processor time
decides, and files lie in memory where that can be: on a busy machine's disk the same file costs
from 50 to 500 microseconds. The time by the clock is told beside it.

    python -m benchmarks.allure_cost [--entries=N] [--rounds=N] [--json=FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, environment, figure, tell

GOAL = 0.8
JOBS = """
from celery import Celery

app = Celery("jobs")


@app.task(name="jobs.double")
def double(n):
    return {"n": 2 * n}
"""
PLAIN = """
import pytest


@pytest.mark.parametrize("entry", [f"d-{n}" for n in range(%d)])
def test_nothing(entry):
    pass
"""
ALLURE = "--alluredir=allure-results"
COMMAND = (*PYTEST, *PLUGIN, "-p", "allure_pytest")


def prepare(folder: Path, entries: int) -> None:
    """A batch that has run, and an empty test, side by side."""
    (folder / "jobs.py").write_text(JOBS)
    (folder / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n")
    with (folder / "m.jsonl").open("w") as file:
        for n in range(entries):
            entry = {"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n}}
            file.write(json.dumps(entry | {"expect": {"result": {"n": 2 * n}}}) + "\n")
    plain = folder / "plain"
    plain.mkdir()
    (plain / "pytest.ini").write_text("[pytest]\n")
    (plain / "test_plain.py").write_text(PLAIN % entries)
    seconds(folder, "--manifest=m.jsonl", "--manifest-broker=memory://")


class Taken(NamedTuple):
    """Seconds of a pytest: of its processor, and by the clock."""

    cpu: float
    clock: float


def seconds(folder: Path, *arguments: str) -> Taken:
    """How long a pytest takes; it must pass."""
    results = folder / "allure-results"
    if results.exists():
        subprocess.run(["rm", "-r", str(results)], check=True)
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=3600,
    )
    after, ended = os.times(), time.perf_counter()
    user = after.children_user - before.children_user
    return Taken(user + after.children_system - before.children_system, ended - began)


def measure(folder: Path, entries: int, rounds: int) -> dict[str, list[Taken]]:
    """Milliseconds a test that ``--alluredir`` adds, ours and theirs, by turns."""
    audit = ("--manifest=m.jsonl", "--manifest-audit")
    told: dict[str, list[Taken]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, place, arguments in (
            ("theirs", folder / "plain", ("test_plain.py",)),
            ("ours", folder, audit),
        ):
            without = seconds(place, *arguments)
            using = seconds(place, *arguments, ALLURE)
            scale = 1000 / entries
            cpu, clock = using.cpu - without.cpu, using.clock - without.clock
            told[name].append(Taken(cpu * scale, clock * scale))
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        prepare(folder, options.entries)
        told = measure(folder, options.entries, options.rounds)
        results = list((folder / "allure-results").iterdir())
        theirs = list((folder / "plain" / "allure-results").iterdir())
        size = sum(path.stat().st_size for path in results)
    tell([_figure(told, options.entries, len(results), len(theirs), size)], options.json)
    return 0


def _figure(
    told: dict[str, list[Taken]], entries: int, files: int, plain_files: int, size: int
) -> Figure:
    """The ratio of processor times of each round, and the medians it comes from."""
    middle = {
        name: Taken(*(statistics.median(part) for part in zip(*values, strict=True)))
        for name, values in told.items()
    }
    return figure(
        f"what Allure costs an entry, {entries:,} entries",
        "allure-pytest with a no-op parametrize",
        [mine.cpu / plain.cpu for mine, plain in zip(told["ours"], told["theirs"], strict=True)],
        GOAL,
        at_most=True,
        ms_of_processor=middle["ours"].cpu,
        ms_of_processor_plain=middle["theirs"].cpu,
        by_the_clock=middle["ours"].clock / middle["theirs"].clock,
        files_an_entry=files / entries,
        files_a_plain_test=plain_files / entries,
        bytes_an_entry=size / entries,
    )


if __name__ == "__main__":
    raise SystemExit(main())
