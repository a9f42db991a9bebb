"""What ``manifest check`` costs: time and memory for 100,000 entries that have run.

    python -m benchmarks.check [--entries N] [--json=FILE] [--folder=FOLDER]

The batch is that of ``benchmarks.audit``. The check is a process of its own; told are its processor
time, start-up included, against reading the receipts once (``json.loads`` of every line), and its
peak resident memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.audit import RUN
from benchmarks.side_by_side import Figure, figure, take, tell

GOAL: Final = 17.0
"""So often the receipts are read in 10 s on the machine of the page."""
MEMORY: Final = 150.0
"""MB, at most."""


def measure(entries: int, top: Path | None) -> list[Figure]:
    """Make a batch, and check its record."""
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with tempfile.TemporaryDirectory(dir=top) as name:
        folder = Path(name)
        audit = (sys.executable, "-m", "benchmarks.audit")
        take((*audit, "--make", name, str(entries)), folder, env=env)
        once = take((*audit, "--read-once", str(folder / "receipts.jsonl")), folder, env=env)
        command = (sys.executable, "-m", "pytest_manifest", "check", RUN)
        cost = take(command, folder, env=env)
    peak = cost.rss / 1e6
    each = cost.cpu / entries * 1e6
    return [
        figure(
            f"check of {entries:,} entries",
            "reading the receipts once",
            [cost.cpu / once.cpu],
            GOAL,
            at_most=True,
            s=cost.clock,
            us_an_entry=each,
        ),
        figure(
            f"memory of a check of {entries:,} entries",
            "",
            [peak],
            MEMORY,
            at_most=True,
            unit="MB",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--json")
    parser.add_argument("--folder", type=Path, help="where the batch is made up, and removed again")
    options = parser.parse_args(arguments)
    tell(measure(options.entries, options.folder), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
