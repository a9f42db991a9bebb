"""Whether an entry of a large run costs more than one of a small run.

    python -m benchmarks.growth [--sizes N ...] [--json=FILE]

Runs of growing size on one worker of ours; compared is the processor time that the pytest process
takes for an entry, from its start to its end, without what a run of one entry takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.side_by_side import Figure, figure, tell
from benchmarks.throughput import Bench, Done, ours
from tests.services import valkey_server

SIZES = (1_000, 10_000, 100_000)


def cost(entries: int, folder: Path, url: str) -> Done:
    folder.mkdir()
    return ours(Bench(folder, url, entries))


def measure(sizes: Sequence[int]) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        start = cost(1, Path(name) / "one", url).cost["pytest"]
        taken: dict[int, list[Done]] = {size: [] for size in sizes}
        # The smaller ones before and after the largest: a shared machine is not always as fast.
        for number, size in enumerate([*sizes, *sizes[-2::-1]]):
            taken[size].append(cost(size, Path(name) / str(number), url))
        each = [
            statistics.mean(one.cost["pytest"] - start / size for one in done)
            for size, done in taken.items()
        ]
        rates = [statistics.mean(one.rate for one in done) for done in taken.values()]
    for (small, large), (before, after), (slow, fast) in zip(
        pairwise(sizes), pairwise(each), pairwise(rates), strict=True
    ):
        figures.append(
            figure(
                f"cost of an entry of {large:,}",
                f"one of {small:,}",
                [after / before],
                1.1,
                at_most=True,
                us=after,
                before_us=before,
                per_s=fast,
                before_per_s=slow,
            )
        )
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.sizes), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
