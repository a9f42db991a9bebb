"""How long a job may run: by its entry, and by its task and its workers themselves.

Celery lets a message's limits replace the task's own, and those the worker's. Of an entry that says
a ``timeout`` the smaller one holds; the default of one that says none is for tasks without a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from celery import Celery

from pytest_manifest.broker.workers import OwnLimit, Worker, seconds_of
from pytest_manifest.schema import Entry

CANNOT: Final[Mapping[str, str]] = {
    "solo": "cannot stop a job",
    "thread": "cannot stop a job",
    "eventlet": "cannot stop a job",
    "gevent": "cannot stop a job that computes or blocks",
}
"""Celery's pools that do not enforce time limits, by the name of their module."""


class OwnLimits:
    """The limits of tasks and workers, as the app here and the workers' answers have them."""

    def __init__(self, app: Celery) -> None:
        conf = app.conf
        self._every = OwnLimit(
            seconds_of(conf.task_time_limit), seconds_of(conf.task_soft_time_limit)
        )
        self._told: dict[str, OwnLimit] = {}
        self._plain: dict[str, OwnLimit] = {}
        """Of tasks whose options set none: asked for with every message."""

    def learn(self, workers: Collection[Worker]) -> None:
        """What workers said of themselves; of several the strictest, as any may get the job."""
        self._plain.clear()
        if workers:
            self._every = _strictest(worker.limit for worker in workers)
        for name in {name for worker in workers for name in worker.limits}:
            said = (w.limits[name] for w in workers if name in w.limits)
            self._told[name] = _strictest(said)

    def of(self, task: str, options: Mapping[str, object]) -> OwnLimit:
        """Of a job of this task; ``options`` are those of its route and of the task here."""
        if options and ("time_limit" in options or "soft_time_limit" in options):
            return self._of(task, options)
        limit = self._plain.get(task)
        if limit is None:
            limit = self._plain[task] = self._of(task, {})
        return limit

    def _of(self, task: str, options: Mapping[str, object]) -> OwnLimit:
        told = self._told.get(task, OwnLimit())
        return OwnLimit(
            seconds_of(options.get("time_limit")) or told.hard or self._every.hard,
            seconds_of(options.get("soft_time_limit")) or told.soft or self._every.soft,
        )


def longest_run(entry: Entry, own: float | None) -> float:
    """Seconds that an entry's job may run, where its task's own limit is ``own``."""
    if own is None:
        return entry.timeout
    return min(entry.timeout, own) if "timeout" in entry.model_fields_set else own


def held_to(entry: Entry, own: float | None) -> Entry:
    """The entry with the limit that holds as its ``timeout``; one that is the task's own counts as
    not said by the entry."""
    longest = longest_run(entry, own)
    if longest == entry.timeout:
        return entry
    held = entry.model_copy(update={"timeout": longest})
    held.model_fields_set.discard("timeout")
    return held


def message_limits(entry: Entry, own: OwnLimit) -> tuple[float, float | None]:
    """The limits that its message carries, hard and soft."""
    if own.hard is None and own.soft is None:
        return _whole(entry.timeout), None
    hard, soft = longest_run(entry, own.hard), own.soft
    if soft is not None and soft > hard:
        # Celery counts the hard one from the soft one on: none at all would bring the task's back.
        soft = hard
    return _whole(hard), None if soft is None else _whole(soft)


def unenforced(workers: Iterable[Worker]) -> list[str]:
    """A sentence about workers whose pool does not enforce time limits."""
    pools: dict[str, list[str]] = {}
    for worker in workers:
        if worker.pool in CANNOT:
            pools.setdefault(worker.pool, []).append(worker.name)
    return [
        f"the pool of {', '.join(sorted(names))} ({pool}) {CANNOT[pool]}, so nothing ends one that "
        f"runs beyond its timeout, which its verdict tells afterwards; use a prefork pool where "
        f"that matters"
        for pool, names in sorted(pools.items())
    ]


def _strictest(limits: Iterable[OwnLimit]) -> OwnLimit:
    every = list(limits)
    return OwnLimit(
        min((one.hard for one in every if one.hard), default=None),
        min((one.soft for one in every if one.soft), default=None),
    )


@lru_cache(maxsize=64)
def _whole(seconds: float) -> float:
    whole = int(seconds)
    return whole if whole == seconds else seconds
