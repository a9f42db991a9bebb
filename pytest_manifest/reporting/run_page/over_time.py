"""Collect what jobs told of over time in their evidence, for a page's plots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from pydantic import JsonValue

from pytest_manifest.schema import Receipt
from pytest_manifest.text import middle, pictured

KEY: Final = "over_time"
"""The evidence's field: by name ``{"kind": "level" or "count", "points": [[seconds since 1970,
number], ...]}``. What is of another form is passed over: it may be evidence of a user's own."""
MOST_NAME: Final = 80
MOST_SERIES: Final = 8
MOST_BINS: Final = 400
LEAST_STEP: Final = 0.25
"""Seconds of the shortest stretch that has a value of its own."""
SPARE: Final = timedelta(minutes=5)
"""How far the clocks of workers may be off."""

Kind: TypeAlias = Literal["level", "count"]
"""A level has a mean in a stretch of time, counts have a sum."""


class _Series:
    """Add points up in stretches of time, which become longer where there would be too many."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._step = LEAST_STEP
        self._bins: dict[int, tuple[float, int]] = {}

    def add(self, moment: float, value: float) -> None:
        self._put(int(moment // self._step), value, 1)
        while len(self._bins) > MOST_BINS:
            self._step *= 2
            before, self._bins = self._bins, {}
            for place, (total, count) in before.items():
                self._put(place // 2, total, count)

    def _put(self, place: int, total: float, count: int) -> None:
        known, number = self._bins.get(place, (0.0, 0))
        self._bins[place] = known + total, number + count

    def document(self, name: str) -> dict[str, object]:
        bins = sorted(self._bins.items())
        values = [total if self.kind == "count" else total / count for _, (total, count) in bins]
        return {
            "name": pictured(name),
            "kind": self.kind,
            "step": self._step,
            "at": [round(place * self._step, 2) for place, _ in bins],
            "values": [round(value, 3) for value in values],
        }


class OverTime:
    """Collect the points of all receipts; moments are seconds from ``began``, the page's origin.

    What is told of another time than the run's, until ``ended``, is no part of it.
    """

    def __init__(self, began: datetime, ended: datetime) -> None:
        self._origin = began.timestamp()
        self._last = (ended - began + SPARE).total_seconds()
        self._series: dict[tuple[str, Kind], _Series] = {}

    def add(self, receipt: Receipt | None) -> None:
        """Add what a receipt's evidence tells."""
        told = None if receipt is None else receipt.evidence.get(KEY)
        for name, one in told.items() if isinstance(told, dict) else ():
            kind = _kind_of(one)
            if kind is None or not isinstance(one, dict):
                continue
            for moment, value in _points(one.get("points")):
                if -SPARE.total_seconds() <= moment - self._origin <= self._last:
                    self._add((middle(name, MOST_NAME), kind), moment - self._origin, value)

    def _add(self, which: tuple[str, Kind], moment: float, value: float) -> None:
        if which in self._series or len(self._series) < MOST_SERIES:
            self._series.setdefault(which, _Series(which[1])).add(moment, value)

    def document(self) -> list[dict[str, object]]:
        """Return the series as JSON values, levels first."""
        found = sorted(self._series.items(), key=lambda pair: (pair[0][1] != "level", pair[0][0]))
        return [series.document(name) for (name, _), series in found]


def _kind_of(value: JsonValue) -> Kind | None:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "level":
        return "level"
    return "count" if kind == "count" else None


def _points(value: JsonValue) -> Iterator[tuple[float, float]]:
    for point in value if isinstance(value, list) else ():
        if isinstance(point, list) and len(point) == 2:
            moment, number = map(_number, point)
            if moment is not None and number is not None:
                yield moment, number


def _number(value: JsonValue) -> float | None:
    """Return a number that a plot can have; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None
