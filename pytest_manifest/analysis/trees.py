"""Order a tree of tasks as it grew, and find the path that decided when it ended; pure functions.

The tasks are an attempt's root and its descendants: what each was started by, and when it was
spawned, started and ended, as far as that is known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeVar


class TreeTask(Protocol):
    """A task of a tree. Times are UTC, None where they are not known.

    ``parent``: the task id of what started it, None for the root; ``spawned_at``: when its parent
    sent it, for the root when it was sent.
    """

    @property
    def task_id(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def spawned_at(self) -> datetime | None: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...


Task = TypeVar("Task", bound=TreeTask)


def nested(root: str, tasks: Iterable[Task]) -> list[tuple[int, Task]]:
    """Return ``(depth, task)`` of a tree's tasks, each one before those that it started.

    The tasks that one has started come in the order of their sending. One whose parent is not among
    the tasks stands below the root; the root may be left out.
    """
    known = {task.task_id: task for task in tasks}
    children: dict[str, list[Task]] = {}
    for task in known.values():
        if task.task_id != root:
            parent = task.parent if task.parent in known else root
            children.setdefault(parent or root, []).append(task)
    for some in children.values():
        some.sort(key=_order)
    ordered: list[tuple[int, Task]] = []
    left = set(known)
    depth = 0
    if root in known:
        ordered.append((0, known[root]))
        left.discard(root)
        depth = 1
    _descend(children, children.get(root, ()), depth, ordered, left)
    while left:  # a circle, which no run of Celery makes
        first = min((known[task_id] for task_id in left), key=_order)
        _descend(children, (first,), depth, ordered, left)
    return ordered


def _descend(
    children: Mapping[str, Sequence[Task]],
    first: Sequence[Task],
    depth: int,
    ordered: list[tuple[int, Task]],
    left: set[str],
) -> None:
    """Append these tasks and all below them, without recursion: a chain may be thousands long."""
    waiting = [(depth, task) for task in reversed(first)]
    while waiting:
        deep, task = waiting.pop()
        if task.task_id not in left:
            continue
        left.discard(task.task_id)
        ordered.append((deep, task))
        waiting += ((deep + 1, child) for child in reversed(children.get(task.task_id, ())))


def critical_path(root: str, tasks: Iterable[Task]) -> list[Task]:
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
    root: str, known: Mapping[str, Task], task: Task, longest: int = sys.maxsize
) -> list[Task]:
    """Return a task with all that led to it, from the root on, as far as they are known.

    At most ``longest`` of them, without the root. ``known`` may look tasks up when it is asked.
    """
    path: list[Task] = []
    seen = {root}
    one = task
    with suppress(KeyError):
        while one.task_id not in seen and len(path) < longest:
            seen.add(one.task_id)
            path.append(one)
            if one.parent is None:
                break
            one = known[one.parent]
    if root in known:
        path.append(known[root])
    return path[::-1]


def last_known(task: TreeTask) -> datetime | None:
    """Return the last moment that is known of a task: its end, else its start or its sending."""
    return task.ended_at or task.started_at or task.spawned_at


def _order(task: TreeTask) -> tuple[bool, float, str]:
    moment = task.spawned_at or task.started_at
    return moment is None, 0.0 if moment is None else moment.timestamp(), task.task_id
