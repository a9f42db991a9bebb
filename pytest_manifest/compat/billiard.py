"""Private parts of billiard, from which Celery's pool of processes is made."""

from __future__ import annotations

import time
from collections.abc import Callable


class OtherTime:
    """Stands for the module ``time`` in a module whose sleeps are to be others."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def sleep_by(sleep: Callable[[float], None]) -> None:
    """Have a process of a pool sleep by ``sleep`` from now on, as it does before it exits.

    Relies on ``billiard.pool.time`` (billiard 4.3).
    Test: ``test_worker_ending.py::test_a_pool_process_exits_when_all_is_said``.
    """
    from billiard import pool

    pool.time = OtherTime(sleep)
