"""What live tracing costs: a run whose spans and metrics a collector gets, against one without.

    python -m benchmarks.tracing [--jobs=N] [--rounds=N] [--json=FILE]

Whole sessions on a private stack, traced and not by turns: the processors' time of pytest, broker,
workers and the process that sends, together, for jobs that do nothing, of which one in a hundred
fails. The collector is a process of its own, and does not count. Above 1,000 entries traces are
sampled; that each failed entry has its span all the same is looked at in every round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import PLUGIN, PYTEST, figure, project, quiet_about, take, tell
from tests.otlp_receiver import Receiver, receiver

GOAL: Final = 1.1
"""How many times the processors' time of the same run without it."""
_EVERY: Final = 100


def write(folder: Path, jobs: int) -> int:
    """Write the project; return how many of its entries fail."""
    project(folder, jobs)
    rows = [json.loads(line) for line in (folder / "m.jsonl").read_text("utf-8").splitlines()]
    for row in rows[::_EVERY]:
        row["expect"] = {"result": -1}
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return len(rows[::_EVERY])


def looked_at(collector: Receiver, failed: int) -> int:
    """Return how many spans came. Raises SystemExit where a failed entry has none."""
    spans = collector.spans
    bad = {
        one["attributes"]["test.case.name"]
        for one in spans
        if one["attributes"].get("test.case.result.status") == "fail"
    }
    if len(bad) != failed:
        raise SystemExit(f"{failed} entries have failed, and {len(bad)} of them have a span")
    return len(spans)


def main() -> None:
    """Take the figures and tell them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    given = parser.parse_args()
    command = [*PYTEST, *PLUGIN, "--manifest=m.jsonl", "--manifest-aggregate=task"]
    ratios, clocks, spans = [], [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        failed = write(folder, given.jobs)
        for _ in range(given.rounds):
            with quiet_about(folder / ".manifest"):
                plain = take(command, folder, expected=1)
            file = folder / "otlp.jsonl"
            file.unlink(missing_ok=True)
            with quiet_about(folder / ".manifest"), receiver(folder) as collector:
                option = f"--override-ini=manifest_otlp={collector.endpoint}"
                traced = take([*command, option], folder, expected=1)
                spans = looked_at(collector, failed)
            ratios.append(traced.cpu / plain.cpu)
            clocks.append(traced.clock / plain.clock)
    found = figure(
        f"tracing a run of {given.jobs:,} entries",
        "the same run without",
        ratios,
        goal=GOAL,
        at_most=True,
        details={"spans": float(spans), "failed": float(failed)},
        clock=sorted(clocks)[len(clocks) // 2],
    )
    tell([found], given.json)


if __name__ == "__main__":
    main()
