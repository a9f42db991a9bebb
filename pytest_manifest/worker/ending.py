"""A worker of ours ends as soon as it can: pytest, and who waits for it, wait for its workers.

Celery and billiard sleep at a worker's end where nothing has to be waited for any more. Those
sleeps are cut short; all that a worker, its processes and the app's own handlers do at an end they
still do.
"""

from __future__ import annotations

import time
from typing import Final

from pytest_manifest.compat.billiard import sleep_by
from pytest_manifest.compat.celery import sleep_at_end_by

PAUSE: Final = 0.02
"""Seconds; often enough to look, and rare enough to cost nothing."""


def nap(seconds: float) -> None:
    """Sleep, but no longer than ``PAUSE``."""
    time.sleep(min(seconds, PAUSE))


def on_shutting_down(**_: object) -> None:
    """In the main process: it looks only every 0.5 s whether its pool is done."""
    sleep_at_end_by(nap)


def on_process_shutdown(exitcode: int | None = None, **_: object) -> None:
    """In a pool's process, after its last job: it would sleep for 1 s before it exits.

    That is for a main process which reads what it said last; one that ends does not. Where the
    process only makes room for a new one it sleeps as ever.
    """
    from billiard import pool

    if exitcode != pool.EX_RECYCLE:
        sleep_by(nap)
