"""What a worker pays for telling of the tasks that its jobs start.

    python -m benchmarks.tree_worker [--jobs=N] [--rounds=N] [--json=FILE]

One instrumented prefork worker of 2 gets batches in turn: jobs whose whole tree is asked for, and
the same jobs as a dispatcher of an earlier version sends them, of which nothing of their children
is told. First jobs without children, then jobs that start a group of 100 each. What is held against
each other is the processors' time of the worker with all its processes, a round each; the rate of
jobs without children is to stay at 0.98 of what it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil
import redis
from celery import Celery

from benchmarks.side_by_side import Costs, Figure, environment, figure, tell
from pytest_manifest.schema.wire import (
    HEADER_ATTEMPT,
    HEADER_ENTRY,
    HEADER_ROOT,
    HEADER_RUN,
    HEADER_SENT_AT,
    HEADER_STREAM,
    HEADER_TTL,
)
from tests.processes import child, wait_until
from tests.services import valkey_server
from tests.support import eventually

CHILDREN = 100
JOBS = f"""
from celery import Celery, group

app = Celery("jobs")
app.conf.worker_prefetch_multiplier = 64


@app.task(name="jobs.echo")
def echo(number):
    return number


@app.task(name="jobs.spread")
def spread(number):
    group(echo.s(n) for n in range({CHILDREN})).delay()
"""
SECONDS = 300.0


class Batches:
    """Send batches to a running worker, and take what it costs to do them."""

    def __init__(self, url: str, worker: psutil.Process) -> None:
        self._app = Celery("jobs", broker=url, backend=url, set_as_current=False)
        self._client = redis.Redis.from_url(url)
        self._worker = worker

    def cost(self, task: str, jobs: int, done: int, *, tree: bool) -> float:
        """Do so many jobs, ``done`` tasks with their children; the processor's time of it (s)."""
        run = f"20260101T000000-{uuid.uuid4().hex[:8]}"
        stream = f"manifest:{run[-8:]}:receipts"
        everybody = [self._worker, *self._worker.children(recursive=True)]
        costs = Costs({"worker": everybody})
        with self._app.connection_for_write() as connection:
            producer = self._app.amqp.Producer(connection)
            for number in range(jobs):
                task_id = str(uuid.uuid4())
                headers: dict[str, object] = {
                    HEADER_RUN: run,
                    HEADER_ENTRY: f"e{number}",
                    HEADER_ATTEMPT: 1,
                    HEADER_SENT_AT: "2026-01-01T00:00:00.000000+00:00",
                    HEADER_STREAM: stream,
                    HEADER_TTL: 600,
                }
                if tree:
                    headers[HEADER_ROOT] = task_id
                self._app.send_task(
                    task, [number], task_id=task_id, headers=headers, producer=producer
                )
        eventually(lambda: self._stored() >= done, within=SECONDS, what="all is done")
        taken = costs.taken()["worker"]
        self._client.flushdb()
        return taken

    def _stored(self) -> int:
        return sum(1 for _ in self._client.scan_iter("celery-task-meta-*", count=10_000))


def measured(jobs: int, rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        folder = Path(name)
        (folder / "jobs.py").write_text(JOBS, "utf-8")
        command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-c", "2"]
        command += ["-l", "warning", "-I", "pytest_manifest.worker", "-n", "bench@localhost"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        urls = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        env, log = environment(**urls), folder / "worker.log"
        with child(command, log=log, cwd=folder, env=env) as process:
            client = redis.Redis.from_url(url)
            wait_until(
                lambda: bool(client.exists("_kombu.binding.celery.pidbox")),
                process,
                log=log,
                name="the worker",
            )
            batches = Batches(url, psutil.Process(process.pid))
            batches.cost("jobs.echo", jobs, jobs, tree=True)  # imports, connections
            plain, spread = [], []
            few = max(jobs // CHILDREN, 1)
            for _ in range(rounds):
                before = batches.cost("jobs.echo", jobs, jobs, tree=False)
                after = batches.cost("jobs.echo", jobs, jobs, tree=True)
                plain.append(before / after)
                tasks = few * (CHILDREN + 1)
                alone = batches.cost("jobs.spread", few, tasks, tree=False)
                told = batches.cost("jobs.spread", few, tasks, tree=True)
                spread.append(alone / told)
    return [
        figure(
            "rate of a worker, jobs that start no other",
            "those of a dispatcher that asks for no tree",
            plain,
            0.98,
            jobs=jobs,
        ),
        figure(
            f"rate of a worker, jobs that start {CHILDREN} others each",
            "those of a dispatcher that asks for no tree",
            spread,
            tasks=few * (CHILDREN + 1),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    tell(measured(options.jobs, options.rounds), options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
