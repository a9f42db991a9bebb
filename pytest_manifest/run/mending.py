"""What dead workers had taken: put back, or taken out, where that is ours to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from loguru import logger

from pytest_manifest.broker.locating import Located, Locator
from pytest_manifest.run.flights import Flights
from pytest_manifest.verdict import plural

Orphans = Mapping[str, frozenset[str]]


class Mender:
    """Mends what two looks have found. ``allowed``: the messages on this broker may be moved;
    where they may not, ``findings`` gets a sentence about them. ``doubted``: whether some worker
    may have begun a job without a word; then only what may run twice is put back. For one thread.
    """

    def __init__(
        self,
        locator: Locator,
        flights: Flights,
        findings: list[str],
        *,
        allowed: bool,
        doubted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._locator = locator
        self._flights = flights
        self._findings = findings
        self._allowed = allowed
        self._doubted = doubted
        self.left: frozenset[str] = frozenset()
        """What was not put back, though it might be, as it may have been begun."""

    def mend(self, located: Located) -> list[str]:
        """Put back what a dead worker had taken and not begun, and take out what it had begun.

        Returns the task ids of what had been begun, and nobody will run any more; where nothing may
        be moved, of all that had been begun. Raises StackError where the broker is away.
        """
        in_flight = self._flights.by_task_id
        orphans = {i: tags for i, tags in located.orphaned.items() if i in in_flight}
        begun = {i: t for i, t in orphans.items() if in_flight[i].is_running}
        waiting = {i: t for i, t in orphans.items() if i not in begun}
        if not self._allowed:
            self._report(waiting)
            return list(begun)
        self.left = self._not_to_be_repeated(waiting)
        waiting = {i: tags for i, tags in waiting.items() if i not in self.left}
        for task_id in self._locator.restore(waiting) if waiting else ():
            entry = in_flight[task_id].entry.id
            logger.bind(entry=entry).info(
                "a worker died before it began {!r}; it is back in its queue", entry
            )
        # What the broker has given to another worker meanwhile is not ours to judge.
        return self._locator.discard(begun) if begun else []

    def _not_to_be_repeated(self, waiting: Orphans) -> frozenset[str]:
        flights = self._flights.by_task_id
        once = frozenset(i for i in waiting if not flights[i].entry.idempotent)
        if not once or not self._doubted():
            return frozenset()
        self._say(
            once,
            "may have begun them, as not every worker says when it begins a job; they are not put "
            "back, but the broker does so when its visibility timeout is over",
        )
        return once

    def _report(self, orphans: Orphans) -> None:
        if orphans:
            self._say(
                orphans,
                "the broker gives them back when its visibility timeout is over, --manifest-repair "
                "at once",
                ";",
            )

    def _say(self, orphans: Collection[str], what: str, mark: str = ", and") -> None:
        names = sorted(self._flights.by_task_id[task_id].entry.id for task_id in orphans)
        jobs = f"{plural(len(names), 'job')}, {names[0]!r} first"
        sentence = f"a worker that is gone holds {jobs}{mark} {what}"
        if sentence not in self._findings:
            self._findings.append(sentence)
