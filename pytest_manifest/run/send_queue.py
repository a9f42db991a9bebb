"""Queue what a run has yet to send, and hold back what its budget or the limits of keys forbid.

An entry takes some bytes: they are positions of attempts to be read.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from heapq import heapify, heappop, heappush, merge
from typing import Final, TypeAlias, overload

from pytest_manifest.broker.attempt import Attempt, attempt_of, task_id_for
from pytest_manifest.errors import DispatchError
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.pressure import KeyRates, Pair
from pytest_manifest.schema import Entry, cost_text, exact
from pytest_manifest.verdict.problems import BudgetReached

AT_ONCE: Final = 500
"""Attempts that are read together."""


class FirstAttempts(Sequence[Attempt]):
    """Read the first attempts of a manifest's entries from the file when they are needed.

    ``positions`` are the entries' numbers in the file's order, from 0. For one thread at a time.
    """

    def __init__(self, run: str, manifest: Manifest, positions: Sequence[int]) -> None:
        self._run = run
        self._manifest = manifest
        self._positions = positions
        self._read: tuple[int, list[Attempt]] = (0, [])

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Attempt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Attempt]: ...
    def __getitem__(self, index: int | slice) -> Attempt | list[Attempt]:
        """Read one with those that follow it, which are needed next."""
        if isinstance(index, slice):
            return list(self._attempts(self._positions[index]))
        start, read = self._read
        if not start <= index < start + len(read):
            some = self._positions[index : index + AT_ONCE]
            start, read = self._read = index, list(self._attempts(some))
        return read[index - start]

    def __iter__(self) -> Iterator[Attempt]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._attempts(self._positions[start : start + AT_ONCE])

    def names(self) -> Iterator[tuple[str, str]]:
        """Return ``(task id, entry)`` of all, for which nothing needs to be read."""
        ids = self._manifest.ids
        for place in self._positions:
            yield task_id_for(self._run, ids[place], 1, place), ids[place]

    def dependents(self) -> Iterator[tuple[int, Attempt]]:
        """Yield those that wait for other entries, each with its index; few others are read."""
        ids = self._manifest.ids
        for index, entry in self._manifest.dependents(ids[place] for place in self._positions):
            yield index, attempt_of(self._run, entry, 1, self._positions[index])

    def without_entries(self, entries: Container[str]) -> FirstAttempts:
        """Return those that are of none of these entries."""
        ids = self._manifest.ids
        kept = array("I", (place for place in self._positions if ids[place] not in entries))
        return FirstAttempts(self._run, self._manifest, kept)

    def _attempts(self, positions: Sequence[int]) -> Iterator[Attempt]:
        ids = self._manifest.ids
        entries = self._manifest.some(ids[place] for place in positions)
        for place, entry in zip(positions, entries, strict=True):
            yield attempt_of(self._run, entry, 1, place)


def without(attempts: Sequence[Attempt], entries: Container[str]) -> Sequence[Attempt]:
    """Return those that are of none of these entries."""
    if isinstance(attempts, FirstAttempts):
        return attempts.without_entries(entries)
    return [one for one in attempts if one.entry.id not in entries]


def names_of(attempts: Sequence[Attempt]) -> Iterable[tuple[str, str]]:
    """Return ``(task id, entry)`` of each."""
    if isinstance(attempts, FirstAttempts):
        return attempts.names()
    return ((attempt.task_id, attempt.entry.id) for attempt in attempts)


def dependents(attempts: Sequence[Attempt]) -> Iterable[tuple[int, Attempt]]:
    """Return those that wait for other entries, each with its index."""
    if isinstance(attempts, FirstAttempts):
        return attempts.dependents()
    return ((index, one) for index, one in enumerate(attempts) if one.entry.after)


SPARE = 1000
"""Values of keys that are counted, beside twice as many as are in flight, before it is looked which
of them have ended."""

Pairs: TypeAlias = tuple[Pair, ...]
"""Those keys of an entry that are limited: entries with the same ones wait in one lane."""


class KeyLimits:
    """Count what is in flight of each value of the limited keys, and hold to the rates of keys.

    ``limits`` by the key's name. An attempt counts from when it is taken to be sent until the run
    awaits nothing of it any more.
    """

    def __init__(self, limits: Mapping[str, int], rates: KeyRates | None = None) -> None:
        self.limits = dict(limits)
        self.rates = rates or KeyRates({})
        self._names = sorted(self.rates.names.union(limits))
        self._in_flight: dict[Pair, set[str]] = {}
        self._is_awaited: Callable[[str], bool] = lambda _: True
        self._new: set[str] = set()
        """What was counted since it was asked what is awaited: it may be on its way yet."""
        self._looked_at: set[Pair] = set()
        """Values of which was looked up since then what has ended."""
        self._most_values = SPARE

    def __len__(self) -> int:
        """Return how many are counted, each once for each of its keys; some may have ended."""
        return sum(map(len, self._in_flight.values()))

    def pairs_of(self, entry: Entry) -> Pairs:
        """Return what of an entry's keys is limited, in the order of the names."""
        return tuple((name, entry.key[name]) for name in self._names if name in entry.key)

    def has_room(self, pair: Pair) -> bool:
        """Return whether one more of this value may be sent."""
        most = self.limits.get(pair[0], math.inf)
        if len(self._in_flight.get(pair, ())) >= most and pair not in self._looked_at:
            self._looked_at.add(pair)
            self._forget_ended_of(pair)
        return len(self._in_flight.get(pair, ())) < most and self.rates.has_room(pair)

    def reserve(self, task_id: str, entry: Entry) -> None:
        """Count an attempt that is being sent, or is in flight already."""
        self._new.add(task_id)
        for pair in self.pairs_of(entry):
            if pair[0] in self.limits:
                self._in_flight.setdefault(pair, set()).add(task_id)

    def sent(self, entry: Entry, number: int = 1) -> None:
        """Count a message towards the rates of its keys; -1: it was not sent after all."""
        for pair in self.pairs_of(entry):
            self.rates.take(pair, number)

    def cancel(self, task_id: str, entry: Entry) -> None:
        """Stop counting an attempt that was not sent after all."""
        self.sent(entry, -1)
        for pair in self.pairs_of(entry):
            self._in_flight.get(pair, set()).discard(task_id)

    def forget_ended(self, is_awaited: Callable[[str], bool]) -> None:
        """Count from here on only what is awaited now, and what is counted from now on.

        What ends is looked up, not reported: an end that was missed would hold others for good. It
        is looked up where it makes room, or where there are many values.
        """
        self._is_awaited = is_awaited
        self._new.clear()
        self._looked_at.clear()
        if len(self._in_flight) > self._most_values:
            for pair in list(self._in_flight):
                self._forget_ended_of(pair)
            self._most_values = 2 * len(self._in_flight) + SPARE

    def _forget_ended_of(self, pair: Pair) -> None:
        known = self._in_flight.pop(pair, set())
        if left := {one for one in known if one in self._new or self._is_awaited(one)}:
            self._in_flight[pair] = left


class SendQueue:
    """Queue attempts in the order in which they are sent, by their positions among others.

    One whose keys are at their limits lets those behind it pass.

    Entries with the same limited keys wait in one lane, in their order. Of the lanes whose keys
    have room the one whose first entry is the earliest comes next; so what is sent follows from the
    order of the entries and of the ends alone, and no key waits for another one's turn.
    """

    def __init__(
        self, attempts: Sequence[Attempt], positions: Iterable[int], limits: KeyLimits | None = None
    ) -> None:
        """Queue those at these ``positions`` of ``attempts``, which ascend."""
        self._attempts = attempts
        self._limits = limits
        self._lanes: dict[Pairs, list[int]] = {}
        """Heaps of places, by the limited keys that their entries have in common."""
        self._added: dict[int, Attempt] = {}
        self._lowest, self._highest = 0, len(attempts)
        self._read: tuple[int, Attempt] | None = None
        self._open: list[tuple[int, Pairs]] = []
        """A heap of lanes that may have room, by their first entry. A lane stands here, or in one
        heap of those that wait for a key, with its present head; what has another head is old."""
        self._waiting: dict[Pair, list[tuple[int, Pairs]]] = {}
        if limits is None:  # nothing needs to be read to know the lane
            self._lanes[()] = list(positions)
        else:
            for place in positions:
                self._lanes.setdefault(limits.pairs_of(attempts[place].entry), []).append(place)
        for pairs in list(self._lanes):
            self._offer(pairs)

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Attempt]:
        return map(self._attempt, merge(*map(sorted, self._lanes.values())))

    def next_sendable(self) -> Attempt | None:
        pairs = self._next_lane()
        return None if pairs is None else self._attempt(self._lanes[pairs][0])

    def popleft(self) -> Attempt:
        """Take what :meth:`next_sendable` returns; raises IndexError where that is nothing."""
        pairs = self._next_lane()
        if pairs is None:
            raise IndexError("no key has room")
        place = heappop(self._lanes[pairs])
        taken = self._attempt(place)
        self._added.pop(place, None)
        self._offer(pairs)
        # Others that wait for the same keys are no worse than what is left of this lane.
        for pair in pairs:
            self._promote(pair)
        return taken

    def append(self, attempt: Attempt) -> None:
        self._highest += 1
        self._add(attempt, self._highest)

    def appendleft(self, attempt: Attempt) -> None:
        self._lowest -= 1
        self._add(attempt, self._lowest)

    def remove(self, task_ids: Container[str]) -> list[Attempt]:
        """Remove those of these that were put back or added, and return them."""
        found = [item for item in self._added.items() if item[1].task_id in task_ids]
        for place, attempt in found:
            pairs = self._pairs_of(attempt)
            self._lanes[pairs].remove(place)
            heapify(self._lanes[pairs])
            del self._added[place]
            self._offer(pairs)
        return [attempt for _, attempt in found]

    def drop(self, entries: Container[str]) -> list[Attempt]:
        """Remove and return the attempts of these entries."""
        places = {n for n, (_, name) in enumerate(names_of(self._attempts)) if name in entries}
        places |= {n for n, one in self._added.items() if one.entry.id in entries}
        dropped: list[Attempt] = []
        for pairs, lane in list(self._lanes.items()):
            found = [place for place in lane if place in places]
            if found:
                dropped += map(self._attempt, sorted(found))
                lane[:] = [place for place in lane if place not in places]
                heapify(lane)
                self._offer(pairs)
        for place in places & self._added.keys():
            del self._added[place]
        return dropped

    def clear(self) -> None:
        for held in (self._lanes, self._added, self._open, self._waiting):
            held.clear()

    def look_again(self) -> None:
        """Let lanes whose keys have room again take part."""
        for pair in list(self._waiting):
            self._promote(pair)

    def _pairs_of(self, attempt: Attempt) -> Pairs:
        return () if self._limits is None else self._limits.pairs_of(attempt.entry)

    def _attempt(self, place: int) -> Attempt:
        if place in self._added:
            return self._added[place]
        if self._limits is None:
            return self._attempts[place]
        if self._read is None or self._read[0] != place:
            # A slice of one: of attempts on disk a single index reads ahead, and lanes jump.
            self._read = place, self._attempts[place : place + 1][0]
        return self._read[1]

    def _add(self, attempt: Attempt, place: int) -> None:
        self._added[place] = attempt
        pairs = self._pairs_of(attempt)
        heappush(self._lanes.setdefault(pairs, []), place)
        self._offer(pairs)

    def _offer(self, pairs: Pairs) -> None:
        """Have a lane with another head than before take part; an empty one is forgotten."""
        lane = self._lanes[pairs]
        if not lane:
            del self._lanes[pairs]
        elif self._limits is not None:
            heappush(self._open, (lane[0], pairs))

    def _is_present(self, head: int, pairs: Pairs) -> bool:
        return pairs in self._lanes and self._lanes[pairs][0] == head

    def _next_lane(self) -> Pairs | None:
        """Return the lane that comes next; put those before it aside that have no room."""
        if self._limits is None:
            return () if self._lanes else None
        while self._open:
            head, pairs = self._open[0]
            if not self._is_present(head, pairs):
                heappop(self._open)
                continue
            full = next((pair for pair in pairs if not self._limits.has_room(pair)), None)
            if full is None:
                return pairs
            heappop(self._open)
            heappush(self._waiting.setdefault(full, []), (head, pairs))
            for pair in pairs:
                self._promote(pair)
        return None

    def _promote(self, pair: Pair) -> None:
        """Have the first lane that waits for this key take part, where the key has room."""
        waiting = self._waiting.get(pair)
        if not waiting or self._limits is None or not self._limits.has_room(pair):
            return
        while waiting:
            head, pairs = heappop(waiting)
            if self._is_present(head, pairs):
                heappush(self._open, (head, pairs))
                break
        if not waiting:
            del self._waiting[pair]


NOTHING = Decimal(0)


class Budget:
    """Account for one run; ``limit`` in the entries' unit of cost, ``costs``: already known, by
    task id.

    Attempts in flight count by their estimates, finished ones by what they cost.
    """

    def __init__(self, limit: float, costs: Mapping[str, Decimal] | None = None) -> None:
        self.limit = exact(limit)
        self._costs = dict(costs or {})
        self._reservations: dict[str, Decimal] = {}
        self.spent = sum(self._costs.values(), NOTHING)
        self._reserved = NOTHING

    def set_limit(self, limit: float) -> None:
        """Allow so much in all from now on."""
        self.limit = exact(limit)

    @property
    def has_reservations(self) -> bool:
        return bool(self._reservations)

    @property
    def reached(self) -> bool:
        """Return whether the money is spent, whatever is still in flight."""
        return self.spent >= self.limit and self.spent > 0

    def allows(self, entry: Entry) -> bool:
        """Return whether this entry may be sent now; one without an estimate may while money is
        left."""
        if self.reached or (entry.cost is None and not self.limit):
            return False
        return self.spent + self._reserved + exact(entry.cost) <= self.limit

    def reserve(self, task_id: str, entry: Entry) -> None:
        """Reserve the estimate of an attempt that is being sent, or is in flight already."""
        self.cancel(task_id)
        self._reservations[task_id] = exact(entry.cost)
        self._reserved += self._reservations[task_id]

    def charge(self, task_id: str, cost: Decimal) -> None:
        """Replace an attempt's estimate, or its earlier cost, by ``cost``."""
        self.cancel(task_id)
        self.spent += cost - self._costs.get(task_id, NOTHING)
        self._costs[task_id] = cost

    def cancel(self, task_id: str) -> None:
        """Release the estimate of an attempt that was not sent after all, or has its cost."""
        self._reserved -= self._reservations.pop(task_id, NOTHING)

    def why_closed(self, entry: Entry | None) -> BudgetReached:
        """Return why no more is sent; ``entry`` would have come next."""
        why = BudgetReached(spent=cost_text(self.spent), budget=cost_text(self.limit))
        if self.reached or entry is None:
            return why
        known = "no estimate" if entry.cost is None else f"an estimate of {cost_text(entry.cost)}"
        return why.having(estimate=known)


def refuse_beyond(
    budget: float | None, entries: Iterable[Entry], name: str, spent: Decimal = NOTHING
) -> None:
    """Raise DispatchError where the entries' estimates plus ``spent`` exceed the budget.

    ``name`` is the manifest's.
    """
    if budget is None:
        return
    count, estimated = 0, NOTHING
    for entry in entries:
        count += 1
        estimated += exact(entry.cost)
    if not count or spent + estimated <= exact(budget):
        return
    before = f"the run has cost {cost_text(spent)} already, " if spent else ""
    more = " more" if spent else ""
    noun = "1 entry is" if count == 1 else f"{count} entries are"
    raise DispatchError(
        f"{name}: nothing was sent: {before}{noun} estimated to cost {cost_text(estimated)}{more}, "
        f"and --manifest-budget is {cost_text(budget)}; send fewer (-k, or a plan with a smaller "
        "limit), or allow more with a larger --manifest-budget"
    )


def without_estimate(entries: Iterable[Entry]) -> str | None:
    """Return a message on entries that a budget cannot foresee, None where there are none."""
    count = total = 0
    for entry in entries:
        total += 1
        count += entry.cost is None
    if not count:
        return None
    return (
        f"{count} of {total} entries have no estimated cost: for the budget they count only when "
        "their receipts report a cost"
    )
