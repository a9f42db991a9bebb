"""What pytest costs for an entry whose receipt is there, against a test that does nothing.

    python -m benchmarks.pytest_cost [--entries=N] [--rounds=N] [--json=FILE]

Ours is an audit of a finished run, which sends nothing and judges by the ledger alone; theirs is an
empty test that is parametrized by as many ids; both run by turns. Compared is the processor time of
collection and of running the tests, and the memory at its most. What an entry costs is the
difference between many entries and few, divided by their number, so that start-up is in neither.
Judging (each receipt anew, by the manifest's expectations) and the papers of the end (receipts,
summary, statistics) are told beside it: a test that does nothing has no such thing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, figure, project, take, tell

FEW = 100
PLAIN = """
import pytest


@pytest.mark.parametrize("entry", [f"echo-{n:07}" for n in range(%d)])
def test_nothing(entry):
    pass
"""
# Processor time at the borders of pytest's own phases, as any plugin sees them.
CLOCKS = """
import json, time
import pytest

marks = {}


def mark(name):
    marks.setdefault(name, time.process_time())


@pytest.hookimpl(tryfirst=True)
def pytest_collection():
    mark("collection")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    mark("collected")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart():
    mark("first")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    mark("last")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    mark("end")
    with open("marks.json", "w") as file:
        json.dump(marks, file)
"""


class Cost(NamedTuple):
    """Seconds of the processor, and bytes."""

    collect: float
    judge: float
    run: float
    papers: float
    memory: float

    @property
    def of_pytest(self) -> float:
        return self.collect + self.run


def prepare(folder: Path, entries: int) -> Path:
    folder.mkdir()
    project(folder, entries)
    plain = folder / "plain"
    plain.mkdir()
    (plain / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (plain / "test_plain.py").write_text(PLAIN % entries, "utf-8")
    for place in (folder, plain):
        (place / "conftest.py").write_text(CLOCKS, "utf-8")
    take([*PYTEST, *PLUGIN, "--manifest=m.jsonl", "--manifest-broker=memory://"], folder)
    audit(folder)
    nothing(folder)
    return folder


def audit(folder: Path) -> Cost:
    return _cost(folder, *PLUGIN, "--manifest=m.jsonl", "--manifest-audit")


def nothing(folder: Path) -> Cost:
    return _cost(folder / "plain", "test_plain.py")


def _cost(folder: Path, *arguments: str) -> Cost:
    taken = take([*PYTEST, *arguments], folder)
    at: dict[str, float] = json.loads((folder / "marks.json").read_text("utf-8"))
    return Cost(
        at["collected"] - at["collection"],
        at["first"] - at["collected"],
        at["last"] - at["first"],
        at["end"] - at["last"],
        taken.rss,
    )


def _each(many: Cost, few: Cost, entries: int) -> Cost:
    return Cost(*((a - b) / (entries - FEW) for a, b in zip(many, few, strict=True)))


def measure(entries: int, rounds: int) -> list[Figure]:
    ours: list[Cost] = []
    theirs: list[Cost] = []
    with tempfile.TemporaryDirectory() as name:
        few, many = prepare(Path(name) / "few", FEW), prepare(Path(name) / "many", entries)
        for _ in range(rounds):
            ours.append(_each(audit(many), audit(few), entries))
            theirs.append(_each(nothing(many), nothing(few), entries))
    pairs = list(zip(ours, theirs, strict=True))
    return [
        figure(
            "time of pytest for an entry with a receipt",
            "an empty parametrized test",
            [one.of_pytest / other.of_pytest for one, other in pairs],
            1.1,
            at_most=True,
            collection_us=_middle([one.collect for one in ours]),
            running_us=_middle([one.run for one in ours]),
            theirs_collection_us=_middle([one.collect for one in theirs]),
            theirs_running_us=_middle([one.run for one in theirs]),
            judging_us=_middle([one.judge for one in ours]),
            papers_us=_middle([one.papers for one in ours]),
        ),
        figure(
            "memory of pytest for an entry with a receipt",
            "an empty parametrized test",
            [one.memory / other.memory for one, other in pairs],
            1.1,
            at_most=True,
            ours_bytes=statistics.median(one.memory for one in ours),
            theirs_bytes=statistics.median(one.memory for one in theirs),
        ),
    ]


def _middle(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.entries, options.rounds), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
