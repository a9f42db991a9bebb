"""How long after a task's end its verdict is there, where the worker has time to spare.

    python -m benchmarks.latency [--entries=N] [--json=FILE]

Jobs of 20 ms on a worker of two, so that it is idle for some of the time. Told are the times from
the task's end, by the worker's clock, to the verdict in the ledger and to the test's report, and
one round trip to the broker beside them. Broker, worker and pytest share one machine and its clock.
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

import redis

from benchmarks.side_by_side import PLUGIN, PYTEST, Figure, figure, take, tell
from benchmarks.throughput import Bench
from tests.services import valkey_server

GOAL = 60.0
NAP = """
import time

from celery import Celery

app = Celery("jobs")


@app.task(name="jobs.echo")
def echo(number):
    time.sleep(0.02)
    return number
"""
REPORTED = """
import json, time

times = {}


def pytest_runtest_logreport(report):
    if report.when == "call":
        times[report.nodeid.partition("[")[2][:-1]] = time.time()


def pytest_unconfigure():
    with open("reported.json", "w") as file:
        json.dump(times, file)
"""


def measure(entries: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        bench = Bench(Path(name), url, entries)
        (bench.folder / "jobs.py").write_text(NAP, "utf-8")
        (bench.folder / "conftest.py").write_text(REPORTED, "utf-8")
        with bench.own_worker():
            # Few in flight: what waits in a backlog has nothing to do with what is measured.
            command = [*PYTEST, *PLUGIN, "--manifest=m.jsonl", "--manifest-window=2"]
            take([*command, f"--manifest-broker={url}"], bench.folder)
            trip = round_trip(url)
        judged, reported = lags(bench.folder)
    return [
        figure(
            "a verdict after its task's end, p99",
            f"a round trip of {trip:.2f} ms",
            [_p99(judged)],
            GOAL,
            at_most=True,
            unit="ms",
            verdict_p50_ms=statistics.median(judged),
            report_p50_ms=statistics.median(reported),
            report_p99_ms=_p99(reported),
        )
    ]


def round_trip(url: str) -> float:
    """Milliseconds, the median of many."""
    taken = []
    with redis.Redis.from_url(url) as client:
        for _ in range(500):
            began = time.perf_counter()
            client.ping()
            taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def lags(folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds from each task's end to its verdict, and to its test's report."""
    reports: dict[str, float] = json.loads((folder / "reported.json").read_text("utf-8"))
    (ledger,) = (folder / ".manifest/runs").glob("*.sqlite")
    judged, reported = [], []
    with sqlite3.connect(ledger) as db:
        for entry, settled, receipt in db.execute("SELECT entry, settled_at, receipt FROM settled"):
            ended = _moment(json.loads(receipt)["finished_at"])
            judged.append((_moment(settled) - ended) * 1000)
            reported.append((reports[entry] - ended) * 1000)
    return judged, reported


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measure(options.entries), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
