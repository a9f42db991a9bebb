"""Circles among lines that wait for one another, found in a few bytes a line."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

Pairs = Iterable[tuple[int, int]]
_NEW, _ON_PATH, _DONE = 0, 1, 2


def circles(references: Callable[[], Pairs]) -> Iterator[array[int]]:
    """Circles, each as its lines in order of waiting; what is left when one edge of each is gone
    has none.

    ``references`` gives, each time anew, the pairs (line that waits, line that it waits for; 0:
    none). Where lines wait only for earlier ones, as nearly always, one look at each pair tells;
    else the search takes 13 bytes a line and 4 a pair, however long a chain is.
    """
    if all(target < line for line, target in references()):
        return
    starts, targets = _edges(references)
    yield from _search(starts, targets)


def _edges(references: Callable[[], Pairs]) -> tuple[array[int], array[int]]:
    """Line ``n`` waits for ``targets[starts[n]:starts[n + 1]]``."""
    last = max(max(pair) for pair in references())
    starts = array("I", bytes(4 * (last + 2)))
    for line, target in references():
        if target:
            starts[line] += 1
    starts = array("I", accumulate(starts))  # where each line's part ends; filled from there back
    targets = array("I", bytes(4 * starts[-1]))
    for line, target in references():
        if target:
            starts[line] -= 1
            targets[starts[line]] = target
    for line in range(1, last + 1):  # pairs come in the order of hashes, which is another each time
        begin, end = starts[line], starts[line + 1]
        if end - begin > 1:
            targets[begin:end] = array("I", sorted(targets[begin:end]))
    return starts, targets


def _search(starts: array[int], targets: array[int]) -> Iterator[array[int]]:
    """Depth first, without recursion: a chain may be as long as the file."""
    ahead = array("I", starts)  # the next edge to look at, for each line
    state = bytearray(len(starts))
    for root in range(1, len(starts) - 1):
        if state[root] != _NEW:
            continue
        path = array("I", [root])
        state[root] = _ON_PATH
        while path:
            line = path[-1]
            if ahead[line] == starts[line + 1]:
                state[path.pop()] = _DONE
                continue
            target = targets[ahead[line]]
            ahead[line] += 1
            if state[target] == _NEW:
                state[target] = _ON_PATH
                path.append(target)
            elif state[target] == _ON_PATH:
                yield path[path.index(target) :]
