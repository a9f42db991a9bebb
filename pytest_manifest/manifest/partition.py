"""Divide a manifest into shards or groups, alike in every process that reads the same file."""

from __future__ import annotations

import re
from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from heapq import heapify, heapreplace
from itertools import chain, filterfalse, islice
from statistics import fmean as mean
from typing import Final

from typing_extensions import Self

from pytest_manifest.manifest.jsonl import id_and_task, is_remark
from pytest_manifest.manifest.reader import Manifest


@dataclass(frozen=True, slots=True)
class Balance:
    """The times by which shards are balanced: the seconds that entries took in an earlier run.

    ``digest`` identifies them; a ledger notes it and the run's id, not the times.
    """

    run: str = field(compare=False)
    digest: str
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, run: str, seconds: Mapping[str, float]) -> Self:
        """Return the balance by the times of this run."""
        text = "".join(f"{entry}\0{seconds[entry]!r}\n" for entry in sorted(seconds))
        return cls(run, sha256(text.encode()).hexdigest()[:16], seconds)


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``number``-th, from 1, of ``total`` parts of a manifest.

    The parts have the same number of entries, or with ``balance`` take about the same time.
    """

    number: int
    total: int
    balance: Balance | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a shard like ``2/8``; raise ValueError that says what to write instead."""
        match = re.fullmatch(r"\s*(\d{1,9})/(\d{1,9})\s*", text, re.ASCII)
        if match is None:
            raise ValueError("write it as K/N, like 2/8 for the second of eight parts")
        number, total = int(match[1]), int(match[2])
        if total < 1:
            raise ValueError("a manifest has at least one part; write it as K/N, like 2/8")
        if not 1 <= number <= total:
            raise ValueError(f"the parts are counted from 1; write 1/{total} to {total}/{total}")
        return cls(number, total)

    @classmethod
    def from_note(cls, note: str) -> Self:
        """Read back what :attr:`note` has written; raise ValueError where it is something else."""
        text, _, balance = note.partition("@")
        shard = cls.parse(text)
        run, _, digest = balance.rpartition("#")
        return replace(shard, balance=Balance(run, digest)) if balance else shard

    @property
    def note(self) -> str:
        """Return the text that a ledger keeps: ``2/8``, or ``2/8@RUN#DIGEST``."""
        return str(self) if self.balance is None else f"{self}#{self.balance.digest}"

    def __str__(self) -> str:
        return self.part if self.balance is None else f"{self.part}@{self.balance.run}"

    @property
    def part(self) -> str:
        """Return which part it is, like ``2/8``."""
        return f"{self.number}/{self.total}"

    @property
    def words(self) -> str:
        """Return words like ``shard 2 of 8``."""
        words = f"shard {self.number} of {self.total}"
        return words if self.balance is None else f"{words} by the times of run {self.balance.run}"


def overlap(one: Shard | None, other: Shard | None) -> bool:
    """Return whether two parts of one manifest can share an entry; None is the whole manifest."""
    if one is None or other is None:
        return True
    if (one.total, one.balance) != (other.total, other.balance):
        return True
    return one.number == other.number


def entries_of(shard: Shard, manifest: Manifest) -> frozenset[str]:
    """Return the ids of the shard's entries.

    Entries that depend on one another (``after``, directly or not) go to one shard together. Such
    groups, and the other entries one by one, are dealt out in turn, in the file's order of first
    entries; with a balance the longest first, each to the shard that has least to do.
    """
    first = _groups(manifest)
    # Where nothing weighs anything, each shard has its turn.
    weights = array("d", bytes(8 * len(first)))
    if shard.balance is not None:
        weights = _weights(manifest, shard.balance.seconds)
    turns = _by_weight(first, weights, shard.total)
    mine = shard.number - 1
    return frozenset(
        entry for entry, root in zip(manifest.ids, first, strict=True) if turns[root] == mine
    )


def _by_weight(first: Sequence[int], weights: Sequence[float], total: int) -> array[int]:
    """Return, for the first entry of each group, the shard (from 0) that has least to do then.

    Groups come by their weight, the heaviest first. Of shards with equally much to do the one with
    fewer groups gets the next, so that entries that take no time are spread too.
    """
    sums = array("d", bytes(8 * len(first)))
    for position, root in enumerate(first):
        sums[root] += weights[position]
    roots = [position for position, root in enumerate(first) if root == position]
    roots.sort(key=lambda root: (-sums[root], root))
    turns = array("Q", bytes(8 * len(first)))
    shards = [(0.0, 0, number) for number in range(total)]
    heapify(shards)
    for root in roots:
        load, groups, number = shards[0]
        turns[root] = number
        heapreplace(shards, (load + sums[root], groups + 1, number))
    return turns


def _weights(manifest: Manifest, seconds: Mapping[str, float]) -> array[float]:
    """Return the seconds that each entry is expected to take, in the file's order.

    An entry without a time of its own is expected to take what its task takes on average, and a
    task without a time what all tasks take.
    """
    tasks = manifest.tasks
    own = [seconds.get(entry) for entry in manifest.ids]
    known: dict[str, list[float]] = {}
    for task, time in zip(tasks, own, strict=True):
        if time is not None:
            known.setdefault(task, []).append(time)
    other = mean(chain.from_iterable(known.values())) if known else 1.0
    usual = {task: mean(times) for task, times in known.items()}
    expected = (
        usual.get(task, other) if time is None else time
        for task, time in zip(tasks, own, strict=True)
    )
    return array("d", expected)


def _groups(manifest: Manifest) -> array[int]:
    """Return, for each position, that of the first entry it is connected with by ``after``.

    An entry without dependencies and dependants has its own position.
    """
    first = array("Q", range(len(manifest)))

    def root(position: int) -> int:
        while first[position] != position:
            first[position] = first[first[position]]
            position = first[position]
        return position

    for position, needed in manifest.dependencies():
        one, other = root(position), root(needed)
        first[max(one, other)] = min(one, other)
    for position in range(len(first)):
        first[position] = root(position)
    return first


_DIGITS: Final = 5
"""Digits of an entry's number in a group's name, at least."""
_SMALL_FILE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class GroupRule:
    """The rule that groups entries: ``size`` neighbours each, or (None) all of one task."""

    size: int | None = None

    def __str__(self) -> str:
        return "task" if self.size is None else f"chunk:{self.size}"


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` entries, the first of them on the line ``line`` (from 1); ``offsets``: where in the
    file their lines begin, of neighbours the first one's."""

    name: str
    count: int
    line: int
    offsets: array[int]


class Groups:
    """The groups of a manifest that was checked, in the file's order.

    They keep 4 bytes for each line that begins a group, or that stands after one of another group
    (8 in a file of more than 4 GiB); ids are read from the file. With a ``share`` of the entries,
    groups have, and count, those of the share alone; a group without any is none. ``mark`` follows
    their names: another share of the same group is another group.
    """

    def __init__(
        self,
        manifest: Manifest,
        rule: GroupRule,
        share: Container[str] | None = None,
        mark: str = "",
    ) -> None:
        self.manifest = manifest
        self.rule = rule
        self._share = share
        self._mark = mark
        made = _by_task(manifest) if rule.size is None else _by_number(manifest, rule.size)
        self._whole: Mapping[str, Group] = {group.name: group for group in made}
        self._groups = self._whole if share is None else dict(self._shared())

    def _shared(self) -> Iterator[tuple[str, Group]]:
        for name, group in self._whole.items():
            marked = name + self._mark
            count = sum(1 for _ in self.ids(marked))
            if count:
                yield marked, replace(group, name=marked, count=count)

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    def ids(self, name: str) -> Iterator[str]:
        """Yield the ids of a group's entries, in the file's order.

        Raises ManifestError where the file was changed meanwhile.
        """
        name = name.removesuffix(self._mark)
        group, size, share = self._whole[name], self.rule.size, self._share
        left = group.count
        with self.manifest.open() as file:
            for offset in group.offsets:
                file.seek(offset)
                for raw in filterfalse(is_remark, file):
                    entry_id, task = id_and_task(raw)
                    if not left or (size is None and task != name):
                        break
                    left -= 1
                    if share is None or entry_id in share:
                        yield entry_id

    @cached_property
    def owners(self) -> array[int]:
        """Return, for each entry in the file's order, the number of its group; 4 bytes an entry.

        The number of an entry outside the share has no meaning.
        """
        mark = self._mark
        numbers = {name.removesuffix(mark): number for number, name in enumerate(self._groups)}
        if self.rule.size is not None:
            size = self.rule.size
            by_place = [numbers.get(name, 0) for name in self._whole]
            return array("I", (by_place[n // size] for n in range(len(self.manifest))))
        lines = self.manifest.lines()
        return array("I", (numbers.get(id_and_task(line.raw)[1], 0) for line in lines))


def _by_number(manifest: Manifest, size: int) -> Iterator[Group]:
    """Divide the entries by number; a group is named after its first and last: ``00001-01000``."""
    total = len(manifest)
    digits = max(_DIGITS, len(str(total)))
    starts = islice(manifest.lines(), 0, None, size)
    for first, line in zip(range(0, total, size), starts, strict=True):
        count = min(size, total - first)
        name = f"{first + 1:0{digits}}-{first + count:0{digits}}"
        yield Group(name, count, line.number, array("Q", [line.offset]))


def _by_task(manifest: Manifest) -> Iterator[Group]:
    """Yield the groups of entries by task, named after it, in order of their first entries."""
    kind = "I" if manifest.summary.size < _SMALL_FILE else "Q"
    counts: dict[str, int] = {}
    lines: dict[str, int] = {}
    offsets: dict[str, array[int]] = {}
    before: str | None = None
    for number, offset, raw in manifest.lines():
        _, task = id_and_task(raw)
        lines.setdefault(task, number)
        if task != before:
            offsets.setdefault(task, array(kind)).append(offset)
            before = task
        counts[task] = counts.get(task, 0) + 1
    return (Group(task, count, lines[task], offsets[task]) for task, count in counts.items())
