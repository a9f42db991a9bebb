"""Read attempts' trees for reports, one at a time.

Of a tree with more descendants than a report shows, those that did not pass are kept, the critical
path, and the slowest.

Order a tree of tasks as it grew, and find the path that decided when it ended; pure functions.

The tasks are an attempt's root and its descendants: what each was started by, and when it was
spawned, started and ended, as far as that is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic_core import from_json

from pytest_manifest.analysis.records import AttemptRecord, place_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.descendants import ToldDescendant
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.shown import shown_text
from pytest_manifest.schema.statuses import Outcome, outcome_of


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """The error of a task, and the last lines of its log; ``error``: its type and message."""

    error: str | None
    traceback: str | None
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DescendantRecord:
    """A task that an attempt's job started, or another of its descendants; or its root.

    Times are UTC, ``runtime`` seconds; unknown values are None. ``parent``: the task id of what
    started it, "" of the root, which was spawned when it was sent. ``status``: None without a
    verdict; ``sentence`` and ``failure``: only of one that did not pass.
    """

    task_id: str
    parent: str
    task: str = ""
    how: str = ""
    status: VerdictStatus | None = None
    sentence: str | None = None
    spawned_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: float | None = None
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    retries: int = 0
    failure: TaskFailure | None = None

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.status)

    @property
    def place(self) -> str | None:
        """Return worker and pid as ``worker#pid``, or None where no worker began it."""
        return place_of(self.worker or self.host, self.pid)


def nested(root: str, tasks: Iterable[DescendantRecord]) -> list[tuple[int, DescendantRecord]]:
    """Return ``(depth, task)`` of a tree's tasks, each one before those that it started.

    The tasks that one has started come in the order of their sending. One whose parent is not among
    the tasks stands below the root; the root may be left out.
    """
    known = {task.task_id: task for task in tasks}
    children: dict[str, list[DescendantRecord]] = {}
    for task in known.values():
        if task.task_id != root:
            children.setdefault(task.parent if task.parent in known else root, []).append(task)
    ordered: list[tuple[int, DescendantRecord]] = []
    left = set(known)

    def descend(depth: int, some: Sequence[DescendantRecord]) -> None:
        """Add these and all below them, without recursion: a chain may be thousands long."""
        waiting = [(depth, task) for task in sorted(some, key=_order, reverse=True)]
        while waiting:
            deep, task = waiting.pop()
            if task.task_id in left:
                left.discard(task.task_id)
                ordered.append((deep, task))
                below = sorted(children.get(task.task_id, ()), key=_order, reverse=True)
                waiting += ((deep + 1, child) for child in below)

    descend(0, [known[root]] if root in known else children.get(root, []))
    while left:  # a circle, which no run of Celery makes
        descend(int(root in known), [min((known[one] for one in left), key=_order)])
    return ordered


def critical_path(root: str, tasks: Iterable[DescendantRecord]) -> list[DescendantRecord]:
    """Return the path that decided when a tree ended: from the root to the task that ended last.

    Each of its tasks has started the next one. A chord's body is started by the member of its
    header that ended last, and the next of a chain by the one before it: so an end that others
    waited for is on the path. A task without an end counts by the last that is known of it. Of a
    task that itself waits for those that it started, the end is the path's; they are not on it.
    """
    known = {task.task_id: task for task in tasks}
    timed = [(last_known(task), task) for task in known.values()]
    ends = [(moment, task) for moment, task in timed if moment is not None]
    if not ends:
        return [known[root]] if root in known else []
    latest = max(moment for moment, _ in ends)
    # Of those that ended in the same moment, the one that others have led to.
    return max((path_to(root, known, task) for moment, task in ends if moment == latest), key=len)


def path_to(
    root: str, known: Mapping[str, DescendantRecord], task: DescendantRecord
) -> list[DescendantRecord]:
    """Return a task with all that led to it, from the root on, as far as they are known."""
    path: list[DescendantRecord] = []
    seen = {root}
    one = task
    with suppress(KeyError):
        while one.task_id not in seen:
            seen.add(one.task_id)
            path.append(one)
            one = known[one.parent]
    if root in known:
        path.append(known[root])
    return path[::-1]


def last_known(task: DescendantRecord) -> datetime | None:
    """Return the last moment that is known of a task: its end, else its start or its sending."""
    return task.ended_at or task.started_at or task.spawned_at


def _order(task: DescendantRecord) -> tuple[bool, float, str]:
    moment = task.spawned_at or task.started_at
    return moment is None, 0.0 if moment is None else moment.timestamp(), task.task_id


LONGEST_PATH: Final = 1000
"""Tasks of a critical path that are reported, from its end."""


@dataclass(frozen=True, slots=True)
class TreeRecord:
    """An attempt's descendants: all of them, or of many those that matter most.

    ``counts``: how many of the tree have which status, None: no verdict. ``tasks``: depth and
    descendant, each before those that it started; what the root has started has depth 0. ``path``:
    task ids of the descendants on the critical path, from the root on. ``ended_at``: the last
    moment that is known of the tree.
    """

    root: str
    counts: Mapping[VerdictStatus | None, int]
    tasks: Sequence[tuple[int, DescendantRecord]]
    path: Sequence[str]
    ended_at: datetime | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def left_out(self) -> int:
        """Return how many descendants are not among ``tasks``."""
        return self.total - len(self.tasks)


def read_trees(
    ledger: Ledger, attempts: Sequence[AttemptRecord], limit: int
) -> dict[str, TreeRecord]:
    """Return the trees of those of these attempts that have descendants, by the root's task id.

    Each has ``limit`` descendants at most, and its critical path. Raises LedgerError where they
    cannot be read.
    """
    known = ledger.descendants.roots([one.task_id for one in attempts])
    with ledger.parse_errors():
        return {
            one.task_id: tree_of(
                one, map(descendant_record, ledger.descendants.told(one.task_id)), limit
            )
            for one in attempts
            if one.task_id in known
        }


def tree_of(
    root: AttemptRecord, descendants: Iterable[DescendantRecord], limit: int | None = None
) -> TreeRecord:
    """Return the tree of these descendants, which are all that the attempt has."""
    every = list(descendants)
    first = DescendantRecord(
        *(root.task_id, ""),
        spawned_at=root.sent_at,
        started_at=root.started_at,
        ended_at=root.ended_at,
    )
    path = critical_path(first.task_id, [first, *every])
    led = [one for one in path if one is not first][-LONGEST_PATH:]
    shown = every if limit is None or len(every) <= limit else _chosen(every, led, limit)
    return TreeRecord(
        root=first.task_id,
        counts=Counter(one.status for one in every),
        tasks=nested(first.task_id, shown),
        path=[one.task_id for one in led],
        ended_at=last_known(path[-1]) if path else None,
    )


def _chosen(
    every: Iterable[DescendantRecord], led: Sequence[DescendantRecord], limit: int
) -> list[DescendantRecord]:
    """Return so many: the end of the critical path, the first that are bad, and the slowest."""
    bad = sorted((one for one in every if one.status != "passed"), key=_order)
    timed = (one for one in every if one.runtime is not None)
    slow = sorted(timed, key=lambda one: one.runtime or 0.0, reverse=True)
    shown = {one.task_id: one for one in (*led[-limit:], *bad[: (limit + 1) // 2])}
    for one in slow:
        if len(shown) >= limit:
            break
        shown[one.task_id] = one
    return list(shown.values())


def descendant_record(told: ToldDescendant) -> DescendantRecord:
    """Return the record of a descendant; a receipt that cannot be read counts as none."""
    receipt = None
    if told.receipt is not None and told.status != "forged":  # whose times are not credible
        with suppress(ValueError):
            receipt = receipt_of(told.receipt)
    sentence = None if told.verdict is None else from_json(told.verdict).get("sentence")
    # When a process died is unknown; the receipt has the time at which that was noticed.
    ended = None if receipt is None or receipt.state == "crashed" else receipt
    origin = told if receipt is None or receipt.worker is None else receipt
    return DescendantRecord(
        task_id=told.task_id,
        parent=told.parent,
        task=told.task,
        how=told.how,
        status=told.status,
        sentence=None if sentence is None else shown_text(sentence),
        spawned_at=told.spawned_at,
        started_at=(receipt and receipt.started_at) or told.started_at,
        ended_at=None if ended is None else ended.finished_at,
        runtime=None if ended is None else ended.runtime,
        worker=origin.worker,
        host=origin.host,
        pid=origin.pid,
        retries=max(0 if receipt is None else receipt.retries, told.retries or 0),
        failure=None if receipt is None or told.status == "passed" else _failure(receipt),
    )


def _failure(fields: Receipt) -> TaskFailure | None:
    error = fields.error
    if error is None and not fields.log:
        return None
    return TaskFailure(
        None if error is None else shown_text(f"{error.type}: {error.message}"),
        None if error is None or error.traceback is None else shown_text(error.traceback),
        tuple(map(shown_text, fields.log)),
    )
