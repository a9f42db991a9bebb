"""What a run's stream tells of a tree of tasks, held against what the tasks have noted."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_manifest.results.records import (
    Announcement,
    Child,
    FinishedRecord,
    HandedOnRecord,
    Record,
    SpawnedRecord,
    StartedRecord,
)
from pytest_manifest.schema.stream_records import HOW_AFTER
from tests.live.apps.worker_support import SECONDS, Bench, Sent
from tests.processes import tail
from tests.support import eventually


@dataclass(frozen=True)
class Spawned:
    """A child, the record that told of it, and the place of that in the stream."""

    child: Child
    record: SpawnedRecord
    place: int


class Tree:
    """All that the stream of a run has: one root, and what it has started."""

    def __init__(self, root: str, records: list[Record]) -> None:
        self.root = root
        self.records = records
        self.spawned = {one.child.task_id: one for one in self._spawned()}

    def _spawned(self) -> Iterator[Spawned]:
        for place, record in enumerate(self.records):
            if isinstance(record, SpawnedRecord):
                yield from (Spawned(child, record, place) for child in record.children)
            elif isinstance(record, FinishedRecord):
                for late in record.spawned:
                    yield from (Spawned(child, late, place) for child in late.children)

    @property
    def told(self) -> list[SpawnedRecord]:
        return [one for one in self.records if isinstance(one, SpawnedRecord)]

    @property
    def starts(self) -> list[StartedRecord]:
        return [one for one in self.records if isinstance(one, StartedRecord)]

    @property
    def ends(self) -> dict[str, FinishedRecord]:
        found = [one for one in self.records if isinstance(one, FinishedRecord)]
        return {str(one.receipt["task_id"]): one for one in found}

    @property
    def announced(self) -> dict[str, Announcement]:
        """By key; one that is off once is off."""
        found: dict[str, Announcement] = {}
        for end in self.ends.values():
            for one in end.announced:
                found[one.key] = one if one.is_off or one.key not in found else found[one.key]
        return found

    @property
    def closed(self) -> dict[str, int]:
        """Keys of which nothing more comes, with the place of that in the stream."""
        told = ((place, getattr(one, "closes", None)) for place, one in enumerate(self.records))
        return {key: place for place, key in told if key is not None}

    def hows(self) -> Counter[tuple[str, str]]:
        """Count children by task and by how they were started."""
        return Counter((one.child.task, one.child.how) for one in self.spawned.values())

    def states(self) -> Counter[str]:
        return Counter(str(end.receipt["state"]) for end in self.ends.values())

    def fulfilled(self, key: str) -> set[str]:
        return {name for name, one in self.spawned.items() if one.child.fulfils == key}

    def unsent(self) -> set[str]:
        ends = [one for one in self.records if isinstance(one, (FinishedRecord, HandedOnRecord))]
        return {name for end in ends for name in end.unsent}

    def is_complete(self) -> bool:
        ended = (self.spawned.keys() | {self.root}) - self.unsent() <= self.ends.keys()
        return ended and all(
            one.is_off or one.key in self.closed or len(self.fulfilled(one.key)) >= one.count
            for one in self.announced.values()
        )

    def check(self) -> None:
        """Hold the rules that are the same for all trees."""
        self._check_origins()
        self._check_order()
        for one in self.announced.values():
            if one.how == HOW_AFTER:
                assert one.key in self.closed
            elif not one.is_off:
                assert len(self.fulfilled(one.key)) == one.count
                assert set(one.task_ids) <= self.fulfilled(one.key)
                assert one.task == self.spawned[min(self.fulfilled(one.key))].child.task

    def _check_origins(self) -> None:
        for start in self.starts:
            if start.task_id == self.root:
                assert start.root is start.parent is None
            else:
                parent = self.spawned[start.task_id].record.parent
                assert (start.root, start.parent) == (self.root, parent)
        for task_id, end in self.ends.items():
            if task_id == self.root:
                assert end.root is end.parent is None
            else:
                parent = self.spawned[task_id].record.parent
                assert (end.root, end.parent) == (self.root, parent)
            if end.receipt["children"] is not None:
                assert end.receipt["children"] == self._own(end.execution, self.records.index(end))

    def _own(self, execution: str, end: int) -> int:
        """Count what an execution has started before its end."""
        own = [one for one in self.spawned.values() if one.record.execution == execution]
        return sum(one.child.fulfils is None and one.place <= end for one in own)

    def _check_order(self) -> None:
        ends = {}
        for place, record in enumerate(self.records):
            if isinstance(record, (FinishedRecord, HandedOnRecord)):
                ends[record.execution] = place
            if isinstance(record, SpawnedRecord) and record.closes is not None:
                ends[record.execution] = place
            if isinstance(record, StartedRecord) and record.task_id != self.root:
                assert self.spawned[record.task_id].place < place
        for one in self.spawned.values():
            if one.child.fulfils is None and not self._replaces(one):
                assert one.place <= ends[one.record.execution]
            elif one.child.fulfils is not None:
                assert one.child.fulfils in self.announced

    @staticmethod
    def _replaces(one: Spawned) -> bool:
        return one.child.how == "replace"


def plant(bench: Bench, task: str, *args: object) -> Sent:
    """Send a task whose whole tree is asked for."""
    task_id = f"tree-{uuid.uuid4()}"
    return bench.send(task, *args, task_id=task_id, headers={"manifest_root": task_id})


def grown(bench: Bench, task: str, *args: object) -> Tree:
    """Send a task, wait until its tree is complete and the workers are idle, and check it."""
    before = len(noted(bench))
    sent = plant(bench, task, *args)

    def look() -> Tree | None:
        tree = Tree(sent.task_id, bench.records(sent))
        return tree if tree.is_complete() else None

    try:
        tree = eventually(look, within=SECONDS, what="a complete tree")
    except AssertionError as missing:
        told = "\n".join(map(str, bench.records(sent)))
        raise AssertionError(f"{missing}\n{told}\n{tail(bench.log, 40)}") from None
    assert tree is not None
    bench.settle_with("leaf")
    assert len(bench.records(sent)) == len(tree.records)
    tree.check()
    lines = [line for line in noted(bench)[before:] if not line[0].startswith("settle-")]
    starts = [(one.task_id, one.task) for one in tree.starts]
    assert Counter(lines) == Counter(one for one in starts if not one[1].startswith("celery."))
    return tree


def noted(bench: Bench) -> list[tuple[str, str]]:
    """Id and name of each execution that a task has noted."""
    if not bench.truth.exists():
        return []
    pairs = (line.split(" ") for line in bench.truth.read_text().splitlines())
    return [(task_id, name) for task_id, name in pairs]
