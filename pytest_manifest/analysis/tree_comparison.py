"""Compare the trees of two runs: entries whose jobs started more, fewer or worse tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pytest_manifest.schema import VerdictStatus

Statuses = Mapping[VerdictStatus | None, int]


@dataclass(frozen=True, slots=True)
class TreeChange:
    """An entry whose descendants differ in number or ends: how many there were by status."""

    id: str
    before: Mapping[str, int]
    after: Mapping[str, int]


def compare_trees(
    before: Iterable[tuple[str, Statuses]], after: Iterable[tuple[str, Statuses]]
) -> Iterator[TreeChange]:
    """Yield the entries whose descendants differ; both in the order of the ids, read once.

    One that has none is in neither.
    """
    earlier, later = iter(before), iter(after)
    one, other = next(earlier, None), next(later, None)
    while one is not None or other is not None:
        name = min(found[0] for found in (one, other) if found is not None)
        was: Statuses = {}
        now: Statuses = {}
        if one is not None and one[0] == name:
            was, one = one[1], next(earlier, None)
        if other is not None and other[0] == name:
            now, other = other[1], next(later, None)
        if was != now:
            yield TreeChange(name, _named(was), _named(now))


def _named(counts: Statuses) -> dict[str, int]:
    return {status or "pending": number for status, number in counts.items()}
