"""Celery's prefork pool for workers that we start ourselves: a job goes to a free process at once.

Celery 5.7 notes that a job is to be written and looks at its next turn through the event loop
which processes can take one: meanwhile the process that has just become free waits, for about as
long as a small job takes. Each turn it also takes every process off the loop's list, be it on it or
not. Which process gets which job, and when a job is taken up at all, is Celery's business as ever.

Of what it gives back at its end, Celery's takes a job that a process has just been given for one
that was not begun: it runs, its message goes back to the broker, and the worker waits for 30 s for
somebody to hear of its result. Here the worker first hears which jobs were taken.
"""

from __future__ import annotations

import select
import time
from inspect import isgenerator
from typing import Any, Final

from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from celery.concurrency.prefork import TaskPool
from celery.worker import state

INNER: Final = frozenset(
    {
        "_active_writes",
        "_all_inqueues",
        "_busy_workers",
        "_cache",
        "_quick_put",
        "on_poll_start",
        "outbound_buffer",
    }
)
"""What it reaches into. A Celery that has these no more does it all in its own way."""
TAKING: Final = 1.0
"""Seconds in which a process that is free has taken a job, unless that is still being written."""


class Pool(AsynPool):
    """As Celery's, but that it does not wait for a turn of the event loop."""

    _quick_put: Any
    on_poll_start: Any
    _loop: Any = None

    def _create_write_handlers(self, hub: Any, **more: Any) -> None:
        super()._create_write_handlers(hub, **more)
        if self.sched_strategy == SCHED_STRATEGY_FAIR and all(hasattr(self, one) for one in INNER):
            self._write_at_once(hub.consolidate_callback)
            self._loop = hub

    def _write_at_once(self, write: Any) -> None:
        put, look = self._quick_put, self.on_poll_start
        outbound, inputs, busy = self.outbound_buffer, self._all_inqueues, self._busy_workers
        looking = True

        def put_and_write(job: object) -> None:
            put(job)
            # A worker that ends gives back what it has not begun: what is written it cannot.
            ending = state.should_stop is not None or state.should_terminate is not None
            if not ending and (free := inputs - busy - self._active_writes):
                write(list(free))

        def on_poll_start() -> None:
            nonlocal looking
            waiting = bool(outbound) and len(busy) < len(inputs)
            if waiting or looking:
                look()
            looking = waiting

        self._quick_put, self.on_poll_start = put_and_write, on_poll_start

    def flush(self) -> None:
        """Give back what was not begun, having heard of what was."""
        until = time.monotonic() + TAKING
        while self._loop is not None and (outputs := self._not_heard_of()):
            poll = select.poll()
            for fd in outputs:
                poll.register(fd, select.POLLIN)
            told = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            if not told or time.monotonic() > until:
                break
            for fd, _ in told:
                _read(self._loop, fd)
        super().flush()

    def _not_heard_of(self) -> set[int]:
        """What the processes write to that have been given a job, and did not say yet that they
        have taken it."""
        given = [job._write_to for job in list(self._cache.values()) if not job._accepted]
        return {
            process.outqR_fd
            for process in given
            if process is not None and process.outqR_fd in self._loop.readers
        }


def _read(loop: Any, fd: int) -> None:
    """What the event loop does when there is something to read."""
    reader, arguments = loop.readers.get(fd, (None, ()))
    if reader is None:  # its process has gone meanwhile
        return
    if not isgenerator(reader):
        reader(*arguments)
        return
    try:  # a message of which a part has been read
        next(reader)
    except StopIteration:
        pass
    except (OSError, EOFError):
        loop.remove_reader(fd)


def take_over(pool: Any) -> None:
    """Have a worker's pool be of this kind, unless it is none of Celery's prefork or has begun."""
    if type(pool) is TaskPool and pool.Pool is AsynPool and pool._pool is None:
        pool.Pool = Pool
