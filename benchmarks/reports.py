"""What each report of a large run costs: its time, its size, and its share of the run.

    python -m benchmarks.reports [--entries=N] [--json=FILE]

A manifest of 10,000 short jobs is run once on the private stack. Then the run is audited, which
sends nothing: without any report, and with each of them in turn. A report's time is what its audit
takes longer than the plain one; its share is that of the run. ``summary.json`` and the receipts
are always written, so the plain audit has them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, environment, figure, tell

JOBS = """
from celery import Celery

app = Celery("jobs")


@app.task
def double(number):
    return {"doubled": 2 * number, "text": "x" * 100}
"""
REPORTS = {
    "run page": ("--manifest-report=page.html", "page.html"),
    "JUnit": ("--junitxml=report.xml", "report.xml"),
    "Markdown": ("--manifest-report=summary.md", "summary.md"),
    "Allure results": ("--alluredir=allure-results", "allure-results"),
}
COMMON = ("--manifest=jobs.jsonl", "--manifest-app=jobs:app")


def run(folder: Path, *options: str) -> float:
    """Seconds of a pytest that must succeed."""
    command = [*PYTEST, *PLUGIN, "-p", "allure_pytest", *COMMON, *options]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return took


def size(path: Path) -> float:
    """Megabytes of a file, or of all files in a folder."""
    files: Sequence[Path] = list(path.rglob("*")) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def measure(folder: Path, entries: int) -> list[Figure]:
    """The run's time, then what each report adds to an audit of it."""
    (folder / "jobs.py").write_text(JOBS, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    with (folder / "jobs.jsonl").open("w", encoding="utf-8") as file:
        for number in range(entries):
            row = {"id": f"job-{number:06}", "task": "jobs.double", "args": [number]}
            file.write(json.dumps(row) + "\n")
    whole = run(folder)
    plain = run(folder, "--manifest-audit")
    (summary,) = (folder / ".manifest" / "runs").glob("*.summary.json")
    print(f"{entries:,} entries: run {whole:.1f} s, audit {plain:.1f} s", end="")
    print(f", summary.json {size(summary):.2f} MB (always written)")
    found = []
    for title, (option, made) in REPORTS.items():
        took = run(folder, "--manifest-audit", option) - plain
        found.append(
            figure(
                f"{title}, {entries:,} entries",
                "the run's time",
                [100 * took / whole],
                unit="%",
                seconds=took,
                megabytes=size(folder / made),
            )
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="reports-") as name:
        tell(measure(Path(name), options.entries), options.json)


if __name__ == "__main__":
    main()
