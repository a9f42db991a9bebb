"""What runs beside a test: workers that somebody started, and a pytest in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from pytest_manifest.processes import is_held
from tests import processes
from tests.plugin.conftest import Project
from tests.support import eventually

INSTRUMENTED = ("-I", "pytest_manifest.worker")
PROGRAM = (sys.executable, "-m", "celery", "-A", "jobs")


@contextmanager
def worker(
    project: Project,
    broker: str,
    *options: str,
    backend: str | None = None,
    name: str = "outside",
    slots: int = 2,
    prefix: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A ``celery worker`` of the project's app, up and answering; with all it starts it is the
    process group of its pid. ``prefix`` is a command that runs it, ``backend`` its store: ""
    none, None the broker."""
    node = f"{name}@localhost"
    command = [*prefix, *program, "worker", "-n", node]
    command += ["-c", str(slots), "-l", "info", *options]
    env = dict(os.environ) | {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker if backend is None else backend,
    }
    log = project.path / f"{name}.log"
    begins = log.stat().st_size if log.exists() else 0

    def is_ready() -> bool:
        return f"{node} ready." in log.read_text("utf-8")[begins:]

    # A command like unshare ends by nothing less, and everything in it with it.
    stop = signal.SIGKILL if prefix else signal.SIGTERM
    with processes.child(command, log=log, cwd=project.path, env=env, stop=stop) as process:
        processes.wait_until(is_ready, process, log=log, name="the worker")
        yield process


@contextmanager
def pytest_beside(project: Project, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """pytest in the project, with its output in a pipe; it does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def data_of_a_killed_run(project: Project) -> Path:
    """Kill pytest once the first job of its private stack runs; return what its broker left."""
    with pytest_beside(project, "--manifest=m.jsonl", "--manifest-workers=1") as process:
        eventually(project.ran, within=100, what="the first job has begun")
        process.kill()
        process.wait(timeout=30)
    (data,) = (project.path / ".manifest/stacks").iterdir()
    eventually(lambda: not is_held(data / "lock"), within=100, what="the stack has ended")
    return data


def unacknowledged(client: redis.Redis) -> set[str]:
    """The entries whose messages a Redis broker keeps for workers that have them."""
    kept = client.hgetall("unacked")
    return {json.loads(raw)[0]["headers"].get("manifest_entry") for raw in kept.values()}
