"""Keep the time in which a pool's process waits for the broker or the store out of time limits.

While the store is away, a job that took 40 ms still waits to send its receipt, and one that has
not begun waits to send its start; to the worker's main process both seem to run. So the process
records its waits in a file of its own, mapped into memory: a wait costs two writes to memory. When
a limit is exceeded, the main process reads that file and extends the limit.

This concerns Celery's prefork pool, the only one that kills processes. It needs the worker's event
loop, as with Redis and RabbitMQ; where a transport has none, Celery's limits stay unchanged.

A worker that stops waits for ``STOP_SECONDS`` only, in all pools: where its store has stopped with
it, it would wait until it is killed.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from loguru import logger

from pytest_manifest.compat.celery import put_off_limits
from pytest_manifest.files import write_whole
from pytest_manifest.process_state import ProcessState
from pytest_manifest.processes import has_ended
from pytest_manifest.worker.receipt import taken_requests
from pytest_manifest.worker.spool import prepared_directory, spool_directory

_WAIT: Final = struct.Struct("<16sdd")
"""The execution, seconds waited in it so far, and when its present wait began (0: none)."""
CHECK_INTERVAL: Final = 0.5
"""Seconds between checks of a process that waits."""
STOP_SECONDS: Final = 15.0
"""Seconds for which a process of a worker that stops waits for its store, in all its jobs.

Long enough for a store that is restarted, and less than the 30 seconds that Kubernetes gives.
"""
_PREFIX: Final = "waits-"
_STOP: Final = struct.Struct("<d")


class _WaitFile:
    """The file in which this process of a pool, which runs one task at a time, records waits.

    ``stop``: when its worker began to stop (0: it has not); processes that are forked later share
    it.
    """

    def __init__(self) -> None:
        self.stop = mmap.mmap(-1, _STOP.size)
        self._memory: mmap.mmap | None = None
        self._execution = b""
        self._waited = self._since = 0.0
        self._waited_stopping = 0.0
        self._depth = 0

    def open(self) -> None:
        self._memory = None  # the parent's, after a fork
        sweep()
        try:
            path = prepared_directory() / f"{_PREFIX}{os.getpid()}"
            write_whole(path, bytes(_WAIT.size))
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _WAIT.size)
        except OSError as error:
            logger.warning(
                "time limits will count the time in which a receipt waits for its store: {}", error
            )

    def begin(self, execution: str) -> None:
        self._execution, self._waited, self._since = execution.encode()[:16], 0.0, 0.0
        self._depth = 0
        self._write()

    def enter(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._since = time.monotonic()
            self._write()

    def leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._waited_stopping = self.waited_stopping()
            self._waited += time.monotonic() - self._since
            self._since = 0.0
            self._write()

    def waited_stopping(self) -> float:
        """Return the seconds that this process has waited since its worker began to stop."""
        began: float = _STOP.unpack(self.stop)[0]
        if not (began and self._since):
            return self._waited_stopping
        return self._waited_stopping + time.monotonic() - max(began, self._since)

    def _write(self) -> None:
        if self._memory is not None:
            _WAIT.pack_into(self._memory, 0, self._execution, self._waited, self._since)


_wait_file: Final = ProcessState(_WaitFile, is_of_worker=True)


def open_wait_file() -> None:
    """Create the file of a new process of a prefork pool."""
    _wait_file.now.open()


def begin(execution: str) -> None:
    """Record that this process begins this execution, without a wait so far."""
    _wait_file.now.begin(execution)


@contextmanager
def waiting() -> Iterator[None]:
    """Record the time spent inside as waiting for the broker or the store."""
    file = _wait_file.now
    file.enter()
    try:
        yield
    finally:
        file.leave()


def begin_stop(**_: object) -> None:
    """Record, in the main process, that this worker stops; its pool's processes see it."""
    _STOP.pack_into(_wait_file.now.stop, 0, time.monotonic())


def has_given_up() -> bool:
    """Return whether this worker stops, and has waited for its store for as long as it may."""
    return _wait_file.now.waited_stopping() > STOP_SECONDS


def remove_wait_file(**_: object) -> None:
    """Remove this process's file at its end; ``sweep`` removes those of killed processes."""
    with suppress(OSError):
        (spool_directory() / f"{_PREFIX}{os.getpid()}").unlink()


def sweep() -> None:
    """Remove the files of processes that have ended."""
    with suppress(OSError):
        for path in spool_directory().glob(f"{_PREFIX}*"):
            if has_ended(int(path.name.removeprefix(_PREFIX))):
                path.unlink(missing_ok=True)


# In the main process


def extend_time_limits(worker_pool: Any, hub: Any) -> None:
    """Extend the time limits of this pool's jobs by the time that its processes waited."""
    put_off_limits(worker_pool, hub, _left, _is_pointless)


def _left(job: Any, over: float) -> float:
    """Return the seconds left to a job ``over`` seconds past its limit; 0 where it has none."""
    told = _reported_wait(job)
    if told is None:
        return 0.0
    waited, since = told
    waits = time.monotonic() - since if since else 0.0
    return max(waited + waits - over, CHECK_INTERVAL if since else 0.0)


def _is_pointless(job: Any) -> bool:
    """Return whether the job's hard limit comes no later than its soft one."""
    return any(
        hard and soft and soft >= hard for hard, soft in (one.time_limits for one in _of(job))
    )


def _reported_wait(job: Any) -> tuple[float, float] | None:
    """Return what the job's process recorded: seconds waited, and since when it waits now.

    None where it recorded nothing, or another execution.
    """
    for pid in job.worker_pids():
        path = spool_directory() / f"{_PREFIX}{pid}"
        wait = _read(path)
        while wait != (second := _read(path)):  # it was being written
            wait = second
        if wait is not None and any(_of(job, wait[0])):
            return wait[1:]
    return None


def _of(job: Any, execution: bytes | None = None) -> Iterator[Any]:
    """Yield the job's requests that this worker has, or that of one execution alone."""
    for name, request in taken_requests():
        if request.id == job.correlation_id and execution in (None, name.encode()[:16]):
            yield request


def _read(path: Path) -> tuple[bytes, float, float] | None:
    try:
        execution, waited, since = _WAIT.unpack(path.read_bytes())
    except (OSError, struct.error):  # missing, or just being created
        return None
    return execution, waited, since
