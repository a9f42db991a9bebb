"""How long a run was worked on: the time from first to last, without pauses between its parts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from pytest_manifest.analysis.records import AttemptRecord
from pytest_manifest.ledger import RunSegment


class Parts:
    """When each part of a run began, and which of them a moment is in."""

    def __init__(self, parts: Sequence[RunSegment] = ()) -> None:
        # Before the first that is known there may have been one that nobody has noted.
        self.begins = [part.started for part in parts]
        self._stops = [None, *(part.stopped for part in parts)]
        self._last: tuple[AttemptRecord, tuple[datetime, datetime] | None] | None = None
        """The attempt that was asked about last: all that adds up asks for the same."""

    def number(self, moment: datetime) -> int:
        """The number of the part that this moment is in."""
        return bisect_right(self.begins, moment)

    def execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        """From when to when a worker had the attempt; None where nobody had it.

        What a stop cut off ran until then. Where only one end is known, it is both.
        """
        if self._last is None or self._last[0] is not attempt:
            self._last = attempt, self._execution(attempt)
        return self._last[1]

    def _execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        # The clock of a worker's host may be behind ours, by which it was sent.
        began, ended = (
            _not_before(attempt.sent_at, moment)
            for moment in (attempt.started_at, attempt.ended_at)
        )
        if began is None:
            return None if ended is None else (ended, ended)
        part = self.number(began)
        # A death may have been noticed, and dated, when the run was taken up again.
        noticed_late = attempt.runtime is None and ended is not None and self.number(ended) > part
        if ended is None or noticed_late:
            ended = self._stops[part] or began
        return began, max(began, ended)


class WorkTime:
    """Adds up in which stretches of time something was done.

    A stretch goes from the first to the last that was done in a part, and on into the next part
    where something went on meanwhile.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stretches: dict[int, tuple[datetime, datetime]] = {}

    def add(self, began: datetime, ended: datetime) -> None:
        """Something was done from one moment to the other."""
        first, last = self._parts.number(began), self._parts.number(ended)
        for number in range(first, last + 1):
            start = began if number == first else self._parts.begins[number - 1]
            stop = ended if number == last else self._parts.begins[number]
            known = self._stretches.get(number, (start, stop))
            self._stretches[number] = min(start, known[0]), max(stop, known[1])

    @property
    def count(self) -> int:
        """In how many parts something was done."""
        return len(self._stretches)

    def seconds(self, number: int | None = None) -> float | None:
        """The length of all stretches, or of the one in a part; None where nothing was done."""
        chosen = [
            (stop - start).total_seconds()
            for part, (start, stop) in self._stretches.items()
            if number is None or part == number
        ]
        return sum(chosen) if chosen else None

    def pauses(self) -> float:
        """Seconds between the stretches, all together."""
        ordered = sorted(self._stretches.values())
        return sum((later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(ordered))

    def rate(self, count: int) -> float | None:
        """So many, per second of all stretches; None for less than two."""
        took = self.seconds()
        return count / took if took and count > 1 else None


def _not_before(earliest: datetime | None, moment: datetime | None) -> datetime | None:
    return moment if moment is None or earliest is None else max(earliest, moment)
