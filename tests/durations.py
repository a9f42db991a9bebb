"""Measure what every test costs, and sum it by folder and file: ``make durations``.

As a pytest plugin (``-p tests.durations``) it writes a line for each test into
``build/durations/PROCESS.jsonl``. As a command it adds them up:

    python -m tests.durations [--write before|after]

``--write`` puts the table of folders, each ring by itself, into tests/README.md. Seconds by the
clock are those of the test with its fixtures; a server that lives as long as the session is
counted where it was first asked for. Seconds of processors are those of pytest's process and of
the children that it has waited for; children of theirs count once those have waited for them.
Processes are those that pytest's process has started itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests import rings
from tests.page_tables import put

FOLDER: Final = Path(__file__).resolve().parent.parent / "build" / "durations"
PAGE: Final = Path("tests/README.md")
STARTS: Final = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"})
"""The audit events of a process that starts another one."""
DEAREST: Final = 20
"""How many files and tests are listed."""

_started = [0]
"""How many processes this one has started; an audit hook cannot be taken away again."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What some tests cost: seconds by the clock and of processors, and processes started."""

    tests: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    processes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.tests + other.tests,
            self.seconds + other.seconds,
            self.processor + other.processor,
            self.processes + other.processes,
        )


def pytest_configure(config: pytest.Config) -> None:
    """Begin the file of this process, but not that of the controller, which runs no test."""
    if config.getoption("numprocesses", None) is None:
        worker: dict[str, str] = getattr(config, "workerinput", {})
        config.pluginmanager.register(_Measurement(worker.get("workerid", "main")))


class _Measurement:
    def __init__(self, process: str) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._path = FOLDER / f"{process}.jsonl"
        self._path.write_text("", "utf-8")
        sys.addaudithook(_count_start)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        began, processor, started = time.monotonic(), sum(os.times()[:4]), _started[0]
        try:
            return (yield)
        finally:
            row = {
                "test": item.nodeid,
                "ring": rings.ring_of(item.nodeid, rings.mark_of(item)),
                "seconds": round(time.monotonic() - began, 4),
                "processor": round(sum(os.times()[:4]) - processor, 4),
                "processes": _started[0] - started,
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _count_start(event: str, _: tuple[object, ...]) -> None:
    if event in STARTS:
        _started[0] += 1


def read() -> tuple[dict[str, Cost], dict[str, int]]:
    """Return what each test has cost, and its ring, by its node id."""
    costs: dict[str, Cost] = defaultdict(Cost)
    ring_of: dict[str, int] = {}
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            costs[row["test"]] += Cost(1, row["seconds"], row["processor"], row["processes"])
            ring_of[row["test"]] = row["ring"]
    return dict(costs), ring_of


def summed(costs: dict[str, Cost], key: Callable[[str], str]) -> list[tuple[str, Cost]]:
    """Return the sums by what ``key`` makes of a node id, the dearest by the clock first."""
    sums: dict[str, Cost] = defaultdict(Cost)
    for test, cost in costs.items():
        sums[key(test)] += cost
    return sorted(sums.items(), key=lambda one: -one[1].seconds)


def file_of(test: str) -> str:
    """Return the file of a node id."""
    return test.partition("::")[0]


def folder_of(test: str) -> str:
    """Return the folder below the tests of a node id; the file's name where it is in none."""
    return file_of(test).removeprefix("tests/").partition("/")[0]


def by_ring(costs: dict[str, Cost], ring_of: dict[str, int]) -> list[tuple[str, Cost]]:
    """Return the sums by folder and ring, each ring's own sum at the end of it."""
    rows: list[tuple[str, Cost]] = []
    for ring in rings.RINGS:
        here = {test: cost for test, cost in costs.items() if ring_of[test] == ring}
        if not here:
            continue
        rows += [(f"{name}, ring {ring}", one) for name, one in summed(here, folder_of)]
        rows.append((f"all of ring {ring}", sum(here.values(), Cost())))
    return rows


def table(head: str, rows: Iterable[tuple[str, Cost]]) -> str:
    """Return a Markdown table of costs."""
    lines = [
        f"| {head} | tests | s by the clock | s of processors | processes |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {one.tests:,} | {one.seconds:,.0f} | {one.processor:,.0f} "
        f"| {one.processes:,} |"
        for name, one in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the tables, and write that of the folders where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.durations")
    parser.add_argument("--write", choices=("before", "after"))
    options = parser.parse_args()
    costs, ring_of = read()
    if not costs:
        print(f"{FOLDER} has no measurement: run make durations", file=sys.stderr)
        return 2
    folders = table("folder", by_ring(costs, ring_of))
    print(folders, end="\n\n")
    print(table("file", summed(costs, file_of)[:DEAREST]), end="\n\n")
    print(table("test", summed(costs, str)[:DEAREST]))
    if options.write:
        put(PAGE, f"durations {options.write}", folders)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
