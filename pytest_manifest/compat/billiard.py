"""Private parts of billiard, from which Celery's pool of processes is made.

billiard has no types, so what is taken from it is ``Any``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class OtherTime:
    """Stand for the module ``time`` in a module whose sleeps are to be others."""

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


def is_recycled(exitcode: int | None) -> bool:
    """Return whether a process of a pool ends with this code because it has run enough tasks.

    Relies on ``billiard.pool.EX_RECYCLE`` (billiard 4.3).
    Test: ``test_worker_ending.py::test_a_pool_process_exits_when_all_is_said``.
    """
    from billiard import pool

    recycled: bool = exitcode == pool.EX_RECYCLE
    return recycled


def exception_info() -> Any:
    """Return the exception that is being handled as a process of a pool reports it.

    Relies on ``billiard.einfo.ExceptionInfo`` (billiard 4.3).
    Test: ``test_testing_stack.py::test_a_job_that_raises_system_exit_ends_alone``.
    """
    from billiard.einfo import ExceptionInfo

    return ExceptionInfo()
