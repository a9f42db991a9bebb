"""Count task runs in the workers, apart from receipts, so that the count can check them.

A worker loads this module when ``MANIFEST_RUN_COUNTER`` names a key: each run of a task, also a
repeated one, adds one to that key in the result store that the environment names.
"""

from __future__ import annotations

import os
from functools import lru_cache

import redis
from celery.signals import task_prerun

from tasks import settings

KEEP_SECONDS = 86_400


def count_run(**_: object) -> None:
    """Add one; an error here is logged by Celery and does not touch the task."""
    key, store = settings.run_counter, settings.results_url
    if key is not None and store is not None:
        with _client(os.getpid(), store).pipeline(transaction=True) as batch:
            batch.incr(key)
            batch.expire(key, KEEP_SECONDS)
            batch.execute()


@lru_cache(maxsize=1)
def _client(pid: int, store: str) -> redis.Redis:
    """Make one client a process: a forked child must not share its parent's connection."""
    return redis.Redis.from_url(store)


task_prerun.connect(count_run, weak=False)
