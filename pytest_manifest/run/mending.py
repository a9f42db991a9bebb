"""What dead workers had taken: put back, or taken out, where that is ours to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from loguru import logger

from pytest_manifest.broker.locating import JobLocations, Locator
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.verdict import plural

Orphans = Mapping[str, frozenset[str]]


class OrphanRecovery:
    """Mends what two looks have found. ``allowed``: the messages on this broker may be moved;
    where they may not, ``findings`` gets a sentence about them. ``doubted``: whether some worker
    may have begun a job without a word; then only what may run twice is put back. For one thread.
    """

    def __init__(
        self,
        locator: Locator,
        pending: PendingAttempts,
        warnings: list[str],
        *,
        allowed: bool,
        starts_unknown: Callable[[], bool] = lambda: False,
    ) -> None:
        self._locator = locator
        self._pending = pending
        self._warnings = warnings
        self._allowed = allowed
        self._starts_unknown = starts_unknown
        self.not_requeued: frozenset[str] = frozenset()
        """What was not put back, though it might be, as it may have been begun."""

    def requeue(self, located: JobLocations) -> list[str]:
        """Put back what a dead worker had taken and not begun, and take out what it had begun.

        Returns the task ids of what had been begun, and nobody will run any more; where nothing may
        be moved, of all that had been begun. Raises StackError where the broker is away.
        """
        in_flight = self._pending.by_task_id
        orphans = {i: tags for i, tags in located.unacked_by_dead.items() if i in in_flight}
        begun = {i: t for i, t in orphans.items() if in_flight[i].is_running}
        waiting = {i: t for i, t in orphans.items() if i not in begun}
        if not self._allowed:
            self._warn_of_orphans(waiting)
            return list(begun)
        self.not_requeued = self._not_to_be_repeated(waiting)
        waiting = {i: tags for i, tags in waiting.items() if i not in self.not_requeued}
        for task_id in self._locator.restore(waiting) if waiting else ():
            entry = in_flight[task_id].entry.id
            logger.bind(entry=entry).info(
                "a worker died before it began {!r}; it is back in its queue", entry
            )
        # What the broker has given to another worker meanwhile is not ours to judge.
        return self._locator.discard(begun) if begun else []

    def _not_to_be_repeated(self, waiting: Orphans) -> frozenset[str]:
        pending = self._pending.by_task_id
        once = frozenset(i for i in waiting if not pending[i].entry.idempotent)
        if not once or not self._starts_unknown():
            return frozenset()
        self._warn(
            once,
            "may have begun them, as not every worker says when it begins a job; they are not put "
            "back, but the broker does so when its visibility timeout is over",
        )
        return once

    def _warn_of_orphans(self, orphans: Orphans) -> None:
        if orphans:
            self._warn(
                orphans,
                "the broker gives them back when its visibility timeout is over, --manifest-repair "
                "at once",
                ";",
            )

    def _warn(self, orphans: Collection[str], what: str, mark: str = ", and") -> None:
        names = sorted(self._pending.by_task_id[task_id].entry.id for task_id in orphans)
        jobs = f"{plural(len(names), 'job')}, {names[0]!r} first"
        sentence = f"a worker that is gone holds {jobs}{mark} {what}"
        if sentence not in self._warnings:
            self._warnings.append(sentence)
