"""Report on a batch: as the task's result, or as evidence where the batch ends too early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from tasks.filling.asking import Outcome
from tasks.filling.shares import Spent
from tasks.filling.writing import Filled
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.records import StoredAnnotation

MESSAGE_LENGTH: Final = 300
FOREIGN_SHOWN: Final = 20
"""How many keys that were not asked for a report names."""
MOST_POINTS: Final = 120
LEAST_STEP: Final = 0.25
"""Seconds of the shortest stretch of a plot over time."""
NANO: Final = 1_000_000_000


def usd(nanos: int) -> float:
    """Convert nano dollars to dollars."""
    return nanos / NANO


@dataclass(slots=True)
class Report:
    """Counts of a batch, by passage id where it matters.

    ``rows`` are those written, ``already`` those that were there, ``unfilled`` those that could not
    be filled. ``spent`` is all that was paid; ``in_rows`` is the part of it that rows account for.
    ``unknown_bills`` are calls that may have been billed beyond that, as nobody has told.
    ``allowed`` and ``refused`` are those of ``CallCounts``.
    """

    rows: dict[str, JsonValue] = field(default_factory=dict)
    already: dict[str, JsonValue] = field(default_factory=dict)
    unfilled: dict[str, tuple[str, str]] = field(default_factory=dict)
    anomalies: dict[str, list[str]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    calls: int = 0
    unknown_bills: int = 0
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    waited: float = 0.0
    spent: Spent = field(default_factory=Spent)
    in_rows: Spent = field(default_factory=Spent)
    answered_by: set[str] = field(default_factory=set)
    tiers: Counter[str] = field(default_factory=Counter)
    fallbacks: int = 0
    allowed: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Add what a call says of itself, whatever came of it."""
        counts = outcome.counts
        self.calls += counts.calls
        self.unknown_bills += counts.unknown_bills
        self.retries += counts.retries
        self.failures += counts.failures
        self.latencies += counts.latencies
        self.waited += counts.waited
        self.allowed += counts.allowed
        self.refused += counts.refused
        self.spent += outcome.spent
        self.tiers.update(bill.tier for bill in counts.bills)
        self.fallbacks += counts.fallbacks
        self.answered_by |= {bill.model for bill in counts.bills if bill.model}
        if outcome.reading is not None:
            self.foreign += outcome.reading.foreign[: FOREIGN_SHOWN - len(self.foreign)]
            for passage, problem in outcome.reading.problems.items():
                named = self.anomalies.setdefault(problem.kind, [])
                if passage not in named:
                    named.append(passage)

    def wrote(self, passage: str, row: Filled, values: Mapping[str, JsonValue]) -> None:
        """Record a row that was written; ``values``, also digested, are the fields filled."""
        self.in_rows += row.share
        self.rows[passage] = {
            "action": row.written.action,
            "revision": row.written.revision,
            "digest": values_digest(values),
            "fields": list(values),
            "answered_by": row.answered_by,
            "service_tier": row.tier,
        }

    def was_there(self, passage: str, row: StoredAnnotation | None) -> None:
        """Record a passage without a gap; ``row`` None: people have written all of its fields."""
        if row is None:
            self.already[passage] = None
            return
        self.already[passage] = {
            "run": row.run,
            "entry": row.entry,
            "attempt": row.attempt,
            "revision": row.revision,
            "digest": values_digest(row.values),
        }

    def gave_up(self, passage: str, kind: str, message: str) -> None:
        self.unfilled[passage] = kind, message[:MESSAGE_LENGTH]

    def document(self) -> dict[str, JsonValue]:
        """Return the report as plain JSON; cost in US dollars, latencies in seconds."""
        wasted = self.spent - self.in_rows
        answered_by: list[JsonValue] = [*sorted(self.answered_by)]
        return {
            "rows": self.rows,
            "already": self.already,
            "unfilled": [f"{passage}: {kind}" for passage, (kind, _) in self.unfilled.items()],
            "reasons": {passage: message for passage, (_, message) in self.unfilled.items()},
            "anomalies": {
                **{kind: list(ids) for kind, ids in sorted(self.anomalies.items())},
                **({"foreign": list(self.foreign)} if self.foreign else {}),
            },
            "tokens": {
                "in": self.spent.tokens_in,
                "out": self.spent.tokens_out,
                "cached": self.spent.cached,
            },
            "unpriced": {"in": self.spent.unpriced_in, "out": self.spent.unpriced_out},
            "wasted": {
                "in": wasted.tokens_in,
                "out": wasted.tokens_out,
                "cached": wasted.cached,
                "cost": usd(wasted.cost_nanos),
            },
            "calls": self.calls,
            "unknown_bills": self.unknown_bills,
            "retries": self.retries,
            "failures": dict(sorted(self.failures.items())),
            "latency": _summary(self.latencies),
            "waited": round(self.waited, 3),
            "answered_by": answered_by,
            "tiers": dict(sorted(self.tiers.items())),
            "fallbacks": self.fallbacks,
        }

    def over_time(self) -> dict[str, JsonValue]:
        """Return how many calls might be made at a time and how many were refused, for a plot."""
        found = {"calls allowed at a time": ("level", self.allowed)}
        found["calls refused"] = "count", self.refused
        return {
            name: {
                "kind": kind,
                "points": [[*one] for one in binned(points, is_sum=kind == "count")],
            }
            for name, (kind, points) in found.items()
            if points
        }


def binned(points: Sequence[tuple[float, float]], *, is_sum: bool) -> list[tuple[float, float]]:
    """Return the means, or sums, of stretches of time, of which there are ``MOST_POINTS`` at most.

    A point is the seconds since 1970, and a value.
    """
    moments = [moment for moment, _ in points]
    step = LEAST_STEP
    while (max(moments) - min(moments)) / step >= MOST_POINTS - 1:
        step *= 2
    bins: dict[int, list[float]] = {}
    for moment, value in sorted(points):
        bins.setdefault(int(moment // step), []).append(value)
    return [
        (round(place * step, 3), round(sum(some) / (1 if is_sum else len(some)), 3))
        for place, some in bins.items()
    ]


def _summary(seconds: list[float]) -> dict[str, JsonValue]:
    if not seconds:
        return {}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)

    mean = round(sum(ordered) / len(ordered), 4)
    return {"mean": mean, "p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 4)}
