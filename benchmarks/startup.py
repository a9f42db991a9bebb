"""What a session costs before its first job and after its last, and what an idle plugin costs.

    python -m benchmarks.startup [--rounds=N] [--tests=N] [--json=FILE]

By the clock, against pytest without the plugin, a whole process; the rounds alternate. The first
job runs from the moment that its worker notes. What an idle plugin adds to a test is too little for
a clock: it is counted in Python calls.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, figure, quiet_about, take, tell
from benchmarks.throughput import Bench
from tests.services import valkey_server

BARE: Final = "pytest without the plugin"
ONE: Final = ("test_one.py",)
VERSION: Final = ("--version", "--version")
"""Given twice pytest loads its plugins, to list them; given once it loads none."""
COUNTING: Final = ("-p", "benchmarks.counting")
ROOT: Final = str(Path(__file__).parents[1])
MANIFEST: Final = ".manifest"


class Times:
    """Seconds of every round, by what was run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, list[float]] = {}

    def run(self, name: str, *arguments: str) -> None:
        taken = take([*PYTEST, *arguments], self._folder)
        self._taken.setdefault(name, []).append(taken.clock)
        self._taken.setdefault(f"{name}, processors", []).append(taken.cpu)

    def until_first_job(self, name: str, *arguments: str) -> None:
        """Run it, and note besides how long it was until its first job began."""
        began = time.time()
        self.run(name, *arguments)
        first = _first_start(self._folder) - began
        self._taken.setdefault(f"{name}, first job", []).append(first)

    def forget_first(self) -> None:
        """The first round of everything has warmed up caches."""
        for values in self._taken.values():
            del values[0]

    def __getitem__(self, name: str) -> list[float]:
        return self._taken[name]

    def more(self, name: str, than: str = "bare") -> list[float]:
        """What it took more than the other, round by round."""
        return [one - other for one, other in zip(self[name], self[than], strict=True)]

    def more_of_processors(self, name: str, than: str = "bare") -> float:
        """The same, of processor time of the pytest process alone: the median."""
        return statistics.median(self.more(f"{name}, processors", f"{than}, processors"))


def _first_start(folder: Path) -> float:
    """The Unix time at which the newest run's first job started."""
    newest = max((folder / MANIFEST / "runs").glob("*.sqlite"))
    with sqlite3.connect(newest) as db:
        (text,) = db.execute("SELECT min(started_at) FROM starts").fetchone()
    return datetime.fromisoformat(text).timestamp()


def take_rounds(times: Times, folder: Path, url: str, rounds: int) -> None:
    """So many rounds of everything, after one that does not count."""
    external = ("--manifest=m.jsonl", f"--manifest-broker={url}")
    for _ in range(rounds + 1):
        with quiet_about(folder / MANIFEST):
            times.run("bare", *ONE)
            times.run("idle", *PLUGIN, *ONE)
            times.run("bare version", *VERSION)
            times.run("version", *PLUGIN, *VERSION)
            times.until_first_job("external", *PLUGIN, *external)
            times.until_first_job("embedded", *PLUGIN, "--manifest=m.jsonl")
    times.forget_first()


def calls_of_a_test(folder: Path, tests: int) -> float:
    """Python calls that an idle plugin adds to each test, from its collection to its report."""
    few = 10
    idle, bare = (
        _calls(folder, tests, *plugin) - _calls(folder, few, *plugin) for plugin in (PLUGIN, ())
    )
    return (idle - bare) / (tests - few)


def _calls(folder: Path, tests: int, *plugin: str) -> int:
    path = folder / "test_many.py"
    path.write_text("".join(f"def test_{n}(): pass\n" for n in range(tests)), "utf-8")
    take([*PYTEST, *plugin, *COUNTING, path.name], folder, env={"PYTHONPATH": ROOT})
    counts = json.loads((folder / "counts.json").read_text("utf-8"))
    return int(counts["python_calls"])


def measure(rounds: int, tests: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        bench = Bench(Path(name), url, entries=1)
        folder = bench.folder
        (folder / "conftest.py").unlink()
        (folder / "test_one.py").write_text("def test_one(): pass\n", "utf-8")
        times = Times(folder)
        with bench.own_worker():
            take_rounds(times, folder, url, rounds)
        calls = calls_of_a_test(folder, tests)
    return [*_of_manifests(times), *_of_idle(times, calls)]


def _of_manifests(times: Times) -> list[Figure]:
    return [
        figure(
            "the first job on an existing stack runs, more than",
            BARE,
            times.more("external, first job"),
            0.3,
            at_most=True,
            unit="s",
        ),
        figure(
            "a manifest of one job on an existing stack, more than",
            BARE,
            times.more("external"),
            unit="s",
            of_processors_s=times.more_of_processors("external"),
            whole_process_s=statistics.median(times["external"]),
            bare_pytest_s=statistics.median(times["bare"]),
        ),
        figure(
            "the private stack's first job runs, after",
            "the start of pytest",
            times["embedded, first job"],
            1.5,
            at_most=True,
            unit="s",
        ),
        figure(
            "a manifest of one job on the private stack, more than",
            BARE,
            times.more("embedded"),
            unit="s",
            whole_process_s=statistics.median(times["embedded"]),
        ),
    ]


def _of_idle(times: Times, calls: float) -> list[Figure]:
    return [
        figure(
            "pytest --version --version with the plugin, more than",
            BARE,
            times.more("version", "bare version"),
            0.02,
            at_most=True,
            unit="s",
            of_processors_s=times.more_of_processors("version", "bare version"),
        ),
        figure(
            "a test with an idle plugin, more than",
            BARE,
            times.more("idle"),
            0.02,
            at_most=True,
            unit="s",
            of_processors_s=times.more_of_processors("idle"),
        ),
        figure(
            "Python calls of an idle plugin for a test, more than",
            BARE,
            [calls],
            2,
            at_most=True,
            unit="calls",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tests", type=int, default=5_000)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.rounds, options.tests), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
