"""All benchmarks, one after another: a table, ``results.json``, plots, and the page of the docs.

    python -m benchmarks [--quick] [--only NAME ...] [--page]

Each runs in a process of its own, and nothing else should run meanwhile. With ``--only`` the other
figures stay as they were; ``--page`` only writes plots and page anew from ``results.json``. What
needs a server that is not installed is left out and named, in the terminal and on the page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.page import PLOTS, Document, Results, plot, write_page
from benchmarks.side_by_side import environment, machine

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = ROOT / "docs" / "evidence" / "benchmarks.md"
BENCHMARKS: Final[dict[str, tuple[str, ...]]] = {
    "dispatch": (),
    "throughput": (),
    "latency": (),
    "pytest_cost": (),
    "report_memory": (),
    "growth": (),
    "stream_replay": (),
    "trees": (),
    "tree_worker": (),
    "signing": (),
    "reuse": (),
    "codec": (),
    "audit": (),
    "check": (),
    "reader": (),
    "startup": (),
    "allure_cost": (),
    "reports": (),
}
QUICK: Final[dict[str, tuple[str, ...]]] = {
    "dispatch": ("--entries=2000", "--rounds=1"),
    "throughput": ("--entries=1000", "--rounds=1"),
    "latency": ("--entries=200",),
    "pytest_cost": ("--entries=1000", "--rounds=1"),
    "report_memory": ("--entries=2000",),
    "growth": ("--sizes", "300", "1000"),
    "stream_replay": ("--entries=5000",),
    "trees": ("--tasks=2020", "--rounds=1"),
    "tree_worker": ("--jobs=300", "--rounds=1"),
    "signing": ("--jobs=300", "--entries=2000", "--rounds=1"),
    "reuse": ("--entries=400", "--rounds=1", "--timed=2"),
    "codec": ("--sizes=1000,3000", "--rounds=3"),
    "audit": ("--sizes", "2000", "10000"),
    "check": ("--entries=2000",),
    "reader": ("--entries=2000",),
    "startup": ("--rounds=1", "--tests=500"),
    "allure_cost": ("--entries=200", "--rounds=1"),
    "reports": ("--entries=500",),
}
"""For a look whether all of them work: its figures are good for nothing else."""


def run(name: str, arguments: Sequence[str]) -> tuple[Results, Sequence[str]]:
    """Take one benchmark's figures, and say what it left out. Raises SystemExit where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, f"--json={file}"]
        print(f"== {name}", flush=True)
        done = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
        if not file.exists():
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
        document = json.loads(file.read_text("utf-8"))
    figures: Results = document["figures"]
    return [{**row, "benchmark": name} for row in figures], document["left_out"]


def with_figures(
    document: Document, name: str, found: Results, left_out: Sequence[str]
) -> dict[str, object]:
    """Return the results with these of one benchmark, in place of those that it had."""
    figures = [row for row in document["figures"] if row["benchmark"] != name] + list(found)
    reasons = {**document.get("left_out", {}), name: list(left_out)}
    order = list(BENCHMARKS)
    return {
        "machine": machine(),
        "figures": sorted(figures, key=lambda row: order.index(row["benchmark"])),
        "left_out": {one: reasons[one] for one in order if reasons.get(one)},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHMARKS))
    parser.add_argument("--page", action="store_true", help="only plots and page")
    options = parser.parse_args(arguments)
    document: Document = {"figures": []}
    if RESULTS.exists():
        document = json.loads(RESULTS.read_text("utf-8"))
    names = [] if options.page else options.only or BENCHMARKS
    missing: list[str] = []
    for name in names:
        found, left_out = run(name, QUICK.get(name, ()) if options.quick else BENCHMARKS[name])
        missing += left_out
        if options.quick:
            continue
        document = with_figures(document, name, found, left_out)
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if not options.quick:
        write_page(document, PAGE)
        for file, (title, bars) in PLOTS.items():
            drawn = bars(document["figures"])
            if drawn:
                plot(ROOT / "docs" / "images" / file, title, drawn)
        print(f"written: {RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)} and its plots")
    for reason in missing:
        print(f"left out: {reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
