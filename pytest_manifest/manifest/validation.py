"""Check a manifest's ids: unique, each ``after`` names an entry, and no circles."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, Final

from pytest_manifest.manifest.jsonl import MAX_FAULTS, Faults

_RING_END: Final = 5
"""How many lines of a long circle are named at its beginning and at its end."""

Again = Callable[[set[int]], Iterable[tuple[int, Mapping[str, Any]]]]
"""Reads lines a second time, to tell suspicion from fact."""


def check_ids(ids: IdIndex, faults: Faults, again: Again) -> None:
    """Record duplicate ids, each ``after`` that names no entry, and circles as faults."""
    twice = ids.suspected_twice()
    waiting = {line for line, target in ids.references() if not target}
    rings = [
        (len(circle), _shown(circle)) for circle in islice(circles(ids.references), MAX_FAULTS)
    ]
    in_rings = {line for _, shown in rings for line in shown}
    if not (twice or waiting or rings):
        return
    first: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, document in again(twice | waiting | in_rings):
        entry_id = names[number] = document["id"]
        if first.setdefault(entry_id, number) != number:
            faults.add(
                number,
                f"entry id {entry_id!r} was used on line {first[entry_id]} already; "
                "ids must be unique within a manifest, so rename one",
            )
        if number in waiting:
            _check_references(number, document, ids, faults)
    for length, shown in rings:
        faults.add(shown[0], _waiting_for_one_another(length, shown, names))


def _check_references(
    number: int, document: Mapping[str, Any], ids: IdIndex, faults: Faults
) -> None:
    for wanted in document.get("after", ()):
        if not ids.has(wanted):
            faults.add(
                number, f"'after' names {wanted!r}, which no entry here has; correct or remove"
            )


def _shown(circle: Sequence[int]) -> list[int]:
    """Return the lines of a circle to name in a fault: all, or both ends of a long circle."""
    if len(circle) <= 2 * _RING_END:
        return list(circle)
    return [*circle[:_RING_END], *circle[-_RING_END:]]


def _waiting_for_one_another(length: int, shown: Sequence[int], names: Mapping[int, str]) -> str:
    way = [f"{names[number]!r} (line {number})" for number in shown]
    if length > len(shown):
        way.insert(_RING_END, f"... {length - len(shown):,} more ...")
    return (
        f"entries wait for one another: {' -> '.join([*way, repr(names[shown[0]])])}; "
        "none could ever be sent, so take one of these ids out of an 'after'"
    )


_BUCKETS = 256


class IdIndex:
    """Remember ids as 64-bit hashes with their lines: 12 bytes an id, whatever its length.

    A million ids in a set of strings take about 150 MB. What the hashes say is a suspicion, to be
    confirmed on the lines themselves: two ids may share a hash, though in a file of a million
    the odds are 1 in 37 million. Buckets keep what is unpacked at a time small. An id that another
    entry waits for costs 12 bytes more.
    """

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._lines = [array("I") for _ in range(_BUCKETS)]
        self._wanted = [array("q") for _ in range(_BUCKETS)]
        self._wanted_by = [array("I") for _ in range(_BUCKETS)]

    def add(self, entry_id: str, line: int) -> None:
        """Record that an id stands on a line."""
        self.add_all((entry_id,), line)

    def add_all(self, ids: Iterable[str], line: int) -> None:
        """Note ids that stand one below the other, the first on this line."""
        hashes, lines = self._hashes, self._lines
        for number, key in enumerate(map(hash, ids), line):
            bucket = key % _BUCKETS
            hashes[bucket].append(key)
            lines[bucket].append(number)

    def want(self, ids: Iterable[str], line: int) -> None:
        """Record that the entry on a line depends on these ids (its ``after``)."""
        for entry_id in ids:
            key = hash(entry_id)
            self._wanted[key % _BUCKETS].append(key)
            self._wanted_by[key % _BUCKETS].append(line)

    def suspected_twice(self) -> set[int]:
        """Return the lines whose id has the same hash as the id of another line."""
        suspects: set[int] = set()
        for hashes, lines in zip(self._hashes, self._lines, strict=True):
            if len(set(hashes)) == len(hashes):
                continue
            by_hash: dict[int, list[int]] = {}
            for key, line in zip(hashes, lines, strict=True):
                by_hash.setdefault(key, []).append(line)
            suspects.update(line for same in by_hash.values() if len(same) > 1 for line in same)
        return suspects

    def references(self) -> Iterator[tuple[int, int]]:
        """Yield (line that waits, line that it waits for; 0 where no line has that id)."""
        for bucket, wanted in enumerate(self._wanted):
            if wanted:
                where = dict(zip(self._hashes[bucket], self._lines[bucket], strict=True))
                for key, line in zip(wanted, self._wanted_by[bucket], strict=True):
                    yield line, where.get(key, 0)

    def has(self, entry_id: str) -> bool:
        """Return whether the id's hash is known; scans a list, so it is for error reports only."""
        key = hash(entry_id)
        return key in self._hashes[key % _BUCKETS]


Pairs = Iterable[tuple[int, int]]


def circles(references: Callable[[], Pairs]) -> Iterator[list[int]]:
    """Yield circles, each as its lines in the order of waiting, until no circle is left.

    ``references`` gives, each time anew, the pairs (line that waits, line that it waits for; 0:
    none). Where lines wait only for earlier ones, as nearly always, one look at each pair tells;
    else some 300 bytes a pair are kept. Of a circle one wait is given up to find the next.
    """
    if all(target < line for line, target in references()):
        return
    given_up: set[tuple[int, int]] = set()
    while circle := _circle(references(), given_up):
        yield circle
        given_up.add((circle[-1], circle[0]))


def _circle(pairs: Pairs, given_up: set[tuple[int, int]]) -> list[int]:
    """Find one circle, from its first line on; empty where there is none."""
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for line, target in sorted(pairs):  # hashes order them, differently in each process
        if target and (line, target) not in given_up:
            sorter.add(line, target)
    try:
        sorter.prepare()
    except CycleError as error:
        found: list[int] = error.args[1][:0:-1]  # dependencies come first in it
        first = found.index(min(found))
        return found[first:] + found[:first]
    return []
