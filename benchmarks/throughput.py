"""How fast a batch is done, end to end, against what a stock worker can do at all.

    python -m benchmarks.throughput [--entries=N] [--rounds=N] [--only=NAME ...] [--json=FILE]

The floor: a stock prefork worker of 2 takes messages that were queued before it was started, and
ignores results; its rate is that between the first and the last message that leaves the queue.
Ours, on the same broker, with the worker that a user starts (``celery -A jobs worker -c 2
-I pytest_manifest.worker`` and nothing else set): from the first sending to the last test's report,
receipts durable, each entry a test of pytest. Both for jobs that do nothing and for jobs of 10 ms.
Whole processes are held against scripts that send by ``group(...)`` or ``.delay()`` and ``get()``
every result. The private stack starts its workers otherwise: that is held against the stock worker.

Two worker processes are held against one where each is a process and no more (``--pool=solo``): a
prefork worker of 2 has three processes, and one of those keeps two cores busy already.

What each process takes of the processors is told beside it: on a machine of two cores, that is what
bounds all of them together.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import redis
from celery import Celery

from benchmarks.side_by_side import (
    PLUGIN,
    PYTEST,
    Costs,
    Figure,
    environment,
    figure,
    project,
    take,
    tell,
)
from pytest_manifest import processes
from tests.processes import child, wait_until
from tests.services import valkey_server

LAST_REPORT = """
import time

last = 0.0


def pytest_runtest_logreport(report):
    global last
    last = time.time()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        with open("last.txt", "w") as file:
            file.write(repr(last))
"""
BY_GROUP = """
from celery import group
from jobs import echo

results = group(echo.s(number) for number in range({entries})).apply_async().get()
assert results == list(range({entries}))
"""
BY_DELAY = """
from jobs import echo

results = [echo.delay(number) for number in range({entries})]
assert [result.get() for result in results] == list(range({entries}))
"""
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
INSTRUMENTED = ("-I", "pytest_manifest.worker")
SUPERVISED = {
    processes.SUPERVISED: "1",
    "MANIFEST_LOG_FORMAT": "text",
    "MANIFEST_LOG_LEVEL": "INFO",
    "MANIFEST_LOG_JOBS": "0",
}
"""As the private stack's supervisor has them: by the first a worker knows that it is private."""
XDIST, ALLURE = ("-p", "xdist", "-n", "2"), ("-p", "allure_pytest")
NEIGHBOURS = (("floor", "two"), ("allure", "xdist"), ("group", "delay"), ("supervised",))
"""What is run right before and right after one of ours."""
PAIRS = (("floor_short", "short"), ("solo", "solos"))
"""What is held against each other."""
SOLO = ("--pool=solo",)
ALLURE_OPTION = "--alluredir=allure-results"


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that was done. ``rate``: entries a second from the first sending to the last report;
    ``whole``: of the whole process; ``cost``: microseconds of processors an entry, by process."""

    rate: float
    whole: float
    cost: Mapping[str, float]


class Bench:
    """A broker, a folder with a project, and workers that are started on it."""

    def __init__(self, folder: Path, url: str, entries: int, task: str = "jobs.echo") -> None:
        self.folder, self.url, self.entries, self.task = folder, url, entries, task
        self.app = Celery("jobs", broker=url, backend=url, set_as_current=False)
        folder.mkdir(exist_ok=True)
        project(folder, entries, task)
        (folder / "conftest.py").write_text(LAST_REPORT, "utf-8")
        (folder / "by_group.py").write_text(BY_GROUP.format(entries=entries), "utf-8")
        (folder / "by_delay.py").write_text(BY_DELAY.format(entries=entries), "utf-8")

    def empty(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        shutil.rmtree(self.folder / ".manifest", ignore_errors=True)
        shutil.rmtree(self.folder / "allure-results", ignore_errors=True)

    @contextmanager
    def worker(
        self,
        *arguments: str,
        name: str = "w",
        wait: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[psutil.Process]:
        """A prefork worker of two, ready."""
        command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-c", "2"]
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        settings = {"CELERY_BROKER_URL": self.url, "CELERY_RESULT_BACKEND": self.url, **(env or {})}
        with child(
            [*command, "-n", f"{name}@localhost", *arguments],
            log=log,
            cwd=self.folder,
            env=environment(**settings),
        ) as process:
            if wait:
                where = [f"{name}@localhost"]
                wait_until(
                    lambda: bool(self.app.control.ping(where, timeout=0.5)),
                    process,
                    log=log,
                    name="the worker",
                )
            yield psutil.Process(process.pid)

    def own_worker(self, name: str = "w", *arguments: str, supervised: bool = False) -> Any:
        """Start a worker that returns receipts, as a user does or as the private stack does."""
        if supervised:
            return self.worker(*INSTRUMENTED, *QUIET, *arguments, name=name, env=SUPERVISED)
        return self.worker(*INSTRUMENTED, *arguments, name=name)

    def broker_process(self) -> psutil.Process:
        port = int(self.url.rpartition(":")[2].partition("/")[0])
        for process in psutil.Process().children(recursive=True):
            if any(one.laddr.port == port for one in process.net_connections("tcp")):
                return process
        raise SystemExit("the broker's process was not found")


def floor(bench: Bench) -> float:
    """Measure the entries a second that a stock worker drains of what was queued before."""
    bench.empty()
    task = bench.app.signature(bench.task, ignore_result=True)
    with bench.app.producer_pool.acquire(block=True) as producer, producer.batch(500):
        for number in range(bench.entries):
            task.clone(args=(number,)).apply_async(producer=producer, ignore_result=True)
    with redis.Redis.from_url(bench.url) as client, bench.worker(wait=False):
        left = began = ended = 0.0
        total = bench.entries
        while True:
            left, now = client.llen("celery") + client.hlen("unacked"), time.perf_counter()
            if left < total and not began:
                began, total = now, left
            if not left:
                ended = now
                break
            time.sleep(0.01)
    return total / (ended - began)


def ours(
    bench: Bench,
    *options: str,
    workers: int = 1,
    pool: Sequence[str] = (),
    supervised: bool = False,
) -> Done:
    """Run the manifest on so many workers that return receipts."""
    bench.empty()
    with ExitStack() as stack:
        processes = [
            stack.enter_context(bench.own_worker(f"w{n}", *pool, supervised=supervised))
            for n in range(workers)
        ]
        costs = Costs(
            {
                "worker": processes,
                "pool": [c for one in processes for c in one.children(recursive=True)],
                "broker": [bench.broker_process()],
            }
        )
        command = [*PYTEST, *PLUGIN, *options, "--manifest=m.jsonl"]
        taken = take([*command, f"--manifest-broker={bench.url}"], bench.folder)
        cost = costs.taken() | {"pytest": taken.cpu}
    return Done(
        bench.entries / _first_to_last(bench.folder),
        bench.entries / taken.clock,
        {name: seconds / bench.entries * 1e6 for name, seconds in cost.items()},
    )


def _first_to_last(folder: Path) -> float:
    (ledger,) = (folder / ".manifest/runs").glob("*.sqlite")
    with sqlite3.connect(ledger) as db:
        (text,) = db.execute("SELECT min(sent_at) FROM attempts").fetchone()
        ((kind, _),) = db.execute("SELECT kind, count(*) FROM settled GROUP BY kind").fetchall()
    assert kind == "passed"
    last = float((folder / "last.txt").read_text("utf-8"))
    return last - datetime.fromisoformat(text).timestamp()


def script(bench: Bench, name: str) -> float:
    """Entries a second of a whole process that sends and gets by Celery's own means."""
    bench.empty()
    env = {"CELERY_BROKER_URL": bench.url, "CELERY_RESULT_BACKEND": bench.url}
    with bench.worker():
        return bench.entries / take([sys.executable, name], bench.folder, env=env).clock


def measure(bench: Bench, short: Bench, rounds: int, only: Sequence[str]) -> list[Figure]:
    """Take rounds of everything, each beside one of ours: a shared machine's speed changes.

    ``short``: the same for jobs of 10 ms.
    """
    kinds: dict[str, Callable[[], float | Done]] = {
        "floor": lambda: floor(bench),
        "two": lambda: ours(bench, workers=2),
        "allure": lambda: ours(bench, *ALLURE, ALLURE_OPTION),
        "xdist": lambda: ours(bench, *XDIST),
        "group": lambda: script(bench, "by_group.py"),
        "delay": lambda: script(bench, "by_delay.py"),
        "supervised": lambda: ours(bench, supervised=True),
        "floor_short": lambda: floor(short),
        "short": lambda: ours(short),
        "solo": lambda: ours(bench, pool=SOLO),
        "solos": lambda: ours(bench, pool=SOLO, workers=2),
    }
    found: dict[str, list[Any]] = {name: [] for name in ("ours", *kinds)}
    beside: dict[str, list[Done]] = {name: [] for name in kinds}

    def run(name: str, kind: Callable[[], Any]) -> None:
        found[name].append(kind())
        print(f"  {name}: {_shown(found[name][-1])}", file=sys.stderr, flush=True)

    for _ in range(rounds):
        for before, *after in NEIGHBOURS:
            chosen = [name for name in (before, *after) if not only or name in only]
            if before in chosen:
                run(before, kinds[before])
            if chosen:
                run("ours", lambda: ours(bench))
            for name in after:
                if name in chosen:
                    run(name, kinds[name])
            for name in chosen:
                beside[name].append(found["ours"][-1])
        for names in PAIRS:
            if not only or names[-1] in only:
                for name in names:
                    run(name, kinds[name])
    return _figures(found, beside)


def _shown(value: float | Done) -> str:
    if isinstance(value, Done):
        cost = ", ".join(f"{name} {us:.0f}" for name, us in value.cost.items())
        return f"{value.rate:,.0f}/s, whole {value.whole:,.0f}/s; us an entry: {cost}"
    return f"{value:,.0f}/s"


def _figures(
    found: Mapping[str, Sequence[Any]], beside: Mapping[str, Sequence[Done]]
) -> list[Figure]:
    figures: list[Figure] = []

    def against(
        name: str, peer: str, goal: float | None, top: Sequence[float], base: Sequence[float]
    ) -> None:
        if top and base:
            values = [one / other for one, other in zip(top, base, strict=True)]
            figures.append(figure(name, peer, values, goal, per_s=statistics.median(top)))

    rates = {name: [one.rate for one in own] for name, own in beside.items()}
    whole = {name: [one.whole for one in own] for name, own in beside.items()}
    against("end to end", "a stock worker's drain rate", 0.8, rates["floor"], found["floor"])
    against(
        "end to end, jobs of 10 ms",
        "a stock worker's drain rate",
        0.95,
        [one.rate for one in found["short"]],
        found["floor_short"],
    )
    against("whole process", "group(...) and get()", 1.0, whole["group"], found["group"])
    against("whole process", "delay() and get()", 1.2, whole["delay"], found["delay"])
    both = [one.whole for one in found["solos"]]
    against("whole process, two solo workers", "group(...) and get()", None, both, found["group"])
    against("whole process, two solo workers", "delay() and get()", None, both, found["delay"])
    rates["solos"] = [one.rate for one in found["solo"]]
    for name, title, peer, goal in (
        ("solos", "two worker processes", "one", 1.5),
        ("two", "two prefork workers of 2", "one", None),
        ("supervised", "a worker of the private stack", "a stock one", None),
        ("allure", "with --alluredir", "without", 0.8),
        ("xdist", "under -n 2", "without", 0.9),
    ):
        against(title, peer, goal, [one.rate for one in found[name]], rates[name])
    return figures + _ceilings(found)


def _ceilings(found: Mapping[str, Sequence[Any]]) -> list[Figure]:
    """How near two cores are to their end: what all processes take for an entry bounds the rate."""
    figures: list[Figure] = []
    cores = os.cpu_count() or 1
    titles = {
        "ours": "one worker",
        "two": "two workers",
        "solo": "one solo worker",
        "solos": "two solo workers",
    }
    for name, title in titles.items():
        runs: Sequence[Done] = found[name]
        if runs:
            cost = {
                process: statistics.median(one.cost[process] for one in runs)
                for process in runs[0].cost
            }
            ceiling = cores / sum(cost.values()) * 1e6
            rate = statistics.median(one.rate for one in runs)
            figures.append(
                figure(
                    f"rate with {title}",
                    f"what {cores} cores allow at these costs",
                    [rate / ceiling],
                    details={f"{process}_us": us for process, us in cost.items()}
                    | {"ceiling_per_s": ceiling},
                )
            )
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    names = [*(name for group in NEIGHBOURS for name in group), *(name for _, name in PAIRS)]
    parser.add_argument("--only", nargs="+", default=(), choices=names)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        bench = Bench(Path(name) / "echo", url, options.entries)
        short = Bench(Path(name) / "short", url, options.entries // 10, "jobs.short")
        figures = measure(bench, short, options.rounds, options.only)
    tell(figures, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
