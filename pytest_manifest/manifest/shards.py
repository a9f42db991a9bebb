"""Divide a manifest into disjoint parts, the same in every process that reads the same file."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import Self

from pytest_manifest.manifest.reader import Manifest


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``number``-th, from 1, of ``total`` parts of a manifest."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard like ``2/8``; raise ValueError that says what to write instead."""
        match = re.fullmatch(r"\s*(\d{1,9})/(\d{1,9})\s*", text, re.ASCII)
        if match is None:
            raise ValueError("write it as K/N, like 2/8 for the second of eight parts")
        number, total = int(match[1]), int(match[2])
        if total < 1:
            raise ValueError("a manifest has at least one part; write it as K/N, like 2/8")
        if not 1 <= number <= total:
            raise ValueError(f"the parts are counted from 1; write 1/{total} to {total}/{total}")
        return cls(number, total)

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def words(self) -> str:
        """Return words like ``shard 2 of 8``."""
        return f"shard {self.number} of {self.total}"


def overlap(one: Shard | None, other: Shard | None) -> bool:
    """Return whether two parts of one manifest can share an entry; None is the whole manifest."""
    if one is None or other is None or one.total != other.total:
        return True
    return one.number == other.number


def entries_of(shard: Shard, manifest: Manifest) -> frozenset[str]:
    """Return the ids of the shard's entries.

    Entries that depend on one another (``after``, directly or not) go to one shard together. Such
    groups, and the other entries one by one, are dealt out in turn, in the file's order of first
    entries.
    """
    first = _groups(manifest)
    turns = array("Q", bytes(8 * len(first)))
    groups = 0
    found: list[str] = []
    for position, entry in enumerate(manifest.ids):
        root = first[position]
        if root == position:
            turns[position] = groups % shard.total
            groups += 1
        if turns[root] == shard.number - 1:
            found.append(entry)
    return frozenset(found)


def _groups(manifest: Manifest) -> array[int]:
    """Return, for each position, that of the first entry it is connected with by ``after``.

    An entry without dependencies and dependants has its own position.
    """
    first = array("Q", range(len(manifest)))

    def root(position: int) -> int:
        while first[position] != position:
            first[position] = first[first[position]]
            position = first[position]
        return position

    for position, needed in manifest.dependencies():
        one, other = root(position), root(needed)
        first[max(one, other)] = min(one, other)
    for position in range(len(first)):
        first[position] = root(position)
    return first
