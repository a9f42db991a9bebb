"""Decide whether a history passes a gate: ``manifest history --fail-on=...``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import median
from typing import Final

from pytest_manifest.errors import PlanError
from pytest_manifest.schema.over_time import EntryOverTime, ManifestOverTime
from pytest_manifest.schema.run_digest import RunDigest
from pytest_manifest.text import listed, plural, printable, rate_text, seconds

_SHOWN: Final = 3
_EACH: Final = "task"
"""The name that stands for each task."""
_COMPARED: Final = re.compile(
    r"(?P<what>p50|p95|duration|rate|cost|failed)\s*(?:\((?P<task>[^()]+)\))?\s*(?P<sign>[<>])\s*"
    r"(?P<number>\d+(?:\.\d+)?)\s*(?:[x*]\s*median\(\s*(?P<runs>[1-9]\d?)\s*\))?"
)
_HINT: Final = (
    'write "new failures", broken, flaky, slowing, growing, or a comparison like '
    '"p95(shop.resize) > 1.5 x median(10)", "duration > 3600", "failed > 5"; '
    "p50 and p95 are of a task, or of each: p95(task)"
)


def _new_failures(found: ManifestOverTime) -> Iterator[str]:
    new = [one for one in found.entries if _is_new(one)]
    if new:
        ids = listed([printable(one.id) for one in new], _SHOWN)
        yield f"{plural(len(new), 'new failure')}: {ids}"


def _is_new(one: EntryOverTime) -> bool:
    before = [state for state in one.states[:-1] if state in ".F"]
    return one.states.endswith("F") and before[-1:] != ["F"]


def _of_kind(kind: str) -> Callable[[ManifestOverTime], Iterator[str]]:
    def broken_by(found: ManifestOverTime) -> Iterator[str]:
        some = [one for one in found.entries if one.kind == kind]
        if some:
            ids = listed([printable(one.id) for one in some], _SHOWN)
            yield f"{plural(len(some), f'{kind} entry')}: {ids}"

    return broken_by


def _slowing(found: ManifestOverTime) -> Iterator[str]:
    if found.slower is not None:
        yield f"all tasks take {rate_text(found.slower.ratio)} times as long"
    for one in found.tasks:
        if one.slower is not None:
            times, since = rate_text(one.slower.ratio), one.slower.since
            yield f"{printable(one.task)} takes {times} times as long since run {since}"


def _growing(found: ManifestOverTime) -> Iterator[str]:
    for one in found.growing:
        yield f"{printable(one.worker)} grows by {one.per_job / 1e6:.3g} MB a job"


_WORDS: Final[Mapping[str, Callable[[ManifestOverTime], Iterator[str]]]] = {
    "new failures": _new_failures,
    "broken": _of_kind("broken"),
    "flaky": _of_kind("flaky"),
    "slowing": _slowing,
    "growing": _growing,
}


class Gate:
    """A condition on which a history fails. Raises PlanError where it cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        self._word = _WORDS.get(self.text)
        self._match = _COMPARED.fullmatch(self.text)
        of_tasks = self._match is not None and self._match["what"] in ("p50", "p95")
        has_task = self._match is not None and self._match["task"] is not None
        if (self._word is None and self._match is None) or of_tasks != has_task:
            raise PlanError(f"--fail-on={text!r} is no condition; {_HINT}")

    def check(self, tasks: Sequence[str], digests: Sequence[RunDigest]) -> None:
        """Raise PlanError where it is about a task and none of these is meant, or about costs that
        none of these runs has."""
        if self._match is None:
            return
        if self._match["what"] == "cost" and all(one.cost is None for one in digests):
            raise PlanError(
                f"--fail-on={self.text!r}: no receipt of these runs has a cost; have the tasks "
                "report it, as cost in their evidence"
            )
        task = self._match["task"]
        if task is None or task == _EACH or any(fnmatchcase(one, task.strip()) for one in tasks):
            return
        known = listed([printable(one) for one in tasks], _SHOWN) or "none"
        raise PlanError(
            f"--fail-on={self.text!r}: no task of these runs is called so; there are {known}"
        )

    def broken_by(self, found: ManifestOverTime, digests: Sequence[RunDigest]) -> Iterator[str]:
        """Yield what breaks it, in words. ``digests``: those of which the history was made."""
        if self._word is not None:
            yield from self._word(found)
            return
        assert self._match is not None
        counted = [one for one, run in zip(digests, found.runs, strict=True) if run.partial is None]
        if not counted or digests[-1].partial is not None:
            return  # a part says nothing of the whole
        what, task = self._match["what"], self._match["task"]
        names = [""] if task is None else [one.task for one in counted[-1].tasks]
        for name in names:
            if task is None or task == _EACH or fnmatchcase(name, task.strip()):
                yield from self._compared([_value(one, what, name) for one in counted], name)

    def _compared(self, values: Sequence[float | None], name: str) -> Iterator[str]:
        assert self._match is not None
        what, runs, last = self._match["what"], self._match["runs"], values[-1]
        limit = float(self._match["number"])
        before = [one for one in values[:-1] if one is not None]
        if runs is not None:
            if not before:
                return
            limit *= median(before[-int(runs) :])
        if last is None or not (last > limit if self._match["sign"] == ">" else last < limit):
            return
        shown = seconds if what in ("p50", "p95", "duration") else rate_text
        of = f" of {printable(name)}" if name else ""
        yield f"{what}{of} is {shown(last)}, the limit {shown(limit)}"


def _value(digest: RunDigest, what: str, task: str) -> float | None:
    if task:
        found = next((one for one in digest.tasks if one.task == task), None)
        return None if found is None else found.p50 if what == "p50" else found.p95
    if what == "failed":
        return float(digest.bad)
    return {"duration": digest.duration, "rate": digest.rate, "cost": digest.cost}[what]
