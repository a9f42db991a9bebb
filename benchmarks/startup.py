"""Start-up costs: bare pytest against ``--manifest`` on an external and on the embedded stack.

Run it with ``python -m benchmarks.startup [ROUNDS]``. Medians in seconds; the rounds alternate, so
that a busy machine disturbs all alike.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests import processes
from tests.services import valkey_server

JOBS = """
from celery import Celery
app = Celery("jobs")

@app.task(name="jobs.echo")
def echo(text):
    return text
"""


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run pytest; returns (start as a Unix time, seconds that it took)."""
    began, clock = time.time(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return began, time.perf_counter() - clock


def first_start(folder: Path) -> float:
    """The Unix time at which the newest run's first job started."""
    newest = max((folder / ".manifest/runs").glob("*.sqlite"))
    with sqlite3.connect(newest) as db:
        (text,) = db.execute("SELECT min(started_at) FROM starts").fetchone()
    return datetime.fromisoformat(text).timestamp()


def project(folder: Path) -> None:
    (folder / "jobs.py").write_text(JOBS)
    (folder / "pytest.ini").write_text("[pytest]\nmanifest_app = jobs:app\n")
    (folder / "test_one.py").write_text("def test_one(): pass\n")
    (folder / "m.jsonl").write_text('{"id": "a", "task": "jobs.echo", "args": ["hi"]}\n')


def worker(url: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-c", "1", "-l", "info"]
    env = dict(os.environ) | {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
    return [*command, "-I", "pytest_manifest.worker"], env


def main(rounds: int) -> None:
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        folder = Path(name)
        project(folder)
        command, env = worker(url)
        log = folder / "worker.log"
        with processes.child(command, log=log, cwd=folder, env=env) as process:
            processes.wait_until(
                lambda: "ready." in log.read_text(), process, log=log, name="the worker"
            )
            for _ in range(rounds):
                measure(folder, url, times)
    for what, values in times.items():
        print(f"{what:<42} {statistics.median(values):6.2f} s")
    extra = statistics.median(times["external stack"]) - statistics.median(times["bare pytest"])
    print(f"{'external stack, more than bare pytest':<42} {extra:6.2f} s  (goal 0.3)")


def measure(folder: Path, url: str, times: dict[str, list[float]]) -> None:
    times.setdefault("bare pytest", []).append(run(folder, "-p", "no:manifest", "test_one.py")[1])
    times.setdefault("idle plugin", []).append(run(folder, "test_one.py")[1])
    external = run(folder, "--manifest=m.jsonl", f"--manifest-broker={url}")[1]
    times.setdefault("external stack", []).append(external)
    began, whole = run(folder, "--manifest=m.jsonl")
    times.setdefault("embedded stack, until the first job runs", []).append(
        first_start(folder) - began
    )
    times.setdefault("embedded stack, whole process", []).append(whole)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
