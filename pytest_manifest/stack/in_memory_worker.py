"""Run a Celery worker in a thread of this process, with a pool of daemon threads for its jobs.

Hide secrets in what the threads of an in-memory stack log: pytest may show it as it comes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from celery import Celery, signals
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerLostError, WorkerShutdown
from celery.worker import WorkController, state
from celery.worker.control import control_command
from celery.worker.request import Request
from kombu.utils.imports import symbol_by_name
from loguru import logger

from pytest_manifest.compat.billiard import exception_info
from pytest_manifest.compat.celery import tracer_under
from pytest_manifest.redaction.texts import redact
from pytest_manifest.worker.job import end_what_is_left


@contextmanager
def logs_redacted() -> Iterator[None]:
    """Redact the records of the standard library's logging while the block runs.

    Those of the main thread are left alone: tests run there, and may look for what they log.
    """
    before = logging.getLogRecordFactory()
    ended = threading.Event()

    def make(*args: object, **more: object) -> logging.LogRecord:
        record: logging.LogRecord = before(*args, **more)
        if threading.current_thread() is not threading.main_thread() and not ended.is_set():
            _redact(record)
        return record

    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        ended.set()  # another factory may call this one by now
        if logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(before)


def _redact(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        return  # arguments that do not fit: logging tells of them when it formats the record
    shown = redact(text)
    if shown != text:
        record.msg, record.args = shown, ()
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))


STOP_SECONDS: Final = 5.0
"""How long jobs that run may go on when the worker is told to stop."""
END: Final = "manifest_end"
"""The remote-control command that ends the worker; Celery's own logs a warning."""


def _end(_state: object, **_: object) -> None:
    raise WorkerShutdown(0)


control_command(name=END, visible=False)(_end)


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
        self._under_own_name = tracer_under(self)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
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

    def on_apply(self, target: Callable[..., object], *args: Any, **options: Any) -> None:
        # As a worker process does, but without its globals: tests share this process.
        self._jobs.put(partial(_do, self._under_own_name(target), *args, **options))

    def _work(self) -> None:
        self.app.set_current()  # of this thread alone
        while (job := self._jobs.get()) is not None and not self._stopping:
            try:
                job()
            except Exception as error:  # The thread is for the other jobs, too.
                logger.error("the end of a job in memory was not reported: {!r}", error)
            end_what_is_left()


def _do(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    callback: Callable[..., object] = lambda _told: None,
    accept_callback: Callable[..., object] = lambda *_: None,
    **_: object,
) -> None:
    """Run a job and tell the worker how it ended, as a process of a prefork pool does."""
    accept_callback(os.getpid(), time.monotonic())
    try:
        told = target(*args, **kwargs)
    except BaseException as error:
        # Celery has caught what a task may raise: this would have ended a process (SystemExit).
        try:
            raise WorkerLostError(f"the job ended its worker: {error!r}") from error  # noqa: TRY301
        except WorkerLostError:
            told = (1, exception_info(), 0.0)
    callback(told)


class PromptAcks:
    """A mix-in for consumers, which acknowledge a message at once, in the thread of its job.

    So does Celery 5.7, by ``call_soon_ack``. Before, it is the loop that does, when it next wakes:
    every two seconds where it waits for another message, and it takes no fifth one until then.
    """

    def call_soon(
        self, p: Callable[..., object], *args: object, **kwargs: object
    ) -> Callable[..., object]:
        try:
            p(*args, **kwargs)
        except Exception as error:  # the loop, too, only logs it
            logger.error("the in-memory worker could not do {}: {!r}", p, error)
        return p


def consumer_class(app: Celery) -> type:
    """Return the class of consumers that the app names, acknowledging at once."""
    named: type = symbol_by_name(app.conf.worker_consumer)
    if hasattr(named, "call_soon_ack"):
        return named
    return type(named.__name__, (PromptAcks, named), {})


class Worker(WorkController):
    """A worker that sets ``ready`` when it takes jobs, and keeps the error that ended it."""

    def __init__(self, *args: object, ready: threading.Event, **kwargs: object) -> None:
        self._ready = ready
        self.error: BaseException | None = None
        super().__init__(*args, **kwargs)

    def on_consumer_ready(self, consumer: object) -> None:
        signals.worker_ready.send(sender=consumer)
        self._ready.set()

    def held(self) -> dict[str, object]:
        """Return the requests of jobs that it holds, by task id, also those with an ETA.

        It takes a job with an ETA out of its queue at once, and before Celery 5.6 has it in its
        timer alone.
        """
        timer = getattr(self, "timer", None)
        waiting = [] if timer is None else [one.entry.args for one in timer.queue]
        scheduled = [args[0] for args in waiting if args and isinstance(args[0], Request)]
        return {one.id: one for one in scheduled} | dict(state.requests)

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
        consumer_cls=consumer_class(app),
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
    )
