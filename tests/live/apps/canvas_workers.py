"""Run solo workers of the app ``canvas``, a process for each queue.

    python -m tests.live.apps.canvas_workers NAME QUEUE...

They are forked from one that has imported all they need, so many are there at once. ``NAME`` ends
their names. What a worker's jobs start goes to that worker's own queue.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

from celery.bin.celery import celery as _program  # noqa: F401  (so that it is imported once)
from kombu.asynchronous import set_event_loop

import pytest_manifest.worker  # noqa: F401
from tests.live.apps import canvas


def work(name: str, queue: str) -> None:
    canvas.app.conf.task_default_queue = queue
    options = ["-I", "pytest_manifest.worker", "-Q", queue, "-n", f"{queue}-{name}@localhost"]
    options += ["-P", "solo", "-l", "info", "--without-gossip", "--without-mingle"]
    canvas.app.worker_main(["worker", *options])


def end_at(reader: int) -> None:
    """End this process when nobody is left who could write what is read."""
    os.read(reader, 1)
    os._exit(1)


def main(name: str, queues: Sequence[str]) -> None:
    """Start them, and return when all of them have ended; they end when this process does."""
    # Imports the rest, and sets up logging.
    canvas.app.Worker(hostname="nobody@localhost", pool="solo", loglevel="info")
    set_event_loop(None)  # each has its own
    reader, writer = os.pipe()
    for queue in queues:
        if not os.fork():
            os.close(writer)
            threading.Thread(target=end_at, args=(reader,), daemon=True).start()
            try:
                work(name, queue)
            finally:
                os._exit(1)
    for _ in queues:
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
