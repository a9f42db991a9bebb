"""Failures grouped by what they have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.schema import Mismatch, VerdictKind
from pytest_manifest.verdict import plain, reason_of
from pytest_manifest.verdict.text import middle

EXAMPLES = 3
_MESSAGE_LIMIT = 400
_NAME_LIMIT = 100
_VARIANTS = 20
"""Pairs of expected and actual that are kept of one path."""
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Cause:
    """Entries that went wrong in the same way, the first three of them as ``examples`` (ids).

    ``error`` and ``place``: type and last frame of what they raised; else ``path``: the first
    mismatch, with ``[*]`` for any index, ``expected`` and ``actual``: what that is for the first of
    them. ``title`` names it in one line, ``message`` is what the first of them says. All are plain
    text, shortened.
    """

    kind: VerdictKind
    error: str | None
    place: str | None
    path: str | None
    title: str
    count: int
    examples: tuple[str, ...]
    message: str
    expected: str | None = None
    actual: str | None = None


_Key: TypeAlias = tuple[VerdictKind, str | None, str | None, str | None]
_Pair: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class _Group:
    title: str
    message: str
    pair: _Pair | None = None
    count: int = 0
    examples: list[str] = field(default_factory=list)
    variants: dict[_Pair, _Group] = field(default_factory=dict)
    """By expected and actual, as far as they are kept."""
    varies: bool = False
    """Whether there were more of them."""

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(name)

    def causes(self, key: _Key) -> Iterator[Cause]:
        """One cause, or where the same few values came again and again, one for each of them."""
        repeated = not self.varies and self.count >= 2 * len(self.variants)
        for one in self.variants.values() if repeated and self.variants else (self,):
            yield Cause(
                *key,
                one.title,
                one.count,
                tuple(one.examples),
                one.message,
                *(one.pair or (None, None)),
            )


class Causes:
    """Takes records, and groups those that failed or could not be told."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}

    def add(self, record: EntryRecord) -> None:
        if record.verdict is None or record.outcome not in ("failed", "error"):
            return
        kind, mismatch = record.verdict.verdict, _first_mismatch(record)
        reason, told = reason_of(record.verdict, record.receipt), record.verdict.sentence
        pair: _Pair | None = None
        key: _Key = (kind, None, None, None if mismatch is None else _path(mismatch))
        if isinstance(reason, Mismatch):
            pair = _value(reason.expected), _value(reason.actual)
            told = f"{pair[1]} where {pair[0]} was expected"
        elif reason is not None:
            key, told = (kind, _name(reason.type), record.error_place, None), reason.message
        message = middle(_one_line(told), _MESSAGE_LIMIT)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(_title(key, mismatch), message, pair)
        group.add(record.id)
        if pair is not None:
            _add_variant(group, record.id, message, pair)

    def largest_first(self) -> tuple[Cause, ...]:
        """All causes; of equal size, the one that was met first."""
        found = (cause for key, group in self._groups.items() for cause in group.causes(key))
        return tuple(sorted(found, key=lambda cause: -cause.count))


def _add_variant(group: _Group, name: str, message: str, pair: _Pair) -> None:
    if pair not in group.variants:
        if group.varies or len(group.variants) == _VARIANTS:
            group.varies = True
            group.variants.clear()
            return
        group.variants[pair] = _Group(group.title, message, pair)
    group.variants[pair].add(name)


def _first_mismatch(record: EntryRecord) -> Mismatch | None:
    assert record.verdict is not None
    return record.verdict.mismatches[0] if record.verdict.mismatches else None


def _path(mismatch: Mismatch) -> str:
    return middle(_INDEX.sub("[*]", plain(mismatch.path)), _NAME_LIMIT)


def _name(text: str) -> str:
    return middle(_one_line(text), _NAME_LIMIT)


def _value(text: str) -> str:
    return middle(_one_line(text), _MESSAGE_LIMIT // 3)


def _one_line(text: str) -> str:
    return " ".join(plain(text).split())


def _title(key: _Key, mismatch: Mismatch | None) -> str:
    kind, error, place, path = key
    before = "" if kind == "failed" else f"{kind}: "
    if error is not None:
        return f"{before}{error} at {place}" if place else f"{before}{error}"
    if mismatch is None or path is None:
        return kind
    if path == "state":
        return kind if mismatch.actual == kind else f"{before}ended as {_name(mismatch.actual)}"
    return f"{before}{path} is not as expected"
