"""Measure how fast a run goes, and foresee its end, from the moments at which entries were judged.

All moments are seconds since the epoch, by the controller's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from pytest_manifest.schema.run_status import MOST_BUCKETS

MINUTE: Final = 60
RECENT: Final = 600
"""Seconds of which each is counted by itself."""
ENOUGH: Final = 10
"""Entries judged in a minute from which that is its rate; of fewer a longer time is."""
QUIET: Final = 20.0
"""Seconds without a verdict after which no end is foreseen, if it was foreseen to be sooner."""
_MINUTES: Final = 600
"""Minutes of which the median is taken."""
_LONGEST_BACK: Final = 1800.0
"""Seconds ago, at most, of what was foreseen earlier."""
_LEAST_BACK: Final = 120.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The end of a run as it is foreseen: seconds from now until nothing waits any more.

    ``before``: the moment that was foreseen at the moment ``before_at``.
    """

    seconds: float
    soonest: float
    latest: float
    before: float | None = None
    before_at: float | None = None


class Pace:
    """The number of entries that were judged over time. Call :meth:`begin` for each stretch."""

    def __init__(self, began: float) -> None:
        self.began = self.since = began
        self.width = 1
        self.done: list[int] = []
        self.failed: list[int] = []
        self.last_gain = began
        self._fresh = 0
        """How many since the present stretch began."""
        self._seconds: deque[list[int]] = deque()
        """Second and number, of the last ten minutes."""
        self._minutes: dict[int, int] = {}

    def begin(self, at: float) -> None:
        """Measure anew from here on: the run is taken up again."""
        self.since = self.last_gain = at
        self._fresh = 0
        self._seconds.clear()

    def add(self, at: float, *, is_bad: bool) -> None:
        """Count an entry that was judged."""
        place = int(max(at - self.began, 0.0)) // self.width
        while place >= MOST_BUCKETS:
            self.done, self.failed = _halved(self.done), _halved(self.failed)
            self.width, place = 2 * self.width, place // 2
        more = place + 1 - len(self.done)
        if more > 0:
            self.done += [0] * more
            self.failed += [0] * more
        self.done[place] += 1
        self.failed[place] += is_bad
        if at < self.since:
            return
        self._fresh += 1
        self.last_gain = max(self.last_gain, at)
        second, minute = int(at), int(at) // MINUTE
        self._minutes[minute] = self._minutes.get(minute, 0) + 1
        if self._seconds and self._seconds[-1][0] >= second:  # a clock that was set back, too
            self._seconds[-1][1] += 1
            return
        self._seconds.append([second, 1])
        while self._seconds[0][0] < second - RECENT:
            self._seconds.popleft()

    def _in_last(self, seconds: float, now: float) -> tuple[int, float]:
        """Return how many were judged in so many seconds, and how many of these there were."""
        first = max(now - seconds, self.since)
        number = 0
        for second, count in reversed(self._seconds):
            if second <= now - seconds or second < int(first):
                break
            number += count
        return number, now - first

    def rate(self, now: float) -> float | None:
        """Return how many are judged a second now; None where none was, or for too long."""
        for seconds in (MINUTE, RECENT):
            number, took = self._in_last(seconds, now)
            if number >= ENOUGH and took > 0:
                return number / took
        took = now - self.since
        return self._fresh / took if self._fresh and took > 0 else None

    def median_rate(self, now: float) -> float | None:
        """Return the median of the rates of the whole minutes; None before there is one."""
        first, last = int(self.since) // MINUTE + 1, int(now) // MINUTE
        minutes = range(max(first, last - _MINUTES), last)
        if not minutes:
            return None
        return median(self._minutes.get(one, 0) for one in minutes) / MINUTE

    def slow_since(self, now: float, least: float) -> float:
        """Return when the first of the last minutes began whose rates are below ``least``."""
        minute = int(now) // MINUTE
        while minute * MINUTE > self.since and self._minutes.get(minute - 1, 0) < least * MINUTE:
            minute -= 1
        return max(float(minute * MINUTE), self.since)

    def foresee(self, now: float, left: int) -> Foreseen | None:
        """Return when ``left`` entries more will be judged; None where that is not known.

        Nothing is foreseen after a time without verdicts that is longer than what was foreseen.
        """
        rates: list[float] = []
        number, took = self._in_last(RECENT, now)
        chosen = number / took if number >= ENOUGH and took > 0 else self.rate(now)
        if chosen is None or now - self.last_gain > max(QUIET, left / chosen):
            return None
        for count, seconds in (
            self._in_last(MINUTE, now),
            (number, took),
            (self._fresh, now - self.since),
        ):
            if count and seconds > 0:
                spread = min(count**-0.5, 0.5)  # of so few events
                rates += [count / seconds * (1 - spread), count / seconds * (1 + spread)]
        ends = [left / one for one in (chosen, *rates)]
        return Foreseen(left / chosen, min(ends), max(ends), *self._earlier(now, left))

    def _earlier(self, now: float, left: int) -> tuple[float, float] | tuple[None, None]:
        """Return the end that was foreseen earlier, and when: half of the time ago, at most half an
        hour."""
        elapsed = now - self.since
        then = max(self.since + elapsed / 2, now - _LONGEST_BACK)
        if now - then < _LEAST_BACK:
            return None, None
        minute = int(then) // MINUTE
        then = float(minute * MINUTE)
        last = int(now) // MINUTE
        judged = sum(self._minutes.get(one, 0) for one in range(minute, last + 1))
        first = max(minute - RECENT // MINUTE, int(self.since) // MINUTE)
        before = sum(self._minutes.get(one, 0) for one in range(first, minute))
        took = then - max(first * MINUTE, self.since)
        if not before or took <= 0:
            return None, None
        return then + (left + judged) * took / before, then


def _halved(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
