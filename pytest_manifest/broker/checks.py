"""The rules of preflight: what a manifest asks of a stack, held against what its workers report.

A :class:`Demand` sums entries up, so that a million fit in a few lines; each rule is a pure
function of a demand and the workers' answers.

Record what a check of a stack has found: findings by level, with the workers that answered.

Tell which tasks a run may send, by the patterns that its user gives.
"""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Final, Literal

from pytest_manifest.broker.workers import Worker, with_effective_timeout
from pytest_manifest.schema.models import Entry
from pytest_manifest.schema.wire import WORKER_MARK
from pytest_manifest.text import listed, middle, printable
from pytest_manifest.verdict.tree import expects_something

CELERYS: Final = "celery."
UNSEEN: Final = frozenset(
    f"{CELERYS}{name}"
    for name in (
        "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap",
    )
)  # fmt: skip
"""Celery's own tasks, which every worker has, that run others, named in their arguments, or empty
the result store."""
_SHOWN: Final = 3
_NAME_LIMIT: Final = 60


def may_send(task: str, allowed: Sequence[str] | None) -> bool:
    """Tell whether a task may be sent; ``allowed``: patterns like ``shop.*``; None: any.

    One of Celery's own that runs others must be named as such: ``*`` does not mean it.
    """
    if task in UNSEEN:
        allowed = [one for one in allowed or () if one.startswith(CELERYS)]
    return allowed is None or any(fnmatchcase(task, one) for one in allowed)


def task_refusals(tasks: Iterable[str], allowed: Sequence[str] | None) -> list[str]:
    """Return a sentence about those of the tasks that may not be sent; none where all may be."""
    refused = [name for name in tasks if not may_send(name, allowed)]
    if not refused:
        return []
    names = listed([repr(middle(printable(name), _NAME_LIMIT)) for name in refused], _SHOWN)
    if UNSEEN.issuperset(refused):
        why = "Celery's tasks that run others, or clean up, are sent only where they are named"
    else:
        why = f"what may be sent is {' '.join(map(printable, allowed or ()))}"
    return [f"{names} may not be sent: {why}; name each task that is meant in --manifest-allow."]


Level = Literal["error", "warning", "unchecked", "ok"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "unchecked", "ok")
LEVEL_WIDTH: Final = len("unchecked")
NARROWEST: Final = 60
WIDEST: Final = 120
SHOWN: Final = 5
"""Names in one message; the others are counted."""

some_of: Final = partial(listed, most=SHOWN)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's finding; ``message`` is a sentence for the user, without passwords."""

    level: Level
    check: str
    message: str


@dataclass(slots=True)
class StackCheck:
    """A stack's workers and findings; addresses without passwords, "" where there is none."""

    kind: str
    reason: str
    broker: str = ""
    backend: str = ""
    app: str = ""
    workers: list[Worker] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether there is no error."""
        return all(one.level != "error" for one in self.findings)

    def count(self, level: Level) -> int:
        """Count the findings of a level."""
        return sum(one.level == level for one in self.findings)

    def add(self, level: Level, check: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, check, message))


def table_rows(findings: Sequence[Finding]) -> Iterator[tuple[Level, str]]:
    """Yield the level of each finding with its lines, as wide as the terminal, worst first."""
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    name = max((len(one.check) for one in findings), default=0)
    indent = " " * (LEVEL_WIDTH + name + 4)
    for one in sorted(findings, key=lambda one: LEVELS.index(one.level)):
        text = printable(one.message)
        first, *others = textwrap.wrap(text, width - len(indent), break_on_hyphens=False)
        lines = [f"{one.level:<{LEVEL_WIDTH}}  {one.check:<{name}}  {first}"]
        yield one.level, "\n".join([*lines, *(f"{indent}{line}" for line in others)])


@dataclass(slots=True)
class TaskDemand:
    """The entries of one task.

    ``unretried`` are those that are idempotent and would not be sent again (no ``retries``).
    ``judges_descendants``: the id of one that says what must become of the tasks that it starts;
    ``judges_times``: of one that says how long its job may wait or run.
    """

    count: int = 0
    idempotent: int = 0
    unretried: int = 0
    judges_descendants: str | None = None
    judges_times: str | None = None


@dataclass(slots=True)
class HeldEntries:
    """Sum up the entries of one task and queue by how long a worker holds them; times in seconds.

    ``timeouts``: how many entries have which. ``delayed`` and ``occupied`` are the entries whose
    message is unacknowledged the longest for their own sake: by countdown or eta alone, and with
    their own timeout added.
    """

    timeouts: Counter[float] = field(default_factory=Counter)
    delayed: Entry | None = None
    longest_delay: float = 0.0
    occupied: Entry | None = None
    longest_occupation: float = 0.0

    def add(self, entry: Entry, delay: float) -> None:
        """Count an entry; ``delay``: seconds before its job may start."""
        self.timeouts[entry.timeout] += 1
        if self.delayed is None or delay > self.longest_delay:
            self.delayed, self.longest_delay = entry, delay
        if self.occupied is None or delay + entry.timeout > self.longest_occupation:
            self.occupied, self.longest_occupation = entry, delay + entry.timeout


TaskAndQueue = tuple[str, str | None]
"""A task, and the queue that its entries name; None: its own."""


@dataclass(slots=True)
class Demand:
    """All entries of a run: by task, and one sample for each task and queue that they name."""

    tasks: dict[str, TaskDemand] = field(default_factory=dict)
    samples: dict[TaskAndQueue, Entry] = field(default_factory=dict)
    held: dict[TaskAndQueue, HeldEntries] = field(default_factory=dict)

    def longest_held(self, late: Container[str]) -> dict[str, float]:
        """Map each task -> for how long (s) a worker may keep a message of it unacknowledged.

        ``late``: the tasks that are acknowledged late.
        """
        found: dict[str, float] = {}
        for (task, _), one in sorted(self.held.items(), key=lambda item: item[0][0]):
            own = one.longest_occupation if task in late else one.longest_delay
            found[task] = max(own, found.get(task, own))
        return found

    def without(self, tasks: Iterable[str]) -> Demand:
        """Leave out tasks that will not be sent."""
        kept = self.tasks.keys() - set(tasks)
        return Demand(
            {name: task for name, task in self.tasks.items() if name in kept},
            {key: entry for key, entry in self.samples.items() if key[0] in kept},
            {key: held for key, held in self.held.items() if key[0] in kept},
        )


def demand_of(
    entries: Iterable[Entry],
    now: datetime | None = None,
    own_limit: Callable[[Entry], float | None] = lambda _entry: None,
) -> Demand:
    """Sum up entries in one pass; an eta counts from ``now``, the present by default.

    ``own_limit``: seconds that an entry's task sets itself.
    """
    moment = now or datetime.now(timezone.utc)
    demand = Demand()
    own: dict[TaskAndQueue, float | None] = {}
    for entry in entries:
        task = demand.tasks.setdefault(entry.task, TaskDemand())
        key = entry.task, entry.queue
        if key not in own:
            own[key] = own_limit(entry)
            demand.samples[key], demand.held[key] = entry, HeldEntries()
        limited = entry if own[key] is None else with_effective_timeout(entry, own[key])
        delay = delay_of(entry, moment)
        _add(task, limited)
        demand.held[key].add(limited, delay)
    return demand


def delay_of(entry: Entry, now: datetime) -> float:
    """Give the seconds for which a worker holds the message before the job may start."""
    if entry.countdown:
        return entry.countdown
    if entry.eta is None:
        return 0.0
    eta = entry.eta if entry.eta.tzinfo else entry.eta.replace(tzinfo=timezone.utc)
    return max(0.0, (eta - now).total_seconds())


def _add(task: TaskDemand, entry: Entry) -> None:
    task.count += 1
    task.idempotent += entry.idempotent
    if expects_something(entry):
        task.judges_descendants = task.judges_descendants or entry.id
    if (entry.expect.max_runtime, entry.expect.max_wait) != (None, None):
        task.judges_times = task.judges_times or entry.id
    task.unretried += entry.idempotent and not entry.retries


def tasks_by_queue(queues: Mapping[TaskAndQueue, str | None]) -> dict[str, set[str]]:
    """Turn (task, asked queue) -> queue name around into queue name -> tasks."""
    found: dict[str, set[str]] = {}
    for (task, _), queue in queues.items():
        if queue is not None:
            found.setdefault(queue, set()).add(task)
    return found


EAGER_HERE: Final = (
    "the app sets task_always_eager, which the private stack switches off for its run: what a job "
    "sends is sent, and run by a worker"
)
EAGER: Final = (
    "the app sets task_always_eager, so what its code sends runs where it is sent and reaches no "
    "broker: a batch would not show what workers do; switch it off for this run"
)
MAX_SIMILAR: Final = 3


def unknown_tasks(wanted: Iterable[str], workers: Iterable[Worker]) -> dict[str, list[str]]:
    """Give the tasks that no worker has registered, each with the nearest names that one has.

    None where a worker did not say what it has.
    """
    asked = list(workers)
    registered = {name for worker in asked for name in worker.tasks}
    if not asked or not all(worker.tasks for worker in asked):
        return {}
    return {
        task: similar_tasks(task, registered)
        for task in sorted(set(wanted))
        if task not in registered
    }


def similar_tasks(task: str, registered: Collection[str]) -> list[str]:
    """Give up to three registered names that ``task`` may have meant, the likeliest first.

    The same function in another module comes before a similar spelling.
    """
    own = sorted(name for name in registered if not name.startswith((CELERYS, WORKER_MARK)))
    function = task.rpartition(".")[2]
    moved = [name for name in own if name.rpartition(".")[2] == function]
    similar = get_close_matches(task, own, n=MAX_SIMILAR)
    return list(dict.fromkeys([*moved, *similar]))[:MAX_SIMILAR]


def idle_queues(needed: Collection[str], workers: Sequence[Worker]) -> list[str]:
    """Give the queues that no worker consumes; none where a worker did not say what it does."""
    if any(worker.queues is None for worker in workers):
        return []
    consumed = {queue for worker in workers for queue in worker.queues or ()}
    return [queue for queue in sorted(needed) if queue not in consumed]


DISAGREEMENTS: Final[Mapping[bool, str]] = {
    False: (
        "early, so a job whose worker dies is not run again, though {} of {} entries are declared "
        'idempotent; give them "retries", or the task acks_late=True and reject_on_worker_lost=True'
    ),
    True: (
        "late, so a job whose worker dies runs again, but {} of {} entries are not declared "
        'idempotent; declare them ("idempotent": true) or set acks_late=False'
    ),
}
"""By whether a task is acknowledged late: what its entries' ``idempotent`` disagrees with."""


def acknowledgement_notices(demand: Demand, late: Mapping[str, bool]) -> list[str]:
    """Give a line for the tasks whose entries' ``idempotent`` disagrees with their acks_late: one
    for those that are acknowledged early, and one for those that are acknowledged late."""
    notices = []
    for is_late, said in DISAGREEMENTS.items():
        found = {
            name: (task.count - task.idempotent if is_late else task.unretried, task.count)
            for name, task in sorted(demand.tasks.items())
            if late.get(name) is is_late
        }
        found = {name: counts for name, counts in found.items() if counts[0]}
        if found:
            counts = map(sum, zip(*found.values(), strict=True))
            notices.append(f"{some_of(list(found))}: acknowledged {said.format(*counts)}")
    return notices


def unmeasured_times(demand: Demand, stock: Collection[str]) -> list[str]:
    """Say which entries judge times, where ``stock`` workers, which measure none, may run them."""
    judging = [name for task in demand.tasks.values() if (name := task.judges_times)]
    if not (judging and stock):
        return []
    entries, workers = listed(list(map(repr, judging)), _SHOWN), listed(sorted(stock), _SHOWN)
    sentence = (
        f"{entries}: 'expect' has max_runtime or max_wait, and {workers} measure no times, so such "
        "an entry would be 'unknown'; start your workers with -I pytest_manifest.worker, or take "
        "it out of 'expect'"
    )
    return [sentence]
