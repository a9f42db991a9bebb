"""Show the tasks that a job started as Allure steps, nested as one started the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from pytest_manifest.analysis.tree_reading import DescendantRecord, TreeRecord
from pytest_manifest.reporting.allure.steps import Json, step_between
from pytest_manifest.reporting.allure.terms import message_of, status_of
from pytest_manifest.schema.statuses import AllureStatus, VerdictStatus
from pytest_manifest.text import plural, visible

MOST: Final = 200
"""Descendants of an attempt that are steps; of more, the failed, the critical path, the slowest."""
CRITICAL: Final = "critical path"
"""What the name of a step ends with that the end of its tree depended on."""
_WORST_FIRST: Final[tuple[AllureStatus, ...]] = ("failed", "broken", "passed")


def step_of_tree(tree: TreeRecord) -> Json:
    """Return one step for an attempt's descendants, with a step for each of them inside."""
    moments = [one.spawned_at or one.started_at for _, one in tree.tasks]
    began = min((moment for moment in moments if moment is not None), default=None)
    statuses = {status_of(status) for status in tree.counts}
    worst: AllureStatus = next((one for one in _WORST_FIRST if one in statuses), "passed")
    number = "1 descendant" if tree.total == 1 else f"{tree.total:,} descendants"
    step = step_between(f"{number}: {_counted(tree.counts)}", began, tree.ended_at, worst)
    step["steps"] = _nested(tree)
    return step


def _nested(tree: TreeRecord) -> list[Json]:
    on_path = set(tree.path)
    top: list[Json] = []
    open_lists = [top]
    """The list of steps that a task of each depth is appended to."""
    for depth, one in tree.tasks:
        inner: list[Json] = []
        step = _step(one, critical=one.task_id in on_path)
        del open_lists[depth + 1 :]
        open_lists[depth].append(step)
        step["steps"] = inner
        open_lists.append(inner)
    if tree.left_out:
        shown = Counter(one.status for _, one in tree.tasks)
        left = {status: count - shown[status] for status, count in tree.counts.items()}
        top.append(step_between(f"and {tree.left_out:,} more: {_counted(left)}", None, None))
    return top


def _step(one: DescendantRecord, *, critical: bool) -> Json:
    name = visible(one.task)
    if one.status != "passed":
        name = f"{name}: {one.status or 'pending'}"
    if one.retries:
        name = f"{name} ({plural(one.retries, 'retry')})"
    if critical:
        name = f"{name} ({CRITICAL})"
    status = status_of(one.status)
    step = step_between(name, one.started_at or one.spawned_at, one.ended_at, status)
    rows = {
        "started as": one.how.replace("_", " "),
        "worker": one.place,
        "host": one.host,
        "retries": one.retries or None,
        "task id": one.task_id,
    }
    step["parameters"] = [
        {"name": key, "value": visible(str(value))}
        for key, value in rows.items()
        if value is not None
    ]
    if status != "passed":
        step["statusDetails"] = _details(one)
    return step


def _details(one: DescendantRecord) -> Json:
    details: Json = {"message": visible(message_of(one.status, one.sentence))}
    if one.failure is not None and (trace := one.failure.traceback or one.failure.error):
        details["trace"] = visible(trace)
    return details


def _counted(counts: Mapping[VerdictStatus | None, int]) -> str:
    """Return how many there are of each status, the most frequent first."""
    some = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return ", ".join(
        f"{count:,} {(status or 'pending').replace('_', ' ')}" for status, count in some if count
    )
