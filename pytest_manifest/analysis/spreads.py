"""How times are spread: kept as plain numbers, and beyond so many in a file."""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from array import array
from bisect import bisect_right
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
        self._rows: _Rows | None = None

    def add(self, value: float | None) -> None:
        if value is None:
            return
        self._values.append(value)
        if len(self._values) == HELD:
            self._rows = self._rows or _Rows()
            self._rows.add(self._values)
            self._values = array("d")

    def spread(self) -> Spread | None:
        """None where there is no time at all."""
        if self._rows is None:
            return spread(self._values)
        if self._values:
            self._rows.add(self._values)
            self._values = array("d")
        return self._rows.spread()


class _Rows:
    """Ascending rows of times in a nameless file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self._rows: list[_Row] = []
        self._total = 0.0

    def add(self, values: Sequence[float]) -> None:
        ordered = array("d", sorted(values))
        self._file.write(ordered.tobytes())
        begin = sum(map(len, self._rows))
        self._rows.append(_Row(self._file.fileno(), begin, len(ordered)))
        self._total += sum(ordered)

    def spread(self) -> Spread:
        count = sum(map(len, self._rows))
        p50, p95 = (self._quantile(share, count) for share in (0.5, 0.95))
        return Spread(count, p50, p95, self._largest(), self._total)

    def _largest(self) -> float:
        return max(row[-1] for row in self._rows)

    def _quantile(self, share: float, count: int) -> float:
        place = share * (count - 1)
        below = int(place)
        lower, upper = self._at(below), self._at(min(below + 1, count - 1))
        return lower + (upper - lower) * (place - below)

    def _at(self, index: int) -> float:
        """The value at this place among all of them, found by halving the range of numbers that
        it can be: some sixty steps, whatever the number of values."""
        low, high = _order(min(row[0] for row in self._rows)), _order(self._largest())
        while low < high:
            middle = (low + high) // 2
            if sum(bisect_right(row, _number(middle)) for row in self._rows) > index:
                high = middle
            else:
                low = middle + 1
        return _number(low)


class _Row(Sequence[float]):
    """``size`` ascending numbers in a file, from the ``begin``-th on."""

    def __init__(self, file: int, begin: int, size: int) -> None:
        self._file, self._begin, self._size = file, begin, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> float:  # type: ignore[override]  # nobody slices it
        place = self._begin + index % self._size
        value: float = _DOUBLE.unpack(os.pread(self._file, _DOUBLE.size, place * _DOUBLE.size))[0]
        return value


_DOUBLE, _WHOLE = struct.Struct("=d"), struct.Struct("=q")
_SIGN: Final = 1 << 63


def _order(number: float) -> int:
    """Whole numbers in the order of the numbers that they stand for, without gaps (IEEE 754)."""
    bits: int = _WHOLE.unpack(_DOUBLE.pack(number))[0]
    return bits if bits >= 0 else -(bits + _SIGN)


def _number(order: int) -> float:
    """The number that stands at this place of their order."""
    bits = order if order >= 0 else -order - _SIGN
    number: float = _DOUBLE.unpack(_WHOLE.pack(bits))[0]
    return number


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
