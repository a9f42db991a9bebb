"""Group failures by cause: the same error at the same place, or the same mismatch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pytest_manifest.schema import Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import BAD, Outcome
from pytest_manifest.text import middle, printable
from pytest_manifest.verdict import best_known, next_step
from pytest_manifest.verdict.tree import PATH, descendant_of

EXAMPLES = 3
_MESSAGE_LIMIT = 400
_NAME_LIMIT = 100
_VARIANTS = 20
"""Pairs of expected and actual values that are kept of one path."""
_INDEX = re.compile(r"\[\d+\]")


class EvaluatedEntry(Protocol):
    """An entry of a run with its verdict."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> VerdictStatus | None: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def verdict(self) -> Verdict | None: ...
    @property
    def receipt(self) -> Receipt | None: ...
    @property
    def error_place(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Cause:
    """Entries that went wrong in the same way, the first three of them as ``examples`` (ids).

    ``error`` and ``place``: type and last frame of what they raised; else ``path``: the first
    mismatch, with ``[*]`` for any index, ``expected`` and ``actual``: what that is for the first of
    them. Where a descendant did not end as expected, ``place`` is its task. ``title`` names it in
    one line, ``message`` is what the first of them says, ``step`` what its verdict advises to do.
    All are plain text, shortened.
    """

    kind: VerdictStatus
    error: str | None
    place: str | None
    path: str | None
    title: str
    count: int
    examples: tuple[str, ...]
    message: str
    expected: str | None = None
    actual: str | None = None
    step: str = ""

    @property
    def sign(self) -> _Sign:
        """Return the values that its entries have in common, to group by."""
        pair = None
        if self.expected is not None and self.actual is not None:
            pair = self.expected, self.actual
        return (self.kind, self.error, self.place, self.path), pair


_Key: TypeAlias = tuple[VerdictStatus, str | None, str | None, str | None]
_Pair: TypeAlias = tuple[str, str]
_Sign: TypeAlias = tuple[_Key, _Pair | None]


@dataclass(slots=True)
class _Group:
    title: str
    message: str
    pair: _Pair | None = None
    step: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    variants: dict[_Pair, _Group] = field(default_factory=dict)
    """Subgroups by expected and actual value, up to ``_VARIANTS``."""
    varies: bool = False
    """Whether there were more of them than are kept."""

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(name)

    def causes(self, key: _Key) -> Iterator[Cause]:
        """Yield one cause, or where the same few values repeat, one for each of them."""
        repeated = not self.varies and self.count >= 2 * len(self.variants)
        for one in self.variants.values() if repeated and self.variants else (self,):
            expected, actual = one.pair or (None, None)
            yield Cause(
                *key,
                one.title,
                one.count,
                tuple(one.examples),
                one.message,
                expected,
                actual,
                self.step,
            )


class Causes:
    """Groups of entries that failed or whose fate is unknown."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}

    def add(self, record: EvaluatedEntry) -> None:
        found = _sign_and_message(record)
        if found is None:
            return
        (key, pair), message = found
        message = middle(_one_line(message), _MESSAGE_LIMIT)
        group = self._groups.get(key)
        if group is None:
            step = "" if record.verdict is None else next_step(record.verdict)
            title = _title(key, record.verdict)
            group = self._groups[key] = _Group(title, message, pair, step)
        group.add(record.id)
        if pair is not None:
            _add_variant(group, record.id, message, pair)

    def largest_first(self) -> tuple[Cause, ...]:
        """Return all causes, largest first; of equal size, the one found first."""
        found = (cause for key, group in self._groups.items() for cause in group.causes(key))
        return tuple(sorted(found, key=lambda cause: -cause.count))


class CauseNumbers:
    """A number for each failure's cause, and the cause that each number became."""

    def __init__(self) -> None:
        self._numbers: dict[_Sign, int] = {}

    def number(self, record: EvaluatedEntry) -> int:
        """Return the same number for the same failure; -1 for a record without one."""
        found = _sign_and_message(record)
        return -1 if found is None else self._numbers.setdefault(found[0], len(self._numbers))

    def positions(self, causes: Sequence[Cause]) -> list[int]:
        """Return, for each number, its cause's index among these; -1 where it is none of them."""
        shared = Counter(cause.sign[0] for cause in causes)
        known: dict[_Sign, int] = {}
        for position, cause in enumerate(causes):
            key, pair = cause.sign
            known[key, pair if shared[key] > 1 else None] = position
        return [known.get((key, pair), known.get((key, None), -1)) for key, pair in self._numbers]


def _sign_and_message(record: EvaluatedEntry) -> tuple[_Sign, str] | None:
    """Return by what a record is grouped, and its message; None where nothing went wrong."""
    if record.verdict is None or record.outcome not in BAD:
        return None
    kind, mismatch = record.verdict.verdict, _first_mismatch(record.verdict)
    reason = best_known(record.verdict, record.receipt)
    if reason is not None and not isinstance(reason, Mismatch):
        return ((kind, _name(reason.type), record.error_place, None), None), reason.message
    key: _Key = (kind, None, None, None if mismatch is None else _path(mismatch))
    if reason is None:
        named = descendant_of(record.verdict)
        if named is None:
            return (key, None), record.verdict.sentence
        return ((kind, None, _name(named.task), key[3]), None), named.said
    pair = _value(reason.expected), _value(reason.actual)
    return (key, pair), f"{pair[1]} where {pair[0]} was expected"


def _first_mismatch(verdict: Verdict | None) -> Mismatch | None:
    return verdict.mismatches[0] if verdict is not None and verdict.mismatches else None


def _add_variant(group: _Group, name: str, message: str, pair: _Pair) -> None:
    if pair not in group.variants:
        if group.varies or len(group.variants) == _VARIANTS:
            group.varies = True
            group.variants.clear()
            return
        group.variants[pair] = _Group(group.title, message, pair)
    group.variants[pair].add(name)


def _path(mismatch: Mismatch) -> str:
    return middle(_INDEX.sub("[*]", printable(mismatch.path)), _NAME_LIMIT)


def _name(text: str) -> str:
    return middle(_one_line(text), _NAME_LIMIT)


def _value(text: str) -> str:
    return middle(_one_line(text), _MESSAGE_LIMIT // 3)


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _title(key: _Key, verdict: Verdict | None) -> str:
    kind, error, place, path = key
    before = "" if kind == "failed" else f"{kind}: "
    mismatch = _first_mismatch(verdict)
    named = None if verdict is None or error is not None else descendant_of(verdict)
    if named is not None:
        return f"a descendant {place} {named.came_to}"
    if error is not None:
        return f"{before}{error} at {place}" if place else f"{before}{error}"
    if mismatch is None or path is None:
        return kind
    if path == PATH:
        return f"{before}a descendant did not end as expected"
    if path == "state":
        return kind if mismatch.actual == kind else f"{before}ended as {_name(mismatch.actual)}"
    return f"{before}{path} is not as expected"
