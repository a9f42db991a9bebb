"""Measure how long a run was worked on, without the pauses between its segments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from pytest_manifest.analysis.records import AttemptRecord
from pytest_manifest.ledger import RunSegment


class RunSegments:
    """The segments of a run, to tell in which of them a time is."""

    def __init__(self, parts: Sequence[RunSegment] = ()) -> None:
        # Before the first recorded segment there may have been one that was not recorded.
        self.begins = [part.started for part in parts]
        self._stops = [None, *(part.stopped for part in parts)]
        self._last: tuple[AttemptRecord, tuple[datetime, datetime] | None] | None = None
        """The attempt requested last: several sums request the same one in a row."""

    def number(self, moment: datetime) -> int:
        """Return the number of the segment that a time is in."""
        return bisect_right(self.begins, moment)

    def execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        """Return from when to when a worker had the attempt; None where none had it.

        A job that a stop cut off ran until then. Where only one of both is known, it is both.
        """
        if self._last is None or self._last[0] is not attempt:
            self._last = attempt, self._execution(attempt)
        return self._last[1]

    def _execution(self, attempt: AttemptRecord) -> tuple[datetime, datetime] | None:
        # A worker's clock may be behind ours, which dates the sending.
        started, ended = (
            _not_before(attempt.sent_at, moment)
            for moment in (attempt.started_at, attempt.ended_at)
        )
        if started is None:
            return None if ended is None else (ended, ended)
        part = self.number(started)
        # A death may have been noticed, and dated, when the run was resumed.
        noticed_late = attempt.runtime is None and ended is not None and self.number(ended) > part
        if ended is None or noticed_late:
            ended = self._stops[part] or started
        return started, max(started, ended)


class WorkTime:
    """The sum of the stretches of time in which something was done.

    A stretch goes from the first to the last work in a segment, and on into the next segment where
    work continued in between.
    """

    def __init__(self, parts: RunSegments) -> None:
        self._parts = parts
        self._stretches: dict[int, tuple[datetime, datetime]] = {}

    def add(self, started: datetime, ended: datetime) -> None:
        """Add work from one time to another."""
        first, last = self._parts.number(started), self._parts.number(ended)
        for number in range(first, last + 1):
            start = started if number == first else self._parts.begins[number - 1]
            stop = ended if number == last else self._parts.begins[number]
            known = self._stretches.get(number, (start, stop))
            self._stretches[number] = min(start, known[0]), max(stop, known[1])

    @property
    def count(self) -> int:
        """Return the number of segments in which something was done."""
        return len(self._stretches)

    def seconds(self, number: int | None = None) -> float | None:
        """Return the length of all stretches, or of one segment's; None where nothing was done."""
        chosen = [
            (stop - start).total_seconds()
            for part, (start, stop) in self._stretches.items()
            if number is None or part == number
        ]
        return sum(chosen) if chosen else None

    def pauses(self) -> float:
        """Return the sum of the seconds between the stretches."""
        ordered = sorted(self._stretches.values())
        return sum((later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(ordered))

    def rate(self, count: int) -> float | None:
        """Return ``count`` per second of all stretches; None for less than two."""
        took = self.seconds()
        return count / took if took and count > 1 else None


def _not_before(earliest: datetime | None, moment: datetime | None) -> datetime | None:
    return moment if moment is None or earliest is None else max(earliest, moment)
