"""How times are spread: kept as numbers, and beyond so many in a database of SQLite."""

from __future__ import annotations

import sqlite3
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HELD: Final = 1 << 16
"""Times that are held in memory, of 8 bytes each."""


@dataclass(frozen=True, slots=True)
class Spread:
    """``count`` times in seconds: median, 95th percentile, maximum and sum."""

    count: int
    p50: float
    p95: float
    max: float
    total: float


class Times:
    """Times to be told the spread of, exactly; memory does not grow beyond ``HELD`` of them."""

    def __init__(self) -> None:
        self._values = array("d")
        self._table: sqlite3.Connection | None = None
        self._total = 0.0

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self._values.append(value)
        if len(self._values) == HELD:
            self._store()

    def spread(self) -> Spread | None:
        """None where there is no time at all."""
        if self._table is None:
            return spread(self._values)
        table = self._store()
        count, largest = table.execute("SELECT count(*), max(seconds) FROM times").fetchone()
        p50, p95 = (_quantile(table, share, count) for share in (0.5, 0.95))
        return Spread(count, p50, p95, largest, self._total)

    def _store(self) -> sqlite3.Connection:
        """Move the times that are held into a nameless database, which SQLite keeps in a file."""
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


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of values in any order; percentiles lie between neighbours where they must."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95 = quantile(ordered, 0.5), quantile(ordered, 0.95)
    return Spread(len(ordered), p50, p95, ordered[-1], sum(ordered))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of ascending values lies (at least one value)."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
