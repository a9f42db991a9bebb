"""Where jobs are, in two looks: what one look can see, and what two of them prove together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Tags = frozenset[str]
Place = Literal["queued", "underway", "orphaned", "nowhere", "untold"]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything, for a set of task ids; only these are in it.

    ``queued``: task id -> queue it waits in. ``taken``: task id -> tags, one for each time that a
    worker took it and has not acknowledged it (Redis only; their text is for :class:`Locator`).
    ``held`` and ``running``: task id -> node that has it reserved or scheduled, or says that it
    runs it. ``silent``: nodes known to exist that did not answer, or not everything; ``answered``:
    nodes that did. ``unseen``: a phrase that says what this broker cannot tell, "" where all was
    seen. ``unheard``: silent nodes that may be alive by what the broker says of who is
    connected to it. ``since``: task id -> when it was taken last (seconds of the epoch);
    ``visibility``: after how many seconds the broker gives back what was taken and not
    acknowledged, None: unknown.
    """

    queued: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, Tags] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    unseen: str = ""
    since: Mapping[str, float] = field(default_factory=dict)
    visibility: float | None = None
    unheard: frozenset[str] = frozenset()

    def sees(self, task_id: str) -> bool:
        """Whether any place has it."""
        return task_id in self.queued or task_id in self.taken or self.has_worker(task_id)

    def has_worker(self, task_id: str) -> bool:
        """Whether a worker said that it has it."""
        return task_id in self.held or task_id in self.running


@dataclass(frozen=True, slots=True)
class StartedOn:
    """The node that a job began on; ``alive``: whether that process still is, None if unknown."""

    worker: str | None
    alive: bool | None


@dataclass(frozen=True, slots=True)
class Located:
    """What two looks say; each task id is in one of the five.

    ``orphaned``: task id -> delivery tags of what a worker that is gone had taken. ``nowhere``: no
    place has it, and every place could be seen. ``untold``: none of these can be said.
    """

    queued: frozenset[str]
    orphaned: Mapping[str, Tags]
    nowhere: frozenset[str]
    underway: frozenset[str]
    untold: frozenset[str]


class Locator(Protocol):
    """Looks for jobs on one kind of broker. For one thread at a time, the publisher's."""

    def look(self, task_ids: Collection[str]) -> Look:
        """Look everywhere for these task ids.

        Raises:
            StackError: the broker cannot be reached.
        """

    def restore(self, orphans: Mapping[str, Tags]) -> list[str]:
        """Put orphans (task id -> tags) back into their queue; returns the task ids that are.

        What has gone meanwhile is left alone, so to do it twice, or in two processes, is safe.

        Raises:
            StackError: the broker cannot be reached.
        """

    def discard(self, orphans: Mapping[str, Tags]) -> list[str]:
        """Remove orphans for good, so that nobody runs them; returns the task ids removed.

        Raises:
            StackError: the broker cannot be reached.
        """

    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        """Remove what waits in a queue, so that nobody is given it; returns the task ids removed.

        What a worker has taken is not touched. Nothing is removed where no message can be seen.

        Raises:
            StackError: the broker cannot be reached.
        """

    def close(self) -> None:
        """End what the locator has opened; the publisher's connections stay."""


def compare(
    first: Look, second: Look, task_ids: Iterable[str], *, started: Mapping[str, StartedOn]
) -> Located:
    """Say where each task id is, by two looks with a gap between them.

    One look proves no absence: a message on its way from one place to the next is in neither.
    ``started`` has the jobs whose start was seen.
    """
    found: dict[Place, set[str]] = {
        "queued": set(),
        "underway": set(),
        "orphaned": set(),
        "nowhere": set(),
        "untold": set(),
    }
    for task_id in task_ids:
        found[_place(first, second, task_id, started.get(task_id))].add(task_id)
    return Located(
        queued=frozenset(found["queued"]),
        orphaned={i: first.taken[i] & second.taken[i] for i in found["orphaned"]},
        nowhere=frozenset(found["nowhere"]),
        underway=frozenset(found["underway"]),
        untold=frozenset(found["untold"]),
    )


def _place(first: Look, second: Look, task_id: str, start: StartedOn | None) -> Place:
    if task_id in second.queued:
        return "queued"
    if second.has_worker(task_id):
        return "underway"
    if first.taken.get(task_id, Tags()) & second.taken.get(task_id, Tags()):
        orphaned = not first.has_worker(task_id) and not _may_be_taken(first, second, start)
        return "orphaned" if orphaned else "untold"
    if first.sees(task_id) or second.sees(task_id) or first.unseen or second.unseen:
        return "untold"
    return "untold" if _may_be_had(first, second, start) else "nowhere"


def _may_be_taken(first: Look, second: Look, start: StartedOn | None) -> bool:
    """Whether a silent node may hold the message of a job that the broker keeps for one.

    Any may, also where a start was seen: the message may have been given to another one since. Of
    one that is connected to the broker no silence, however long, shows that it is gone.
    """
    gone = start.worker if start is not None and start.alive is False else None
    return any(_silent(look, but=gone) or look.unheard - {gone} for look in (first, second))


def _may_be_had(first: Look, second: Look, start: StartedOn | None) -> bool:
    """Whether a silent node may have a job that the broker does not keep for one.

    Where a start was seen, that node and no other.
    """
    if start is None or (start.worker is None and start.alive is not False):
        return any(_silent(look) for look in (first, second))
    return start.alive is not False and any(
        start.worker not in look.answered or start.worker in look.silent for look in (first, second)
    )


def _silent(look: Look, *, but: str | None = None) -> bool:
    # Without a single answer nobody knows which nodes there are.
    return any(node != but for node in look.silent) or not (look.answered or look.silent)


__all__ = ["Located", "Locator", "Look", "StartedOn", "Tags", "compare"]
