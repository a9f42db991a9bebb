"""Tell from an entry's last runs whether it is flaky, and whether it is getting slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from pytest_manifest.analysis.comparison import NOTICEABLE, THRESHOLD
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import BAD, outcome_of

CHANGES: Final = 2
"""Changes between passed and not passed that make an entry flaky: one is a fault, or its mend."""
ENOUGH: Final = 4
"""Passed runs below which nothing is said of an entry's runtime."""


@dataclass(frozen=True, slots=True)
class EntryHistory:
    """An entry in several runs, oldest first.

    ``statuses``: None where a run does not have the entry, or has no verdict on it yet;
    ``runtimes``: seconds, None where unknown.
    """

    id: str
    task: str
    statuses: Sequence[VerdictStatus | None]
    runtimes: Sequence[float | None]

    @property
    def is_flaky(self) -> bool:
        """Return whether it passed and did not pass in turn."""
        ended = [
            outcome == "passed"
            for outcome in map(outcome_of, self.statuses)
            if outcome in BAD or outcome == "passed"
        ]
        return sum(one != other for one, other in pairwise(ended)) >= CHANGES

    @property
    def slowdown(self) -> float | None:
        """Return how many times slower the newer half of its passed runs is; None: it is not.

        The median must have grown by the factor and the seconds by which two runs are compared,
        and each newer run must have taken longer than the older half's median.
        """
        known = [
            runtime
            for status, runtime in zip(self.statuses, self.runtimes, strict=True)
            if status == "passed" and runtime is not None
        ]
        if len(known) < ENOUGH:
            return None
        older, newer = known[: len(known) // 2], known[len(known) // 2 :]
        before, now = median(older), median(newer)
        if before <= 0 or now < before * THRESHOLD or now - before < NOTICEABLE:
            return None
        return now / before if min(newer) > before else None

    @property
    def fails(self) -> bool:
        """Return whether the newest verdict on it is not that it passed."""
        newest = next((one for one in reversed(self.statuses) if one is not None), None)
        return outcome_of(newest) in BAD
