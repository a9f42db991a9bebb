"""Run a Celery worker in a thread of this process, with a pool of daemon threads for its jobs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Final, NamedTuple

from celery import Celery, signals
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerLostError, WorkerShutdown
from celery.worker import WorkController
from celery.worker.control import control_command
from loguru import logger

from pytest_manifest.compat.billiard import exception_info
from pytest_manifest.compat.celery import tracer_under

STOP_SECONDS: Final = 5.0
"""How long jobs that run may go on when the worker is told to stop."""
END: Final = "manifest_end"
"""The remote-control command that ends the worker; Celery's own logs a warning."""


def _end(_state: object, **_: object) -> None:
    raise WorkerShutdown(0)


control_command(name=END, visible=False)(_end)


class Job(NamedTuple):
    """A call that the worker gives a pool to run."""

    target: Callable[..., object]
    args: Sequence[object] | None
    kwargs: Mapping[str, object] | None
    callback: Callable[..., object] | None
    accept_callback: Callable[..., object] | None


class DaemonPool(BasePool):
    """Run jobs in daemon threads.

    Celery's own pool of threads waits for each of them, at the latest when the interpreter ends: a
    job that hangs would keep pytest from ending.
    """

    body_can_be_buffer = True
    task_join_will_block = False  # a process-wide flag, and tests in this process wait for results
    signal_safe = False
    threads: Sequence[threading.Thread] = ()

    def on_start(self) -> None:
        _, hostname = self.options["initargs"]
        self._under_own_name = tracer_under(self.app, hostname)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stopping = False
        self.threads = [
            threading.Thread(target=self._work, name=f"manifest-memory-{number}", daemon=True)
            for number in range(1, self.limit + 1)
        ]
        for thread in self.threads:
            thread.start()

    def on_stop(self) -> None:
        """Let running jobs end, within a bound; jobs that wait do not begin any more."""
        self._stopping = True
        for _ in self.threads:
            self._jobs.put(None)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    on_terminate = on_stop

    @property
    def busy(self) -> int:
        """Return the number of jobs that still run after the pool has stopped."""
        return sum(thread.is_alive() for thread in self.threads)

    def on_apply(
        self,
        target: Callable[..., object],
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        callback: Callable[..., object] | None = None,
        accept_callback: Callable[..., object] | None = None,
        **_: object,
    ) -> None:
        # As a worker process does, but without its globals: tests share this process.
        self._jobs.put(Job(self._under_own_name(target), args, kwargs, callback, accept_callback))

    def _work(self) -> None:
        self.app.set_current()  # of this thread alone
        while (job := self._jobs.get()) is not None and not self._stopping:
            try:
                _do(job)
            except Exception as error:  # The thread is for the other jobs, too.
                logger.error("the end of a job of the in-memory stack was not told: {!r}", error)

    @property
    def info(self) -> dict[str, object]:
        found: dict[str, object] = super().info
        return found | {"max-concurrency": self.limit, "threads": len(self.threads)}


def _do(job: Job) -> None:
    """Run a job and tell the worker how it ended, as a process of a prefork pool does."""
    if job.accept_callback is not None:
        job.accept_callback(os.getpid(), time.monotonic())
    try:
        told = job.target(*(job.args or ()), **(job.kwargs or {}))
    except BaseException as error:
        # Celery has caught what a task may raise: this would have ended a process (SystemExit).
        told = (1, _worker_lost(error), 0.0)
    if job.callback is not None:
        job.callback(told)


def _worker_lost(error: BaseException) -> object:
    try:
        raise WorkerLostError(f"the job ended its worker: {error!r}") from error  # noqa: TRY301
    except WorkerLostError:
        return exception_info()


class Worker(WorkController):
    """A worker that sets ``ready`` when it takes jobs, and keeps the error that ended it."""

    def __init__(self, *args: object, ready: threading.Event, **kwargs: object) -> None:
        self._ready = ready
        self.error: BaseException | None = None
        super().__init__(*args, **kwargs)

    def on_consumer_ready(self, consumer: object) -> None:
        signals.worker_ready.send(sender=consumer)
        self._ready.set()

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        # Celery calls this where it has caught what ended the worker.
        self.error = self.error or sys.exc_info()[1]
        super().stop(in_sighandler, exitcode)


def make_worker(app: Celery, hostname: str, threads: int, ready: threading.Event) -> Worker:
    """Make a worker of ``app`` that leaves the process's logging and signal handlers alone."""
    return Worker(
        app=app,
        ready=ready,
        hostname=hostname,
        pool=DaemonPool,
        concurrency=threads,
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )
