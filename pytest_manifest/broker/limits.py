"""Compute how long a job may run, by its entry, its task and its workers.

Celery lets a message's limits replace the task's own, and those the worker's. Of an entry that says
a ``timeout`` the smaller one holds; the default of one that says none is for tasks without a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from celery import Celery

from pytest_manifest.broker.workers import TaskLimit, Worker, seconds_of
from pytest_manifest.schema import Entry

UNENFORCED_POOLS: Final[Mapping[str, str]] = {
    "solo": "cannot stop a job",
    "thread": "cannot stop a job",
    "eventlet": "cannot stop a job",
    "gevent": "cannot stop a job that computes or blocks",
}
"""Celery's pools that do not enforce time limits, by the name of their module."""


class TaskLimits:
    """The limits of tasks and workers, as the app here and the workers' answers have them."""

    def __init__(self, app: Celery) -> None:
        conf = app.conf
        self._default = TaskLimit(
            seconds_of(conf.task_time_limit), seconds_of(conf.task_soft_time_limit)
        )
        self._by_task: dict[str, TaskLimit] = {}
        self._cache: dict[str, TaskLimit] = {}
        """Of tasks whose options set none: asked for with every message."""

    def update(self, workers: Collection[Worker]) -> None:
        """Take over the limits that workers reported; the strictest, as any may get the job."""
        self._cache.clear()
        if workers:
            self._default = _strictest(worker.limit for worker in workers)
        for name in {name for worker in workers for name in worker.limits}:
            said = (w.limits[name] for w in workers if name in w.limits)
            self._by_task[name] = _strictest(said)

    def limit_for(self, task: str, options: Mapping[str, object]) -> TaskLimit:
        """Give the limit of a job of ``task``; ``options`` are of its route and its task here."""
        if options and ("time_limit" in options or "soft_time_limit" in options):
            return self._limit_for(task, options)
        limit = self._cache.get(task)
        if limit is None:
            limit = self._cache[task] = self._limit_for(task, {})
        return limit

    def _limit_for(self, task: str, options: Mapping[str, object]) -> TaskLimit:
        told = self._by_task.get(task, TaskLimit())
        return TaskLimit(
            seconds_of(options.get("time_limit")) or told.hard or self._default.hard,
            seconds_of(options.get("soft_time_limit")) or told.soft or self._default.soft,
        )


def effective_timeout(entry: Entry, own: float | None) -> float:
    """Give the seconds that an entry's job may run; ``own`` is its task's limit (s)."""
    if own is None:
        return entry.timeout
    return min(entry.timeout, own) if "timeout" in entry.model_fields_set else own


def with_effective_timeout(entry: Entry, own: float | None) -> Entry:
    """Copy the entry with its effective timeout (s); a limit of its task counts as not set by
    the entry."""
    longest = effective_timeout(entry, own)
    if longest == entry.timeout:
        return entry
    held = entry.model_copy(update={"timeout": longest})
    held.model_fields_set.discard("timeout")
    return held


def message_limits(entry: Entry, own: TaskLimit) -> tuple[float, float | None]:
    """Give the hard and soft limits (s) that the entry's message carries."""
    if own.hard is None and own.soft is None:
        return _whole(entry.timeout), None
    hard, soft = effective_timeout(entry, own.hard), own.soft
    if soft is not None and soft > hard:
        # Celery counts the hard one from the soft one on: none at all would bring the task's back.
        soft = hard
    return _whole(hard), None if soft is None else _whole(soft)


def pool_warnings(workers: Iterable[Worker]) -> list[str]:
    """Warn of workers whose pool does not enforce time limits."""
    pools: dict[str, list[str]] = {}
    for worker in workers:
        if worker.pool in UNENFORCED_POOLS:
            pools.setdefault(worker.pool, []).append(worker.name)
    return [
        f"the pool of {', '.join(sorted(names))} ({pool}) {UNENFORCED_POOLS[pool]}, so "
        f"nothing ends one that runs beyond its timeout, which its verdict tells afterwards; use a "
        f"prefork pool where that matters"
        for pool, names in sorted(pools.items())
    ]


def _strictest(limits: Iterable[TaskLimit]) -> TaskLimit:
    every = list(limits)
    return TaskLimit(
        min((one.hard for one in every if one.hard), default=None),
        min((one.soft for one in every if one.soft), default=None),
    )


@lru_cache(maxsize=64)
def _whole(seconds: float) -> float:
    whole = int(seconds)
    return whole if whole == seconds else seconds
