"""Keep ids in a few bytes each, to find duplicates and references to missing entries."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

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
