"""Compute quantiles of times, in memory or, beyond a limit, by a temporary SQLite database."""

from __future__ import annotations

import sqlite3
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_IN_MEMORY: Final = 1 << 16
"""Times kept in memory, of 8 bytes each."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """``count`` times in seconds: median, 95th percentile, maximum and sum."""

    count: int
    p50: float
    p95: float
    max: float
    total: float


class Times:
    """Times and their exact distribution; at most ``MAX_IN_MEMORY`` are kept in memory."""

    def __init__(self) -> None:
        self._values = array("d")
        self._table: sqlite3.Connection | None = None
        self._total = 0.0

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self._values.append(value)
        if len(self._values) == MAX_IN_MEMORY:
            self._store()

    def distribution(self) -> Distribution | None:
        """Return the distribution, None without any time."""
        if self._table is None:
            return distribution(self._values)
        table = self._store()
        count, largest = table.execute("SELECT count(*), max(seconds) FROM times").fetchone()
        p50, p95 = (_quantile(table, share, count) for share in (0.5, 0.95))
        return Distribution(count, p50, p95, largest, self._total)

    def _store(self) -> sqlite3.Connection:
        """Move the times in memory to an unnamed database, a temporary file of SQLite's."""
        if self._table is None:
            self._table = sqlite3.connect("", check_same_thread=False)
            weakref.finalize(self, self._table.close)
            self._table.execute("CREATE TABLE times (seconds REAL)")
        self._table.executemany("INSERT INTO times VALUES (?)", ((one,) for one in self._values))
        self._total += sum(self._values)
        self._values = array("d")
        return self._table


def _quantile(table: sqlite3.Connection, share: float, count: int) -> float:
    place = share * (count - 1)
    found = table.execute(
        "SELECT seconds FROM times ORDER BY seconds LIMIT 2 OFFSET ?", [int(place)]
    ).fetchall()
    (lower,), (upper,) = found[0], found[-1]
    return float(lower + (upper - lower) * (place - int(place)))


def distribution(values: Sequence[float]) -> Distribution | None:
    """Return the distribution of values in any order; percentiles are interpolated."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95 = quantile(ordered, 0.5), quantile(ordered, 0.95)
    return Distribution(len(ordered), p50, p95, ordered[-1], sum(ordered))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of ascending values (at least one) by linear interpolation."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
