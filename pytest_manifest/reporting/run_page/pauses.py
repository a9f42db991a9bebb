"""Find long pauses, which a timeline draws narrow so that the bars have room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

SHORTEST: Final = 5.0
"""Seconds that a pause lasts at least."""
MOST: Final = 20


def pauses(
    starts: Sequence[float | None], ends: Sequence[float | None]
) -> list[tuple[float, float]]:
    """Return start and end of each pause, in order, from the bars' starts and ends in seconds.

    A bar's end may be None. A gap is a pause if it lasts longer than the whole time without the
    gaps at least as long: an hour between two jobs of a minute is one, an hour in a night of work
    is not.
    """
    spans = sorted(_spans(starts, ends))
    if not spans:
        return []
    gaps: list[tuple[float, float]] = []
    reached = spans[0][0]
    for start, end in spans:
        if start - reached > SHORTEST:
            gaps.append((reached, start))
        reached = max(reached, end)
    gaps.sort(key=lambda gap: gap[0] - gap[1])
    rest, found = reached - spans[0][0], 0
    for number, (begin, stop) in enumerate(gaps[:MOST], 1):
        rest -= stop - begin
        if stop - begin > rest:
            found = number
    return sorted(gaps[:found])


def _spans(
    starts: Sequence[float | None], ends: Sequence[float | None]
) -> Iterator[tuple[float, float]]:
    for start, end in zip(starts, ends, strict=True):
        if start is not None:
            yield start, start if end is None else max(start, end)
