"""Celery's prefork pool for workers that we start ourselves: a job goes to a free process at once.

Celery 5.7 notes that a job is to be written and looks at its next turn through the event loop
which processes can take one: meanwhile the process that has just become free waits, for about as
long as a small job takes. Each turn it also takes every process off the loop's list, be it on it or
not. Which process gets which job, and when a job is taken up at all, is Celery's business as ever.
"""

from __future__ import annotations

from typing import Any, Final

from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, AsynPool
from celery.concurrency.prefork import TaskPool

INNER: Final = frozenset(
    {"_active_writes", "_all_inqueues", "_busy_workers", "_quick_put", "outbound_buffer"}
)
"""What it reaches into. A Celery that has these no more does it all in its own way."""


class Pool(AsynPool):
    """As Celery's, but that it does not wait for a turn of the event loop."""

    _quick_put: Any
    on_poll_start: Any

    def _create_write_handlers(self, hub: Any, **more: Any) -> None:
        super()._create_write_handlers(hub, **more)
        if self.sched_strategy == SCHED_STRATEGY_FAIR and all(hasattr(self, one) for one in INNER):
            self._write_at_once(hub.consolidate_callback)

    def _write_at_once(self, write: Any) -> None:
        put, look = self._quick_put, self.on_poll_start
        outbound, inputs, busy = self.outbound_buffer, self._all_inqueues, self._busy_workers
        looking = True

        def put_and_write(job: object) -> None:
            put(job)
            if free := inputs - busy - self._active_writes:
                write(list(free))

        def on_poll_start() -> None:
            nonlocal looking
            waiting = bool(outbound) and len(busy) < len(inputs)
            if waiting or looking:
                look()
            looking = waiting

        self._quick_put, self.on_poll_start = put_and_write, on_poll_start


def take_over(pool: Any) -> None:
    """Have a worker's pool be of this kind, unless it is none of Celery's prefork or has begun."""
    if type(pool) is TaskPool and pool.Pool is AsynPool and pool._pool is None:
        pool.Pool = Pool
