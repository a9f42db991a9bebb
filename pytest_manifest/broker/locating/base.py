"""Locate jobs by two snapshots: what one shows, and what two of them prove together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

DeliveryTags = frozenset[str]
Location = Literal["queued", "with_worker", "unacked_by_dead", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class BrokerSnapshot:
    """The places of the jobs of a set of task ids at one moment; only these are in it.

    ``queued``: task id -> queue it waits in. ``unacked``: task id -> tags, one for each time that
    a worker took it and has not acknowledged it (Redis only; their text is for ``WorkerLocator``).
    ``reserved`` and ``running``: task id -> node that has it reserved or scheduled, or says that
    it runs it. ``unresponsive``: nodes known to exist that did not answer, or not everything;
    ``answered``: nodes that did. ``blind_spot``: a phrase that says what this broker cannot tell,
    "" where all was seen. ``maybe_alive``: unresponsive nodes that may be alive by what the broker
    says of who is connected to it; ``absent``: those that it has no connection of, where it tells
    that. ``delivered_at``: task id -> when it was taken last (s since
    the epoch); ``visibility_timeout``: seconds after which the broker gives back what was taken
    and not acknowledged, None: unknown.
    """

    queued: Mapping[str, str] = field(default_factory=dict)
    unacked: Mapping[str, DeliveryTags] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    unresponsive: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    blind_spot: str = ""
    delivered_at: Mapping[str, float] = field(default_factory=dict)
    visibility_timeout: float | None = None
    maybe_alive: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def contains(self, task_id: str) -> bool:
        """Tell whether a queue or a worker has it."""
        return task_id in self.queued or task_id in self.unacked or self.has_worker(task_id)

    def has_worker(self, task_id: str) -> bool:
        """Tell whether a worker said that it has it."""
        return task_id in self.reserved or task_id in self.running


@dataclass(frozen=True, slots=True)
class StartedOn:
    """The node that a job began on; ``alive``: whether that process still is, None if unknown.

    ``has_left``: that node is gone for all that it had taken, but not surely for what it runs.
    """

    worker: str | None
    alive: bool | None
    has_left: bool = False


@dataclass(frozen=True, slots=True)
class JobLocations:
    """The places in which two snapshots show jobs; each task id is in one of the five.

    ``unacked_by_dead``: task id -> delivery tags of what a dead worker had taken. ``missing``: no
    place has it, and every place could be seen. ``unknown``: none of these is certain.
    """

    queued: frozenset[str]
    unacked_by_dead: Mapping[str, DeliveryTags]
    missing: frozenset[str]
    with_worker: frozenset[str]
    unknown: frozenset[str]


def compare(
    first: BrokerSnapshot,
    second: BrokerSnapshot,
    task_ids: Iterable[str],
    *,
    started: Mapping[str, StartedOn],
) -> JobLocations:
    """Locate each task id by two snapshots with a gap between them.

    One snapshot proves no absence: a message on its way from one place to the next is in neither.
    ``started`` has the jobs whose start was seen.
    """
    found: defaultdict[Location, set[str]] = defaultdict(set)
    for task_id in task_ids:
        found[_location(first, second, task_id, started.get(task_id))].add(task_id)
    return JobLocations(
        queued=frozenset(found["queued"]),
        unacked_by_dead={i: first.unacked[i] & second.unacked[i] for i in found["unacked_by_dead"]},
        missing=frozenset(found["missing"]),
        with_worker=frozenset(found["with_worker"]),
        unknown=frozenset(found["unknown"]),
    )


def _location(
    first: BrokerSnapshot, second: BrokerSnapshot, task_id: str, start: StartedOn | None
) -> Location:
    if task_id in second.queued:
        return "queued"
    if second.has_worker(task_id):
        return "with_worker"
    if first.unacked.get(task_id, DeliveryTags()) & second.unacked.get(task_id, DeliveryTags()):
        orphaned = not first.has_worker(task_id) and not _may_be_unacked_by_living(
            first, second, start
        )
        return "unacked_by_dead" if orphaned else "unknown"
    if first.contains(task_id) or second.contains(task_id) or first.blind_spot or second.blind_spot:
        return "unknown"
    return "unknown" if _may_be_with_unresponsive(first, second, start) else "missing"


def _may_be_unacked_by_living(
    first: BrokerSnapshot, second: BrokerSnapshot, start: StartedOn | None
) -> bool:
    """Tell whether a silent node may hold the message of a job that the broker keeps for one.

    Any may, also where a start was seen: the message may have been given to another one since. Of
    one that is connected to the broker no silence, however long, shows that it is gone.
    """
    if start is not None and (start.alive or (start.alive is None and start.has_left)):
        return True
    gone = start.worker if start is not None and start.alive is False else None
    return any(
        _has_unresponsive(snapshot, but=gone) or snapshot.maybe_alive - {gone}
        for snapshot in (first, second)
    )


def _may_be_with_unresponsive(
    first: BrokerSnapshot, second: BrokerSnapshot, start: StartedOn | None
) -> bool:
    """Tell whether a silent node may have a job that the broker does not keep for one.

    Where a start was seen, that node and no other.
    """
    if start is None or (start.worker is None and start.alive is not False):
        return any(_has_unresponsive(snapshot) for snapshot in (first, second))
    return start.alive is not False and any(
        start.worker not in snapshot.answered or start.worker in snapshot.unresponsive
        for snapshot in (first, second)
    )


def _has_unresponsive(snapshot: BrokerSnapshot, *, but: str | None = None) -> bool:
    # Without a single answer the nodes are unknown.
    return any(node != but for node in snapshot.unresponsive) or not (
        snapshot.answered or snapshot.unresponsive
    )
