"""Queue what a run has yet to send, in a few bytes an entry: positions of attempts to be read."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final, TypeAlias, overload

from pytest_manifest.broker.attempt import Attempt, attempt_of, task_id_for
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry

AT_ONCE: Final = 500
"""Attempts that are read together."""


def is_withheld(entry: Entry, unknown: Container[str]) -> bool:
    """Return whether an entry is not sent, as no worker knows its task and it does not expect
    that."""
    return entry.task in unknown and entry.expect.state != "unknown_task"


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

    def without_tasks(self, tasks: Iterable[str]) -> FirstAttempts:
        """Return those that are not withheld for being of these tasks."""
        left_out = frozenset(tasks)
        kept = array(
            "I",
            (
                place
                for place, attempt in zip(self._positions, self, strict=True)
                if not is_withheld(attempt.entry, left_out)
            ),
        )
        return FirstAttempts(self._run, self._manifest, kept)

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


class _Positions:
    """Take some of a sequence of attempts, by their positions in it, from the first on."""

    def __init__(self, attempts: Sequence[Attempt], positions: array[int]) -> None:
        self._attempts = attempts
        self._positions = positions
        self._next = 0

    def __len__(self) -> int:
        return len(self._positions) - self._next

    def first(self) -> Attempt:
        return self._attempts[self._positions[self._next]]

    def take(self) -> Attempt:
        taken = self.first()
        self._next += 1
        return taken

    def __iter__(self) -> Iterator[Attempt]:
        return (self._attempts[place] for place in self._positions[self._next :])


_Part: TypeAlias = Attempt | _Positions


class SendQueue:
    """Queue attempts in the order in which they are sent: objects, and positions among others."""

    def __init__(self, attempts: Sequence[Attempt] = (), positions: Iterable[int] = ()) -> None:
        """Queue those at these ``positions`` of ``attempts``; 4 bytes each."""
        part = _Positions(attempts, array("I", positions))
        self._parts: deque[_Part] = deque([part] if len(part) else [])

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[Attempt]:
        for part in self._parts:
            if isinstance(part, _Positions):
                yield from part
            else:
                yield part

    def next_sendable(self) -> Attempt | None:
        """Return the next one that may be sent now; None where there is none."""
        if not self._parts:
            return None
        part = self._parts[0]
        return part.first() if isinstance(part, _Positions) else part

    def popleft(self) -> Attempt:
        part = self._parts[0]
        if not isinstance(part, _Positions):
            self._parts.popleft()
            return part
        taken = part.take()
        if not len(part):
            self._parts.popleft()
        return taken

    def append(self, attempt: Attempt) -> None:
        self._parts.append(attempt)

    def appendleft(self, attempt: Attempt) -> None:
        self._parts.appendleft(attempt)

    def remove(self, task_ids: Iterable[str]) -> None:
        """Remove these of the first ones."""
        gone = set(task_ids)
        stay: list[Attempt] = []
        while gone and self:
            attempt = self.popleft()
            if attempt.task_id in gone:
                gone.discard(attempt.task_id)
            else:
                stay.append(attempt)
        for attempt in reversed(stay):
            self.appendleft(attempt)

    def look_again(self) -> None:
        """Let what had to wait at its place take part again: here nothing has to."""

    def clear(self) -> None:
        self._parts.clear()
