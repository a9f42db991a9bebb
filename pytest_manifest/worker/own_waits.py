"""Our own waiting, for broker or store, which no time limit of a job counts.

A job that ended in 40 ms stands in the delivery of its receipt for as long as the store is away,
and one that has not begun in the note of its start; the worker's main process sees one that runs.
So a pool's process tells it: in a file of its own, mapped into memory, so that a wait costs two
writes to memory. When a limit is over, the main process looks there, and puts the limit off.

Of Celery's pools this concerns prefork: no other one ends a process. It needs the worker's event
loop, as with Redis and RabbitMQ; where a transport has none, the limits are Celery's own.
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
from pytest_manifest.schema.identity import has_ended
from pytest_manifest.worker.handover import taken
from pytest_manifest.worker.spool import prepared_directory, spool_directory

_NOTE: Final = struct.Struct("<16sdd")
"""The execution, seconds waited in it so far, and since when it waits now (0: it does not)."""
LOOK_AGAIN: Final = 0.5
"""Seconds until the next look at a process that waits."""
_PREFIX: Final = "waits-"


class _Note:
    """This process's note, where it is one of a pool; it runs one task at a time."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._execution = b""
        self._waited = self._since = 0.0
        self._depth = 0

    def open(self) -> None:
        self._memory = None  # that of the process it was forked from
        sweep()
        try:
            path = prepared_directory() / f"{_PREFIX}{os.getpid()}"
            path.write_bytes(bytes(_NOTE.size))
            path.chmod(0o600)
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _NOTE.size)
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
            self._waited += time.monotonic() - self._since
            self._since = 0.0
            self._write()

    def _write(self) -> None:
        if self._memory is not None:
            _NOTE.pack_into(self._memory, 0, self._execution, self._waited, self._since)


_note = _Note()


def open_note() -> None:
    """In a new process of a prefork pool: from now on it tells of its waiting."""
    _note.open()


def begin(execution: str) -> None:
    """This process runs this execution from now on, and has not waited in it yet."""
    _note.begin(execution)


@contextmanager
def waiting() -> Iterator[None]:
    """Within this the process waits for broker or store, and does nothing for its job."""
    _note.enter()
    try:
        yield
    finally:
        _note.leave()


def remove_note(**_: object) -> None:
    """At the end of a process; one that was killed leaves its file, for ``sweep``."""
    with suppress(OSError):
        (spool_directory() / f"{_PREFIX}{os.getpid()}").unlink()


def sweep() -> None:
    """Remove the files of processes that are gone."""
    with suppress(OSError):
        for path in spool_directory().glob(f"{_PREFIX}*"):
            if has_ended(int(path.name.removeprefix(_PREFIX))):
                path.unlink(missing_ok=True)


# In the main process


def put_off(worker_pool: Any, hub: Any) -> None:
    """Have the time limits of this pool of processes not count what its processes waited."""
    put_off_limits(worker_pool, hub, _left, _is_pointless)


def _left(job: Any, over: float) -> float:
    """Seconds until a job's limit is really over, which was so many ago; 0 where it is."""
    told = _told(job)
    if told is None:
        return 0.0
    waited, since = told
    waits = time.monotonic() - since if since else 0.0
    return max(waited + waits - over, LOOK_AGAIN if since else 0.0)


def _is_pointless(job: Any) -> bool:
    """Whether the job is ended at once when its soft limit is over, so that it need not be told."""
    return any(
        hard and soft and soft >= hard for hard, soft in (one.time_limits for one in _of(job))
    )


def _told(job: Any) -> tuple[float, float] | None:
    """What the process that runs the job has told of it, None where it tells of none or another."""
    for pid in job.worker_pids():
        path = spool_directory() / f"{_PREFIX}{pid}"
        said = _read(path)
        while said != (again := _read(path)):  # it was being written
            said = again
        if said is not None and any(_of(job, said[0])):
            return said[1:]
    return None


def _of(job: Any, execution: bytes | None = None) -> Iterator[Any]:
    """The requests of a job that this worker has taken, or of this one of its executions alone."""
    for name, request in taken():
        if request.id == job.correlation_id and execution in (None, name.encode()[:16]):
            yield request


def _read(path: Path) -> tuple[bytes, float, float] | None:
    try:
        execution, waited, since = _NOTE.unpack(path.read_bytes())
    except (OSError, struct.error):  # none, or it is being made
        return None
    return execution, waited, since
