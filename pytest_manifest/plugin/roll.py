"""Which groups of entries are complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_manifest.manifest import Groups


class Roll:
    """Counts, of each group, the entries that have no verdict yet; a bit for each entry."""

    def __init__(self, groups: Groups) -> None:
        self._manifest = groups.manifest
        self._names = [group.name for group in groups]
        self._missing = [group.count for group in groups]
        self._owners = groups.owners
        self._seen = bytearray(len(groups.manifest) // 8 + 1)

    def tick_off(self, entries: Iterable[str]) -> Iterator[str]:
        """The groups that these entries complete; what the manifest does not have is passed over,
        and so is what has been ticked off before."""
        for entry in entries:
            if entry not in self._manifest:
                continue
            place = self._manifest.position_of(entry)
            byte, bit = place >> 3, 1 << (place & 7)
            if self._seen[byte] & bit:
                continue
            self._seen[byte] |= bit
            owner = self._owners[place]
            self._missing[owner] -= 1
            if not self._missing[owner]:
                yield self._names[owner]
