"""How times are spread: kept as plain numbers, eight bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """``count`` times in seconds: median, 95th percentile, maximum and sum."""

    count: int
    p50: float
    p95: float
    max: float
    total: float


class Times:
    """Times to be told the spread of."""

    def __init__(self) -> None:
        self._values = array("d")

    def add(self, value: float | None) -> None:
        if value is not None:
            self._values.append(value)

    def spread(self) -> Spread | None:
        """None where there is no time at all."""
        return spread(self._values)


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
