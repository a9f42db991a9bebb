"""Collect the tasks that jobs started for a page, in blocks that it unpacks when they are needed.

The page has them apart from its table: a run may have a hundred of them an entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.analysis.tree_reading import DescendantRecord, TreeRecord, read_trees
from pytest_manifest.ledger import Ledger
from pytest_manifest.reporting.run_page.columns import OUTCOMES, Columns, Names, rounded
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.text import pictured

BUDGET: Final = 100_000
"""Descendants that a page has, some 40 bytes each; of more, each tree has its share."""
MOST: Final = 1000
"""Descendants of one tree that a page has."""
LEAST: Final = 2
_TEXT: Final = 4000
_SENTENCE: Final = 400
_LOG: Final = 20
"""Lines of a descendant's log, the last ones."""
_NOTES: Final = 20
"""Descendants of a tree of which what they raised is shown; of others that failed, why."""

ReadTrees = Callable[[Sequence[AttemptRecord], int], Mapping[str, TreeRecord]]


@dataclass(frozen=True, slots=True)
class TreeSource:
    """The origin of a page's trees, and the most descendants that each has.

    ``ended``: when the last descendant of all ended, None: not known.
    """

    read: ReadTrees
    limit: int = MOST
    ended: datetime | None = None


def trees_of(ledger: Ledger) -> TreeSource | None:
    """Return the trees of a ledger, None where no job has started any."""
    if not ledger.descendants.any():
        return None
    limit = shared_limit(ledger.descendants.sizes())
    return TreeSource(
        lambda attempts, most: read_trees(ledger, attempts, most), limit, ledger.trees.last_end()
    )


def shared_limit(sizes: Iterable[int]) -> int:
    """Return how many descendants each tree may have so that all together keep to the budget."""
    left, trees = BUDGET, Counter(sizes)
    number = sum(trees.values())
    for size, count in sorted(trees.items()):
        if size * number > left:
            return max(LEAST, min(MOST, left // number))
        left -= size * count
        number -= count
    return MOST


@dataclass(slots=True)
class TreeColumns:
    """Collect the trees of a page's entries, block by block."""

    columns: Columns
    source: TreeSource
    tasks: Names = field(default_factory=Names)
    kinds: Names = field(default_factory=Names)
    ways: Names = field(default_factory=Names)
    outcomes: list[int] = field(default_factory=list)
    """Of each kind, its place among the page's outcomes."""
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
        self._note_spans(tasks)
        path = [place_of[task_id] for task_id in tree.path if task_id in place_of]
        return {
            "attempt": attempt.number,
            "counts": [
                [self._kind(status), count] for status, count in Counter(tree.counts).most_common()
            ],
            "total": tree.total,
            "root": [since(attempt.sent_at), since(attempt.started_at), since(attempt.ended_at)],
            "end": since(tree.ended_at),
            "path": path,
            "depth": [depth for depth, _ in tree.tasks],
            "id": [pictured(one.task_id) for one in tasks],
            "task": [self.tasks.index(pictured(one.task)) for one in tasks],
            "how": [self.ways.index(pictured(one.how)) for one in tasks],
            "kind": [self._kind(one.status) for one in tasks],
            "place": [self._place(one) for one in tasks],
            "sent": [since(one.spawned_at) for one in tasks],
            "start": [since(one.started_at) for one in tasks],
            "stop": [since(one.ended_at) for one in tasks],
            "run": [rounded(one.runtime) for one in tasks],
            "retried": [[place, one.retries] for place, one in enumerate(tasks) if one.retries],
            "notes": _notes(tasks),
        }

    def _note_spans(self, tasks: Sequence[DescendantRecord]) -> None:
        """Have the page's time reach over the tree, whose bars it has only later."""
        since = self.columns.since
        for one in tasks:
            start = since(one.started_at)
            if start is not None:
                self.columns.note_span(start, since(one.ended_at))

    def _place(self, one: DescendantRecord) -> int:
        return self.columns.places.index(None if one.place is None else pictured(one.place))

    def _kind(self, status: VerdictStatus | None) -> int:
        index = self.kinds.index(status or "pending")
        if index == len(self.outcomes):
            self.outcomes.append(OUTCOMES.index(outcome_of(status)))
        return index

    def document(self) -> dict[str, object]:
        """Return what the page must know of its trees before it has one."""
        return {
            "blocks": self.blocks,
            "tasks": self.tasks.texts,
            "kinds": self.kinds.texts,
            "outcomes": self.outcomes,
            "ways": [way.replace("_", " ") for way in self.ways.texts],
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
        said = pictured(one.sentence[:_SENTENCE])
        failure = one.failure if len(notes) < _NOTES else None
        if failure is None:
            notes.append([place, said])
            continue
        error, trace = failure.error, failure.traceback
        notes.append(
            [
                place,
                said,
                None if error is None else pictured(error[:_TEXT]),
                None if trace is None else pictured(trace[-_TEXT:]),
                pictured("\n".join(failure.log[-_LOG:])[-_TEXT:]) or None,
            ]
        )
    return notes
