"""What the tests of the stack share: a small app, clients of it, and a look at processes."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import redis
from celery import Celery

from pytest_manifest.stack.client import EmbeddedStack, own_pythonpath
from pytest_manifest.stack.settings import Settings
from pytest_manifest.urls import StackAddress
from tests.support import eventually

# Generous: a loaded machine needs long, and nobody waits for it when all is well.
READY_SECONDS = 60.0
GONE_SECONDS = 30.0

APP = """
import os, subprocess, sys, time
from celery import Celery

app = Celery("stackapp")

@app.task
def add(x, y):
    return x + y

@app.task
def pids():
    return [os.getppid(), os.getpid()]

@app.task(acks_late=False)
def busy(path, seconds):
    tool = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with open(path, "w") as file:
        file.write(f"{os.getppid()} {os.getpid()} {tool.pid}\\n")
    time.sleep(seconds)
"""


def write_app(folder: Path, text: str = APP) -> Path:
    """Put ``stackapp:app`` into a folder, and return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "stackapp.py").write_text(text)
    return folder


@contextlib.contextmanager
def embedded(
    folder: Path,
    *,
    workers: int = 1,
    app: str = "stackapp:app",
    log_format: str = "text",
    data: Path | None = None,
) -> Iterator[EmbeddedStack]:
    """A stack that was started and is ended in any case."""
    kept = str(data.absolute()) if data else ""
    stack = EmbeddedStack(Settings(app, workers, str(folder), log_format=log_format, data=kept))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def broker_pid(address: StackAddress) -> int:
    """The pid of the Valkey server that answers at this address."""
    with redis.Redis.from_url(address.broker_url) as broker:
        return int(broker.info("server")["process_id"])


@contextlib.contextmanager
def client(address: StackAddress) -> Iterator[Celery]:
    """A Celery app that knows only the URLs."""
    app = Celery(broker=address.broker_url, backend=address.backend_url, set_as_current=False)
    with app:
        yield app
        # Results call their store as they are collected; with Celery 5.4 for 20 s, if it is gone.
        gc.collect()
        app.backend.client.close()


def call(address: StackAddress, task: str, *args: object) -> object:
    """Run ``stackapp.TASK`` on the stack, and return its result."""
    with client(address) as app:
        return app.send_task(f"stackapp.{task}", args).get(timeout=READY_SECONDS)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return cast("str", psutil.Process(pid).status()) != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(keeper: int) -> list[int]:
    """a supervisor and all that it and its children have started."""
    process = psutil.Process(keeper)
    return [keeper, *(child.pid for child in process.children(recursive=True))]


def command_lines(pids: list[int]) -> str:
    """The command lines of processes, as everybody on the machine can read them."""
    lines = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines.append(" ".join(psutil.Process(pid).cmdline()))
    return "\n".join(lines)


def assert_gone(pids: list[int], directory: Path | None) -> None:
    """Wait until none of the processes runs and the directory is removed."""
    assert pids
    assert directory is not None
    eventually(
        lambda: not [pid for pid in pids if alive(pid)],
        within=GONE_SECONDS,
        what=f"the end of {pids}: {command_lines(pids)}",
    )
    eventually(lambda: not directory.exists(), within=GONE_SECONDS, what=f"{directory} is removed")


@contextlib.contextmanager
def python(code: str, *arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run code in another process, with pipes; kill it at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | own_pythonpath(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
