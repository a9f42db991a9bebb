"""What an entry takes of the memory of a pytest that keeps its report: ``-n 2`` with JUnit.

    python -m benchmarks.report_memory [--entries=N] [--json=FILE]

A run of many entries and one of few are audited under xdist with ``--junitxml``; compared is the
memory of the controller at its most. What an entry takes is the difference, divided by the number
of entries. The same is said of as many empty parametrized tests under the same options.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pytest_cost import prepare
from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, figure, take, tell

FEW = 1_000
REPORTED = ("-p", "xdist", "-n", "2", "--junitxml=junit.xml")
GOAL_KB = 10.0


def of_entries(folder: Path) -> int:
    """Measure the bytes of the controller that audits a run of the folder's manifest."""
    return take([*PYTEST, *PLUGIN, *REPORTED, "--manifest=m.jsonl", "--manifest-audit"], folder).rss


def of_tests(folder: Path) -> int:
    """Measure the bytes of the controller of as many tests that do nothing."""
    return take([*PYTEST, *REPORTED, "test_plain.py"], folder / "plain").rss


def measure(entries: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        few = prepare(Path(name) / "few", FEW)
        many = prepare(Path(name) / "many", entries)
        ours, theirs = (
            (taken(many) - taken(few)) / (entries - FEW) for taken in (of_entries, of_tests)
        )
    return [
        figure(
            "memory of pytest for an entry, under -n 2 with JUnit",
            f"a session of {entries:,}",
            [ours / 1000],
            GOAL_KB,
            at_most=True,
            unit="kB",
            of_an_empty_test_kb=theirs / 1000,
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.entries), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
