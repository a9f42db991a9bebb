"""Whether two samples of times differ by more than chance: robust, as outliers count by rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p-value of Mann and Whitney's U test of two samples that are not empty.

    By the normal approximation, corrected for ties and for continuity; good from about eight
    values each. H. B. Mann, D. R. Whitney: On a Test of Whether one of Two Random Variables is
    Stochastically Larger than the Other (1947).
    """
    m, n = len(first), len(second)
    both = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    rank_sum, ties, before = 0.0, 0, 0
    for _, group in groupby(both, key=lambda pair: pair[0]):
        members = [which for _, which in group]
        size = len(members)
        rank_sum += (size - sum(members)) * (before + (size + 1) / 2)
        ties += size**3 - size
        before += size
    total = m + n
    variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all values are equal
    distance = abs(rank_sum - m * (m + 1) / 2 - m * n / 2) - 0.5
    return math.erfc(max(distance, 0.0) / math.sqrt(2 * variance))
