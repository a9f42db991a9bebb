"""Find circles among lines that depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

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
