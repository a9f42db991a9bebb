"""Say how good rows are by the grades of a sample, and how far two judges agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tasks.judging.grades import BEST, WORST, GradeNumber
from workflows.gap_fill.grades import Grades

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 1000
FEWEST_RESAMPLES: Final = 200
RESAMPLED_ROWS: Final = 500_000
"""Rows drawn for an interval in all, so that a large sample takes seconds and not minutes."""

Share = Annotated[float, Field(ge=0, le=1)]


class Thresholds(BaseModel):
    """The thresholds of a judge's run, as its manifest's header has them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    bar: GradeNumber = 4
    at_least: Share = 0.8
    agreement: Annotated[float, Field(ge=-1, le=1)] | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Quality:
    """The share of rows at or above the bar: ``low`` and ``high`` bound it with CONFIDENCE."""

    good: int
    graded: int
    population: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.good / self.graded


@dataclass(frozen=True, slots=True)
class Agreement:
    """Krippendorff's alpha of two judges: 1 is agreement, 0 what chance would give.

    None where every grade is the same: then nothing can be said. ``low`` and ``high`` bound it.
    """

    pairs: int
    alpha: float | None
    low: float | None = None
    high: float | None = None


def thresholds_of(params: dict[str, JsonValue]) -> Thresholds:
    """Return the thresholds that a plan's options set; what is not set has its default."""
    return Thresholds.model_validate(params)


def quality_of(grades: Sequence[int], bar: int, population: int) -> Quality:
    """Estimate which share of the population is graded ``bar`` or better. There must be a grade.

    The interval is Wilson's (1927), by the number of rows that a draw without replacement from the
    population is worth: where all were graded nothing is left to chance.
    """
    good, graded = sum(grade >= bar for grade in grades), len(grades)
    share, population = good / graded, max(population, graded)
    if graded == population:
        return Quality(good, graded, population, share, share)
    worth = graded * (population - 1) / (population - graded)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle = (share + z * z / (2 * worth)) / (1 + z * z / worth)
    half = z / (1 + z * z / worth)
    half *= math.sqrt(share * (1 - share) / worth + z * z / (4 * worth * worth))
    return Quality(good, graded, population, max(0.0, middle - half), min(1.0, middle + half))


def agreement_of(pairs: Sequence[tuple[int, int]], seed: int) -> Agreement:
    """Compute alpha for ordinal grades, and its interval by drawing the rows again and again.

    The same seed gives the same interval (percentiles of a bootstrap).
    """
    # Loaded here: numpy takes a while, and every session of the project imports this package.
    import numpy as np

    counts = np.zeros((len(pairs), BEST - WORST + 1))
    for row, pair in enumerate(pairs):
        for grade in pair:
            counts[row, grade - WORST] += 1
    alpha = _alpha(counts)
    if alpha is None:
        return Agreement(len(pairs), None)
    draws = np.random.default_rng(seed)
    number = max(FEWEST_RESAMPLES, min(RESAMPLES, RESAMPLED_ROWS // len(pairs)))
    drawn = (draws.integers(0, len(pairs), len(pairs)) for _ in range(number))
    found = [one for rows in drawn if (one := _alpha(counts[rows])) is not None]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if found else (alpha, alpha)
    return Agreement(len(pairs), alpha, float(low), float(high))


def _alpha(counts: object) -> float | None:
    """Return alpha of a table, a row for each row graded and a column for each grade.

    None where all grades are the same.
    """
    import krippendorff
    import numpy as np

    table = np.asarray(counts)
    if not len(table) or np.count_nonzero(table.sum(axis=0)) < 2:
        return None
    return float(
        krippendorff.alpha(
            value_counts=table,
            value_domain=list(range(WORST, BEST + 1)),
            level_of_measurement="ordinal",
        )
    )


def quality_sentence(found: Quality, judge: str, bar: int) -> str:
    """Say how many rows are good, and how sure that is."""
    of = f"{found.graded:,} rows"
    if found.graded < found.population:
        of = f"{found.graded:,} of {found.population:,} rows"
    return (
        f"{judge} graded {of}: {found.good:,} ({found.share:.1%}) are {bar} or better; "
        f"95 % interval {found.low:.1%} to {found.high:.1%}"
    )


def agreement_sentence(found: Agreement, grades: Grades) -> str:
    """Say how far two judges agree, and how sure that is."""
    who = " and ".join(grades.judges[number] for number in sorted(grades.judges))
    if found.alpha is None:
        return f"{who}: alpha is not defined, as all {found.pairs:,} rows have the same grade"
    return (
        f"{who}: Krippendorff's alpha {found.alpha:.2f} over {found.pairs:,} rows; "
        f"95 % interval {found.low:.2f} to {found.high:.2f}"
    )
