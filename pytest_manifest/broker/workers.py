"""Read what workers report of themselves, and the time limits that they and their tasks set.

Celery lets a message's limits replace the task's own, and those the worker's. Of an entry that says
a ``timeout`` the smaller one holds; the default of one that says none is for tasks without a limit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from celery import Celery

from pytest_manifest.broker.control import Answers, Arguments
from pytest_manifest.processes import ProcessIdentity, parse_identity
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import (
    CODE_ATTRIBUTE,
    PROCESS_MARK,
    SIGNED_MARK,
    WORKER_MARK,
    has_source,
)

# builtins: an entry may name one of Celery's own tasks, and those are registered as well.
QUESTIONS: Final[Mapping[str, Arguments]] = {
    "registered": {
        "taskinfoitems": [
            *("acks_late", "time_limit", "soft_time_limit", "ignore_result", CODE_ATTRIBUTE)
        ],
        "builtins": True,
    },
    "active_queues": {},
    "stats": {},
}
T = TypeVar("T")
_REGISTERED = re.compile(r"(?P<name>.+?) \[(?P<facts>acks_late=[^\[\]]*)\]\Z")


@dataclass(frozen=True, slots=True)
class TaskLimit:
    """The time limits (s) that a task sets, or a worker for all of its tasks; None: no limit."""

    hard: float | None = None
    soft: float | None = None


# Not asked on a stack of ours: a worker reads all of its settings for the answer.
STORE_QUESTION: Final[Mapping[str, Arguments]] = {"report": {}}
_RESULTS = re.compile(r"^settings -> .*\bresults:(?P<store>\S+)", re.MULTILINE)
_CELERY = re.compile(r"^software -> celery:(?P<version>\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker that answered; None and empty where it did not answer that question.

    ``tasks``: registered name -> whether it is acknowledged late. ``prefetch``: messages held at
    once, 0 for no limit. ``visibility``: its broker's visibility timeout as configured (s).
    ``limits``: the time limits that tasks of it set themselves; ``limit``: its own for all others.
    ``pool``: the name of the module of its pool.
    ``codes``: the digests of its tasks' code, of those that it tells.
    ``celery``: the version of its Celery, where that was asked for; ``store``: its result store's
    URL without the password; ``broker``: its broker's host and port.
    ``unsaid``: the questions that it did not answer in time; ``ignoring``: its tasks that ignore
    their results.
    """

    name: str
    tasks: dict[str, bool] = field(default_factory=dict)
    queues: frozenset[str] | None = None
    slots: int = 1
    prefetch: int | None = None
    visibility: float | None = None
    limits: dict[str, TaskLimit] = field(default_factory=dict)
    limit: TaskLimit = TaskLimit()
    pool: str = ""
    celery: str | None = None
    store: str | None = None
    broker: tuple[str, int | None] | None = None
    unsaid: frozenset[str] = frozenset()
    codes: dict[str, str] = field(default_factory=dict)
    ignoring: frozenset[str] = frozenset()

    @property
    def has_stats(self) -> bool:
        """Tell whether its pool, prefetch, limits and broker are its own, and not merely unsaid."""
        return "stats" not in self.unsaid

    @property
    def is_stock(self) -> bool:
        """Tell whether it listed its tasks and is not instrumented."""
        return bool(self.tasks) and WORKER_MARK not in self.tasks

    @property
    def key_id(self) -> str | None:
        """Give the id of the key that it signs with; None where it signs nothing."""
        marks = (name for name in self.tasks if name.startswith(SIGNED_MARK))
        return next((name.removeprefix(SIGNED_MARK) for name in marks), None)

    @property
    def takes_one(self) -> bool:
        """Tell whether it holds no more jobs than it runs."""
        return self.prefetch is not None and 0 < self.prefetch <= self.slots

    @property
    def process(self) -> ProcessIdentity | None:
        """Give the identity of its main process; None where it names none."""
        marks = (name for name in self.tasks if name.startswith(PROCESS_MARK))
        texts = [name.removeprefix(PROCESS_MARK) for name in marks]
        return parse_identity(texts[0]) if len(texts) == 1 else None

    def ahead(self, entries: int, *, late: bool = False) -> int:
        """Count the jobs that one of ``entries`` may wait behind once this worker holds it.

        ``late``: all are acknowledged late, so that those that run are among the prefetched ones.
        """
        others = max(0, entries - 1)
        if self.prefetch:
            others = min(others, self.prefetch - 1 + (0 if late else self.slots))
        # The slot that is free first has run no more of them than its share.
        return others // self.slots


def workers_of(answers: Answers) -> dict[str, Worker]:
    """Read the replies to :data:`QUESTIONS`, by node name; what cannot be read counts as unsaid."""
    nodes = {node for replies in answers.values() for node in replies}
    return {node: _worker(node, answers) for node in sorted(nodes)}


def acks_late(workers: Iterable[Worker]) -> dict[str, bool]:
    """Map each task that a worker has -> whether any of them acknowledges it late."""
    late: dict[str, bool] = {}
    for worker in workers:
        for task, flag in worker.tasks.items():
            late[task] = late.get(task, False) or flag
    return late


def _worker(node: str, answers: Answers) -> Worker:
    said = {question: replies.get(node) for question, replies in answers.items()}
    stats, tasks = said["stats"], dict(_registered(said["registered"]))
    ignoring = (name for name, facts in tasks.items() if facts.get("ignore_result") == "True")
    queues, pool = said["active_queues"], _at(stats, str, "pool", "implementation") or ""
    timeouts = _at(stats, (list, tuple), "pool", "timeouts") or ()
    soft, hard = map(seconds_of, timeouts if len(timeouts) == 2 else (None, None))
    limits = {
        name: TaskLimit(_number(facts.get("time_limit")), _number(facts.get("soft_time_limit")))
        for name, facts in tasks.items()
    }
    report = _at(said.get("report"), str, "ok") or ""
    results, software = _RESULTS.search(report), _CELERY.search(report)
    host = _at(stats, str, "broker", "hostname")
    local = "localhost" if host in ("127.0.0.1", "::1") else (host or "").lower()
    visibility = _at(stats, (int, float), "broker", "transport_options", "visibility_timeout")
    return Worker(
        name=node,
        tasks={name: facts.get("acks_late") == "True" for name, facts in tasks.items()},
        queues=_queues(queues) if isinstance(queues, list) else None,
        # One that grows when jobs wait prefetches for all the processes that it may have.
        slots=max(
            _at(stats, int, "pool", "max-concurrency") or 1,
            _at(stats, int, "autoscaler", "max") or 0,
        ),
        prefetch=_at(stats, int, "prefetch_count"),
        visibility=None if visibility is None else float(visibility),
        limits={name: limit for name, limit in limits.items() if limit != TaskLimit()},
        limit=TaskLimit(hard, soft),
        pool=pool.partition(":")[0].rpartition(".")[2],
        celery=software and software["version"],
        store=results and results["store"],
        broker=None if host is None else (local, _at(stats, int, "broker", "port")),
        # What did not come, or is an error.
        unsaid=frozenset(
            question
            for question, reply in said.items()
            if reply is None or (isinstance(reply, dict) and "error" in reply)
        ),
        codes={n: facts[CODE_ATTRIBUTE] for n, facts in tasks.items() if CODE_ATTRIBUTE in facts},
        ignoring=frozenset(ignoring),
    )


def _at(reply: object, kind: type[T] | tuple[type[T], ...], *path: str) -> T | None:
    """Return what a reply has at the end of a path, where that is of this kind."""
    for name in path:
        reply = reply.get(name) if isinstance(reply, dict) else None
    return reply if isinstance(reply, kind) and not isinstance(reply, bool) else None


def known_codes(workers: Collection[Worker]) -> dict[str, str]:
    """Return the digest of each task's code that runs whichever of these workers gets a job of it.

    Of a task of which they tell different ones, or one of them none, it is not known; and of none
    at all where a worker has not told what tasks it has.
    """
    if any("registered" in worker.unsaid for worker in workers):
        return {}
    found: dict[str, str] = {}
    for name in {name for worker in workers for name in worker.codes}:
        told = {worker.codes.get(name) for worker in workers if name in worker.tasks}
        code = told.pop() if len(told) == 1 else None
        if code is not None and has_source(code):
            found[name] = code
    return found


def _registered(reply: object) -> Iterator[tuple[str, dict[str, str]]]:
    """Split Celery's lines ``name [acks_late=True time_limit=5]`` into name and attributes."""
    for line in reply if isinstance(reply, list) else ():
        match = _REGISTERED.match(str(line))
        if match is None:
            yield str(line), {}
        else:
            yield match["name"], dict(one.split("=", 1) for one in match["facts"].split(" "))


def _number(text: str | None) -> float | None:
    try:
        return seconds_of(float(text or 0))
    except ValueError:
        return None


def seconds_of(value: object) -> float | None:
    """Read a limit (s) as Celery means it: 0 is none."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _queues(reply: list[object]) -> frozenset[str]:
    named = [queue.get("name") for queue in reply if isinstance(queue, dict)]
    return frozenset(name for name in named if isinstance(name, str))


UNENFORCED_POOLS: Final[Mapping[str, str]] = {
    "solo": "cannot stop a job",
    "thread": "cannot stop a job",
    "eventlet": "cannot stop a job",
    "gevent": "cannot stop a job that computes or blocks",
}
"""Celery's pools that do not enforce time limits, by the name of their module."""
TIMED: Final = "which its verdict says afterwards"
UNTIMED: Final = "and no verdict says it, as a worker without our instrumentation times no job"


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
        if told := [worker.limit for worker in workers if worker.has_stats]:
            self._default = _strictest(told)
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
        return _whole_seconds(entry.timeout), None
    hard, soft = effective_timeout(entry, own.hard), own.soft
    if soft is not None and soft > hard:
        # Celery counts the hard one from the soft one on: none at all would bring the task's back.
        soft = hard
    return _whole_seconds(hard), None if soft is None else _whole_seconds(soft)


PARTS: Final[Mapping[str, str]] = {
    "registered": "its tasks",
    "active_queues": "its queues",
    "stats": "its pool, prefetch and time limits",
    "report": "its result store",
}
"""What each question of preflight asks for."""


def unsaid_warnings(workers: Iterable[Worker], serializer: str) -> list[str]:
    """Warn of workers that answered some of the questions, and not all.

    ``serializer``: in which they write their answers. Celery has some that YAML cannot hold.
    """
    why = "is busy"
    if serializer != "json":
        why += f", or cannot write that as {serializer}, the app's task_serializer"
    return [
        f"worker {worker.name} answered, but did not report in time "
        f"{' and '.join(PARTS[one] for one in PARTS if one in worker.unsaid)} (it {why}): that is "
        "unchecked, or taken to be as the app here has it"
        for worker in workers
        if worker.unsaid
    ]


def pool_warnings(workers: Iterable[Worker]) -> list[str]:
    """Warn of workers whose pool does not enforce time limits."""
    pools: dict[tuple[str, bool], list[str]] = {}
    for worker in workers:
        if worker.pool in UNENFORCED_POOLS:
            pools.setdefault((worker.pool, worker.is_stock), []).append(worker.name)
    return [
        f"the pool of {', '.join(sorted(names))} ({pool}) {UNENFORCED_POOLS[pool]}, so "
        f"nothing ends one that runs beyond its timeout, {UNTIMED if stock else TIMED}; use a "
        f"prefork pool where that matters"
        for (pool, stock), names in sorted(pools.items())
    ]


def _strictest(limits: Iterable[TaskLimit]) -> TaskLimit:
    every = list(limits)
    return TaskLimit(
        min((one.hard for one in every if one.hard), default=None),
        min((one.soft for one in every if one.soft), default=None),
    )


@lru_cache(maxsize=64)
def _whole_seconds(seconds: float) -> float:
    whole = int(seconds)
    return whole if whole == seconds else seconds
