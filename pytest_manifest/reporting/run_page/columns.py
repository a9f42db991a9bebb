"""Collect the entries as columns of plain values, for a page's table and plots.

Collect what jobs told of over time in their evidence, for a page's plots.

Collect the tasks that jobs started for a page, in blocks that it unpacks when they are needed.

The page has them apart from its table: a run may have a hundred of them an entry.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, Field, ValidationError

from pytest_manifest.analysis.causes import CauseNumbers
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.analysis.tree_reading import DescendantRecord, TreeRecord, read_trees
from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.statuses import STATUSES, Outcome, outcome_of
from pytest_manifest.schema.summary import SummaryCause
from pytest_manifest.text import middle, pictured
from pytest_manifest.verdict.explanation import brief

OUTCOMES: Final = get_args(Outcome)
_PLACE_OF_OUTCOME: Final[dict[str, int]] = {
    status: OUTCOMES.index(one.outcome) for status, one in STATUSES.items()
}
"""Of each status, the place of its outcome among these."""
_PLACES: Final = 5
"""Decimal places of moments: a hundredth of a millisecond."""
_ROWS: Final = (
    *("id", "task", "kind", "outcome", "place"),
    *("reason", "cause", "tags", "tries", "line"),
)
_NUMBERS: Final = ("sent", "wait", "runtime", "cost")
"""Columns that a page lacks where all their cells are empty."""
_BARS: Final = ("row", "place", "outcome", "number", "start", "end")


class Names(dict[str, int]):
    """Keep each of many repeated texts once, with its position in the list of all."""

    def index(self, text: str | None) -> int:
        """Return the text's position, which is added if new; -1 for None."""
        return -1 if text is None else self.setdefault(text, len(self))


class Columns:
    """Collect rows of the table, one an entry, and bars of the timeline, one a started attempt.

    Moments are seconds since ``origin``, rounded to a hundredth of a millisecond.
    """

    def __init__(self, origin: datetime) -> None:
        self.origin = origin
        self._names = {name: Names() for name in ("tasks", "kinds", "places", "reasons", "tags")}
        self._causes = CauseNumbers()
        self.rows: dict[str, list[Any]] = {name: [] for name in (*_ROWS, *_NUMBERS)}
        self.bars: dict[str, list[Any]] = {name: [] for name in _BARS}
        self._others = array("d"), array("d")
        """Starts and ends of what else the timeline has."""

    def add(self, record: EntryRecord) -> None:
        """Append an entry as a row, and its attempts as bars."""
        last, tags = record.last, record.entry.tags
        costs = [attempt.cost for attempt in record.attempts if attempt.cost is not None]
        is_known = record.accepted is not None and record.outcome == "skipped"
        kind: str = record.kind or "pending"
        row = {
            "id": pictured(record.id),
            "task": self._names["tasks"].index(pictured(record.entry.task)),
            "kind": self._names["kinds"].index(f"{kind}-accepted" if is_known else kind),
            "outcome": OUTCOMES.index(record.outcome),
            "place": self.place(last),
            "reason": self._names["reasons"].index(_reason(record)),
            "cause": -1 if is_known else self._causes.number(record.verdict, record.receipt),
            "tags": self._names["tags"].index(pictured("\n".join(tags)) if tags else None),
            "tries": len(record.attempts),
            "line": record.line,
            "sent": None if last is None else self.since(last.sent_at),
            "wait": rounded(None if last is None else last.wait),
            "runtime": rounded(None if last is None else last.runtime),
            "cost": rounded(sum(costs), COST_DIGITS) if costs else None,
        }
        for name, value in row.items():
            self.rows[name].append(value)
        for attempt in record.attempts:
            self._add_bar(record, attempt)

    def _add_bar(self, record: EntryRecord, attempt: AttemptRecord) -> None:
        """Append an attempt as a bar if it has a start; its end may be missing."""
        place = self.place(attempt)
        start = self.since(attempt.started_at)
        if place < 0 or start is None:
            return
        outcome = record.outcome if attempt is record.last else outcome_of(attempt.kind)
        # A job whose process died has only the moment in which that was noticed.
        end = None if attempt.runtime is None else self.since(attempt.finished_at)
        row = len(self.rows["id"]) - 1
        bar = (row, place, OUTCOMES.index(outcome), attempt.number, start, end)
        for name, value in zip(_BARS, bar, strict=True):
            self.bars[name].append(value)

    def note_span(self, start: float, end: float | None) -> None:
        """Have the timeline reach over a bar that is not among its first ones."""
        starts, ends = self._others
        starts.append(start)
        ends.append(start if end is None else max(start, end))

    def number_causes(self, causes: Sequence[SummaryCause]) -> None:
        """Replace the rows' numbers of causes by positions in ``causes``, after the last row."""
        places = self._causes.positions(causes)
        column = self.rows["cause"]
        column[:] = [-1 if number < 0 else places[number] for number in column]

    def place(self, attempt: AttemptRecord | DescendantRecord | None) -> int:
        """Return the number of the process that ran it; -1: none did."""
        place = None if attempt is None else attempt.place
        return self._names["places"].index(None if place is None else pictured(place))

    def since(self, moment: datetime | None) -> float | None:
        """Return the seconds from the origin to that moment."""
        return None if moment is None else round((moment - self.origin).total_seconds(), _PLACES)

    def document(self) -> dict[str, object]:
        """Return everything as JSON values, without columns that are empty."""
        rows = {
            name: column
            for name, column in self.rows.items()
            if name in _ROWS or any(value is not None for value in column)
        }
        names = {name: list(one) for name, one in self._names.items()}
        starts, ends = self._others
        reach = [min(starts), max(ends)] if starts else None
        paused = pauses(chain(self.bars["start"], starts), chain(self.bars["end"], ends))
        return {
            "names": names | {"outcomes": list(OUTCOMES)},
            "rows": rows,
            "bars": {**self.bars, "pauses": paused, "reach": reach},
        }


def _reason(record: EntryRecord) -> str | None:
    """Return in a line why an entry has not passed; None if it has, or has no verdict."""
    if record.verdict is None or record.verdict.verdict == "passed":
        return None
    return pictured(brief(record.verdict, record.receipt))


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round a duration, rate or share to as many significant digits as are shown."""
    return None if value is None else float(f"{value:.{digits}g}")


COST_DIGITS: Final = 6
"""Significant digits of a cost: a call may cost a ten-thousandth."""


# Pauses

SHORTEST: Final = 5.0
"""Seconds that a pause lasts at least."""
MOST: Final = 20


def pauses(
    starts: Iterable[float | None], ends: Iterable[float | None]
) -> list[tuple[float, float]]:
    """Return start and end of each pause, in order, from the bars' starts and ends in seconds.

    A bar's end may be None. A gap is a pause if it lasts longer than the whole time without the
    gaps at least as long: an hour between two jobs of a minute is one, an hour in a night of work
    is not.
    """
    spans = sorted(
        (start, start if end is None else max(start, end))
        for start, end in zip(starts, ends, strict=True)
        if start is not None
    )
    if not spans:
        return []
    gaps: list[tuple[float, float]] = []
    reached = spans[0][0]
    for start, end in spans:
        if start - reached > SHORTEST:
            gaps.append((reached, start))
        reached = max(reached, end)
    gaps.sort(key=lambda gap: gap[0] - gap[1])
    rest, found = reached - spans[0][0], 0
    for number, (begin, stop) in enumerate(gaps[:MOST], 1):
        rest -= stop - begin
        if stop - begin > rest:
            found = number
    return sorted(gaps[:found])


BUDGET: Final = 100_000
"""Descendants that a page has, some 40 bytes each; of more, each tree has its share."""
MOST_OF_TREE: Final = 1000
"""Descendants of one tree that a page has."""
LEAST: Final = 2
_TEXT: Final = 4000
SENTENCE: Final = 400
_LOG: Final = 20
"""Lines of a descendant's log, the last ones."""
_NOTES: Final = 20
"""Descendants of a tree of which what they raised is shown; of others that failed, why."""

ReadTrees = Callable[[Sequence[AttemptRecord], int], Mapping[str, TreeRecord]]


@dataclass(frozen=True, slots=True)
class TreeSource:
    """The origin of a page's trees, and the most descendants that each has."""

    read: ReadTrees
    limit: int = MOST_OF_TREE


def trees_of(ledger: Ledger) -> TreeSource | None:
    """Return the trees of a ledger, None where no job has started any."""
    if not ledger.descendants.any():
        return None
    limit = shared_limit(ledger.descendants.sizes())
    return TreeSource(lambda attempts, most: read_trees(ledger, attempts, most), limit)


def shared_limit(sizes: Iterable[int]) -> int:
    """Return how many descendants each tree may have so that all together keep to the budget."""
    left, trees = BUDGET, Counter(sizes)
    number = sum(trees.values())
    for size, count in sorted(trees.items()):
        if size * number > left:
            return max(LEAST, min(MOST_OF_TREE, left // number))
        left -= size * count
        number -= count
    return MOST_OF_TREE


@dataclass(slots=True)
class TreeColumns:
    """Collect the trees of a page's entries, block by block."""

    columns: Columns
    source: TreeSource
    tasks: Names = field(default_factory=Names)
    kinds: Names = field(default_factory=Names)
    ways: Names = field(default_factory=Names)
    counts: Counter[str] = field(default_factory=Counter)
    blocks: list[int] = field(default_factory=list)
    shown: int = 0
    _block: list[object] = field(default_factory=list)

    def add(self, place: int, record: EntryRecord) -> None:
        """Collect the trees of an entry's attempts; ``place``: the entry's, in its block."""
        found = self.source.read(record.attempts, self.source.limit)
        if found:
            trees = [
                self._tree(one, found[one.task_id])
                for one in record.attempts
                if one.task_id in found
            ]
            self._block.append([place, trees])

    def close_block(self, number: int) -> list[object]:
        """Return what was collected since the last block; empty where there is nothing."""
        block, self._block = self._block, []
        if block:
            self.blocks.append(number)
        return block

    def _tree(self, attempt: AttemptRecord, tree: TreeRecord) -> dict[str, object]:
        for status, count in tree.counts.items():
            self.counts[status or "pending"] += count
        tasks = [one for _, one in tree.tasks]
        self.shown += len(tasks)
        place_of = {one.task_id: place for place, one in enumerate(tasks)}
        since = self.columns.since
        for one in tasks:  # whose bars the page has only later
            if (start := since(one.started_at)) is not None:
                self.columns.note_span(start, since(one.ended_at))
        path = [place_of[task_id] for task_id in tree.path if task_id in place_of]
        return {
            "attempt": attempt.number,
            "counts": [
                [self.kinds.index(status or "pending"), count]
                for status, count in Counter(tree.counts).most_common()
            ],
            "total": tree.total,
            "root": [since(attempt.sent_at), since(attempt.started_at), since(attempt.ended_at)],
            "end": since(tree.ended_at),
            "path": path,
            "depth": [depth for depth, _ in tree.tasks],
            "id": [pictured(one.task_id) for one in tasks],
            "task": [self.tasks.index(pictured(one.task)) for one in tasks],
            "how": [self.ways.index(pictured(one.how)) for one in tasks],
            "kind": [self.kinds.index(one.status or "pending") for one in tasks],
            "place": [self.columns.place(one) for one in tasks],
            "sent": [since(one.spawned_at) for one in tasks],
            "start": [since(one.started_at) for one in tasks],
            "stop": [since(one.ended_at) for one in tasks],
            "run": [rounded(one.runtime) for one in tasks],
            "retried": [[place, one.retries] for place, one in enumerate(tasks) if one.retries],
            "notes": _notes(tasks),
        }

    def document(self) -> dict[str, object]:
        """Return what the page must know of its trees before it has one."""
        return {
            "blocks": self.blocks,
            "tasks": list(self.tasks),
            "kinds": list(self.kinds),
            "outcomes": [_PLACE_OF_OUTCOME[kind] for kind in self.kinds],
            "ways": [way.replace("_", " ") for way in self.ways],
            "total": sum(self.counts.values()),
            "shown": self.shown,
            "counts": [
                [self.kinds.index(kind), count] for kind, count in self.counts.most_common()
            ],
        }


def _notes(tasks: Sequence[DescendantRecord]) -> list[list[object]]:
    """Return of each that did not pass its place, verdict, error, traceback and log lines."""
    notes: list[list[object]] = []
    for place, one in enumerate(tasks):
        if one.status == "passed" or one.sentence is None:
            continue
        note: list[object] = [place, pictured(one.sentence[:SENTENCE])]
        if one.failure is not None and len(notes) < _NOTES:
            error, trace = one.failure.error, one.failure.traceback
            note += [
                None if error is None else pictured(error[:_TEXT]),
                None if trace is None else pictured(trace[-_TEXT:]),
                pictured("\n".join(one.failure.log[-_LOG:])[-_TEXT:]) or None,
            ]
        notes.append(note)
    return notes


# What jobs told of over time in their evidence

KEY: Final = "over_time"
"""The evidence's field: by name ``{"kind": "level" or "count", "points": [[seconds since 1970,
number], ...]}``. What is of another form is passed over: it may be evidence of a user's own."""
MOST_NAME: Final = 80
MOST_SERIES: Final = 8
MOST_BINS: Final = 400
LEAST_STEP: Final = 0.25
"""Seconds of the shortest stretch that has a value of its own."""
SPARE: Final = timedelta(minutes=5)
"""How far the clocks of workers may be off."""

Kind: TypeAlias = Literal["level", "count"]
"""A level has a mean in a stretch of time, counts have a sum."""


_Plotted = Annotated[float, Field(strict=True, gt=-1e15, lt=1e15)]


class _ToldSeries(BaseModel):
    """A series as a job has it in its evidence: points of a moment and a number."""

    kind: Kind
    points: list[tuple[_Plotted, _Plotted]]


class _Series:
    """Add points up in stretches of time, which become longer where there would be too many."""

    def __init__(self) -> None:
        self._step = LEAST_STEP
        self._bins: dict[int, tuple[float, int]] = {}

    def add(self, moment: float, value: float) -> None:
        self._put(int(moment // self._step), value, 1)
        while len(self._bins) > MOST_BINS:
            self._step *= 2
            before, self._bins = self._bins, {}
            for place, (total, count) in before.items():
                self._put(place // 2, total, count)

    def _put(self, place: int, total: float, count: int) -> None:
        known, number = self._bins.get(place, (0.0, 0))
        self._bins[place] = known + total, number + count

    def document(self, name: str, kind: Kind) -> dict[str, object]:
        bins = sorted(self._bins.items())
        values = [total if kind == "count" else total / count for _, (total, count) in bins]
        return {
            "name": pictured(name),
            "kind": kind,
            "step": self._step,
            "at": [round(place * self._step, 2) for place, _ in bins],
            "values": [round(value, 3) for value in values],
        }


class OverTime:
    """Collect the points of all receipts; moments are seconds from ``began``, the page's origin.

    What is told of another time than the run's, until ``ended``, is no part of it.
    """

    def __init__(self, began: datetime, ended: datetime) -> None:
        self._origin = began.timestamp()
        self._last = (ended - began + SPARE).total_seconds()
        self._series: dict[tuple[str, Kind], _Series] = {}

    def add(self, receipt: Receipt | None) -> None:
        """Add what a receipt's evidence tells."""
        told = None if receipt is None else receipt.evidence.get(KEY)
        for name, one in told.items() if isinstance(told, dict) else ():
            with suppress(ValidationError):
                series = _ToldSeries.model_validate(one)
                which = middle(name, MOST_NAME), series.kind
                for at, value in series.points:
                    moment = at - self._origin
                    if -SPARE.total_seconds() <= moment <= self._last and (
                        which in self._series or len(self._series) < MOST_SERIES
                    ):
                        self._series.setdefault(which, _Series()).add(moment, value)

    def document(self) -> list[dict[str, object]]:
        """Return the series as JSON values, levels first."""
        found = sorted(self._series.items(), key=lambda pair: (pair[0][1] != "level", pair[0][0]))
        return [series.document(*which) for which, series in found]
