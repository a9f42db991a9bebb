"""Sum up what a manifest asks of a stack, so that a million entries fit in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pytest_manifest.broker.limits import with_effective_timeout
from pytest_manifest.schema.models import Entry


@dataclass(slots=True)
class TaskDemand:
    """The entries of one task; times in seconds.

    ``unretried`` are those that are idempotent and would not be sent again (no ``retries``).
    ``delayed`` and ``occupied`` are the entries whose message is unacknowledged the longest for
    their own sake: by countdown or eta alone, and with their own timeout added.
    """

    count: int = 0
    idempotent: int = 0
    unretried: int = 0
    longest_timeout: float = 0.0
    delayed: Entry | None = None
    longest_delay: float = 0.0
    occupied: Entry | None = None
    longest_occupation: float = 0.0


@dataclass(slots=True)
class Demand:
    """All entries of a run: by task, and one sample for each task and queue that they name."""

    tasks: dict[str, TaskDemand] = field(default_factory=dict)
    samples: dict[tuple[str, str | None], Entry] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Count the entries."""
        return sum(task.count for task in self.tasks.values())

    @property
    def longest_timeout(self) -> float:
        """Give the longest timeout of any entry, in seconds."""
        return max((task.longest_timeout for task in self.tasks.values()), default=0.0)

    def without(self, tasks: Iterable[str]) -> Demand:
        """Leave out tasks that will not be sent."""
        left_out = set(tasks)
        return Demand(
            {name: task for name, task in self.tasks.items() if name not in left_out},
            {key: entry for key, entry in self.samples.items() if key[0] not in left_out},
        )


def demand_of(
    entries: Iterable[Entry],
    now: datetime | None = None,
    own_limit: Callable[[Entry], float | None] = lambda _entry: None,
) -> Demand:
    """Sum up entries in one pass; an eta counts from ``now``, the present by default.

    ``own_limit``: seconds that an entry's task sets itself.
    """
    moment = now or datetime.now(UTC)
    demand = Demand()
    own: dict[tuple[str, str | None], float | None] = {}
    for entry in entries:
        task = demand.tasks.get(entry.task)
        if task is None:
            task = demand.tasks[entry.task] = TaskDemand()
        key = entry.task, entry.queue
        if key not in own:
            own[key] = own_limit(entry)
        held = entry if own[key] is None else with_effective_timeout(entry, own[key])
        _add(task, held, delay_of(entry, moment))
        demand.samples.setdefault((entry.task, entry.queue), entry)
    return demand


def delay_of(entry: Entry, now: datetime) -> float:
    """Give the seconds for which a worker holds the message before the job may start."""
    if entry.countdown:
        return entry.countdown
    if entry.eta is None:
        return 0.0
    eta = entry.eta if entry.eta.tzinfo else entry.eta.replace(tzinfo=UTC)
    return max(0.0, (eta - now).total_seconds())


def _add(task: TaskDemand, entry: Entry, delay: float) -> None:
    task.count += 1
    task.idempotent += entry.idempotent
    task.unretried += entry.idempotent and not entry.retries
    task.longest_timeout = max(task.longest_timeout, entry.timeout)
    if task.delayed is None or delay > task.longest_delay:
        task.delayed, task.longest_delay = entry, delay
    if task.occupied is None or delay + entry.timeout > task.longest_occupation:
        task.occupied, task.longest_occupation = entry, delay + entry.timeout


def tasks_by_queue(queues: Mapping[tuple[str, str | None], str | None]) -> dict[str, set[str]]:
    """Turn (task, asked queue) -> queue name around into queue name -> tasks."""
    found: dict[str, set[str]] = {}
    for (task, _), queue in queues.items():
        if queue is not None:
            found.setdefault(queue, set()).add(task)
    return found
