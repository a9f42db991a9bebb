"""Shorten the sleeps of Celery and billiard at the end of a private stack's worker.

They sleep where there is nothing left to wait for, and pytest waits for its workers. Everything
else that a worker, its processes and the app's handlers do at their end stays.
"""

from __future__ import annotations

import time
from typing import Final

from pytest_manifest.compat.billiard import sleep_by
from pytest_manifest.compat.celery import sleep_at_end_by

MAX_SLEEP: Final = 0.02
"""Seconds between two checks: prompt, and rare enough to cost nothing."""


def short_sleep(seconds: float) -> None:
    """Sleep, but no longer than ``MAX_SLEEP`` seconds."""
    time.sleep(min(seconds, MAX_SLEEP))


def on_shutting_down(**_: object) -> None:
    """Make the main process check more often than every 0.5 s whether its pool has ended."""
    sleep_at_end_by(short_sleep)


def on_process_shutdown(exitcode: int | None = None, **_: object) -> None:
    """Let a pool's process exit at once after its last job, without a sleep of 1 s.

    The sleep lets the main process read its last messages; a main process that ends does not. A
    process that is only recycled keeps its sleep.
    """
    from billiard import pool

    if exitcode != pool.EX_RECYCLE:
        sleep_by(short_sleep)
