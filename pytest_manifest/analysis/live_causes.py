"""Keep the causes of a run's failures while it goes on: verdicts come, and are corrected.

They are those of ``analysis.causes``, with a number each that stays.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pytest_manifest.analysis.causes import VARIANTS, Key, short_message, sign_and_message, title_of
from pytest_manifest.analysis.pace import MINUTE
from pytest_manifest.schema import Receipt, Verdict
from pytest_manifest.schema.summary import Sign

_LINE: Final = re.compile(r":\d+")


def lasting(key: Key) -> Key:
    """Return by what a cause is known again in another run: lines of code may have moved."""
    kind, error, place, path, code = key
    return kind, error, None if place is None else _LINE.sub("", place, count=1), path, code


@dataclass(slots=True)
class LiveCause:
    """Entries that went wrong in the same way; ``example`` is the number of the first of them."""

    number: int
    key: Key
    title: str
    message: str
    example: int
    count: int = 0
    last_minute: int = 0
    is_pair: bool = False


class LiveCauses:
    """Causes, by the numbers of entries; a cause's number is that of its order of appearance."""

    def __init__(self) -> None:
        self._numbers: dict[Sign, int] = {}
        self._causes: list[LiveCause] = []
        self._merged: set[Key] = set()
        """Keys with so many pairs of values that these are not told apart."""
        self._of = array("I")
        """The number of each entry's cause, 0: none."""
        self._bad: deque[tuple[float, int]] = deque()
        self._recent: Counter[int] = Counter()
        """How many of the last minute have which number; more where a verdict was corrected."""

    def number_of(self, entry: int) -> int:
        """Return the number of an entry's cause; 0: it has none."""
        return self._of[entry] if entry < len(self._of) else 0

    def add(self, entry: int, at: float, verdict: Verdict, receipt: Receipt | None) -> None:
        """Add an entry with its verdict as it is shown, in place of the one that it had."""
        self.discard(entry)
        found = sign_and_message(verdict, receipt)
        if found is None:
            return
        (key, pair), said = found
        message = short_message(said)
        sign = (key, None if key in self._merged else pair)
        number = self._numbers.get(sign)
        if number is None:
            sign, number = self._new(sign, verdict, message, entry)
        cause = self._causes[number - 1]
        cause.count += 1
        if entry < cause.example or cause.count == 1:
            cause.example, cause.message = entry, message
            cause.title = title_of(key, verdict)
        if entry >= len(self._of):
            self._of.extend([0] * (entry + 1 - len(self._of)))
        self._of[entry] = number
        self._bad.append((at, number))
        self._recent[number] += 1

    def _new(self, sign: Sign, verdict: Verdict, message: str, entry: int) -> tuple[Sign, int]:
        key, pair = sign
        if pair is not None:
            known = [number for (one, _), number in self._numbers.items() if one == key]
            if len(known) >= VARIANTS:
                self._merge(key, known)
                return (key, None), self._numbers[key, None]
        cause = LiveCause(len(self._causes) + 1, key, title_of(key, verdict), message, entry)
        cause.is_pair = pair is not None
        self._causes.append(cause)
        self._numbers[sign] = cause.number
        return sign, cause.number

    def _merge(self, key: Key, numbers: list[int]) -> None:
        """Make one cause of these, which has the number of the first."""
        first, *others = (self._causes[number - 1] for number in sorted(numbers))
        for one in others:
            first.count += one.count
            one.count = 0
            if one.example < first.example:
                first.example, first.title, first.message = one.example, one.title, one.message
        gone = {one.number for one in others}
        for entry, number in enumerate(self._of):
            if number in gone:
                self._of[entry] = first.number
        self._bad = deque((at, first.number if one in gone else one) for at, one in self._bad)
        self._recent = Counter(number for _, number in self._bad)
        first.is_pair = False
        self._numbers = {sign: one for sign, one in self._numbers.items() if sign[0] != key}
        self._numbers[key, None] = first.number
        self._merged.add(key)

    def discard(self, entry: int) -> None:
        """Forget an entry's cause: its verdict was taken back, or is a better one."""
        number = self.number_of(entry)
        if not number:
            return
        self._of[entry] = 0
        cause = self._causes[number - 1]
        cause.count -= 1
        if cause.example == entry and cause.count:
            cause.example = self._of.index(number)

    def entries_of(self, number: int) -> Iterator[int]:
        """Yield the numbers of a cause's entries, in their order."""
        numbers = {one.number for one in self._of_number(number)}
        return (entry for entry, one in enumerate(self._of) if one in numbers)

    def _of_number(self, number: int) -> list[LiveCause]:
        for cause, parts in self._shown():
            if cause.number == number:
                return parts
        return []

    def largest_first(self, now: float) -> list[LiveCause]:
        """Return all causes, the largest first, of equal size that of the first entry."""
        while self._bad and self._bad[0][0] <= now - MINUTE:
            self._recent[self._bad.popleft()[1]] -= 1
        recent, shown = self._recent, []
        for cause, parts in self._shown():
            cause.last_minute = min(sum(recent[one.number] for one in parts), cause.count)
            shown.append(cause)
        return sorted(shown, key=lambda one: (-one.count, one.example))

    def _shown(self) -> Iterator[tuple[LiveCause, list[LiveCause]]]:
        """Yield each cause as it is shown, with those of which it is made."""
        by_key: dict[Key, list[LiveCause]] = {}
        for one in self._causes:
            if one.count:
                by_key.setdefault(one.key, []).append(one)
        for key, parts in by_key.items():
            count = sum(one.count for one in parts)
            pairs = sum(one.is_pair for one in parts)
            if not pairs or count >= 2 * pairs:
                yield from ((one, [one]) for one in parts)
                continue
            first = min(parts, key=lambda one: one.example)
            number = min(one.number for one in parts)
            yield (
                LiveCause(number, key, first.title, first.message, first.example, count),
                parts,
            )
