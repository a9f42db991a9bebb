"""Check a manifest's ids: unique, each ``after`` names an entry, and no circles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from pytest_manifest.manifest.circles import circles
from pytest_manifest.manifest.faults import MAX_FAULTS, Faults
from pytest_manifest.manifest.ids import IdIndex

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
