"""Say where attempts are, and what they wait for, while tasks that they started have not ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pytest_manifest.broker.locating.base import Location
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.text import plural


def locations_with_trees(
    locations: Mapping[str, Location], pending: PendingAttempts
) -> dict[str, Location]:
    """Return where attempts are, by task id: with a worker, too, while a descendant may go on."""
    alive: dict[str, bool] = dict.fromkeys(pending.held, True)
    jobs = [(i, job.origin.root) for i, job in pending.by_task_id.items() if job.origin is not None]
    alive.update(dict.fromkeys((root for _, root in jobs), False))
    for task_id, root in jobs:
        alive[root] = alive[root] or locations.get(task_id, "unknown") != "missing"
    found: dict[str, Location] = {root: "with_worker" for root, goes_on in alive.items() if goes_on}
    return {**locations, **found}


def waiting_phrases(pending: PendingAttempts) -> dict[str, str]:
    """Return a phrase for each attempt that has ended while descendants of it have not."""
    open_ends = Counter(
        job.origin.root for job in pending.by_task_id.values() if job.origin is not None
    )
    return {
        root: f"it has ended itself, and {plural(open_ends[root], 'task')} that it started "
        f"{'has' if open_ends[root] == 1 else 'have'} not"
        for root in pending.held
    }
