"""Failures grouped by what they have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.schema import ErrorInfo, Mismatch, VerdictKind
from pytest_manifest.verdict import plain
from pytest_manifest.verdict.text import middle

EXAMPLES = 3
_MESSAGE_LIMIT = 400
_NAME_LIMIT = 100
_INDEX = re.compile(r"\[\d+\]")
_WITHOUT_RECEIPT = frozenset({"forged", "quarantined", "lost"})
"""Verdicts that are not about what a receipt says."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Entries that went wrong in the same way, the first three of them as ``examples`` (ids).

    ``error`` and ``place``: type and last frame of what they raised; else ``path``: the first
    mismatch, with ``[*]`` for any index. ``title`` names it in one line, ``message`` is what the
    first of them says. All are plain text, shortened.
    """

    kind: VerdictKind
    error: str | None
    place: str | None
    path: str | None
    title: str
    count: int
    examples: tuple[str, ...]
    message: str


_Key = tuple[VerdictKind, str | None, str | None, str | None]


@dataclass(slots=True)
class _Group:
    title: str
    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Causes:
    """Takes records, and groups those that failed or could not be told."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}

    def add(self, record: EntryRecord) -> None:
        if record.verdict is None or record.outcome not in ("failed", "error"):
            return
        kind, mismatch = record.verdict.verdict, _first_mismatch(record)
        error = _error(record)
        key: _Key
        if error is not None:
            key = (kind, _name(error.type), record.error_place, None)
        else:
            key = (kind, None, None, None if mismatch is None else _path(mismatch))
        group = self._groups.get(key)
        if group is None:
            told = record.verdict.sentence if error is None else error.message
            message = middle(" ".join(plain(told).split()), _MESSAGE_LIMIT)
            group = self._groups[key] = _Group(_title(key, mismatch), message)
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(record.id)

    def largest_first(self) -> tuple[Cause, ...]:
        """All causes; of equal size, the one that was met first."""
        return tuple(
            Cause(*key, group.title, group.count, tuple(group.examples), group.message)
            for key, group in sorted(self._groups.items(), key=lambda pair: -pair[1].count)
        )


def _error(record: EntryRecord) -> ErrorInfo | None:
    """What the job raised, where that is what the verdict is about."""
    if record.receipt is None or record.kind in _WITHOUT_RECEIPT:
        return None
    return record.receipt.error


def _first_mismatch(record: EntryRecord) -> Mismatch | None:
    assert record.verdict is not None
    return record.verdict.mismatches[0] if record.verdict.mismatches else None


def _path(mismatch: Mismatch) -> str:
    return middle(_INDEX.sub("[*]", plain(mismatch.path)), _NAME_LIMIT)


def _name(text: str) -> str:
    return middle(" ".join(plain(text).split()), _NAME_LIMIT)


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
