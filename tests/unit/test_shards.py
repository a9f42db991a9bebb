"""Shards: a manifest in disjoint parts, the same for everybody who reads the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.manifest import Manifest, Shard, read_manifest
from pytest_manifest.manifest.partition import Balance, entries_of, overlap


def manifest(folder: Path, after: Sequence[Sequence[int]]) -> Manifest:
    """Entries e0, e1, ..., each of which waits for the others at these places."""
    path = folder / "m.jsonl"
    rows = [
        {"id": f"e{place}", "task": "t", **({"after": [f"e{n}" for n in needed]} if needed else {})}
        for place, needed in enumerate(after)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_manifest(path)


def dealt(found: Manifest, total: int) -> list[list[str]]:
    """The entries of each shard, in the manifest's order."""
    shares = [entries_of(Shard(number, total), found) for number in range(1, total + 1)]
    return [[entry for entry in found.ids if entry in share] for share in shares]


def test_entries_are_dealt_out_one_by_one(tmp_path: Path) -> None:
    """Entry k is in shard k modulo n; some shards may be empty."""
    found = manifest(tmp_path, [()] * 5)
    assert dealt(found, 2) == [["e0", "e2", "e4"], ["e1", "e3"]]
    assert dealt(found, 1) == [list(found.ids)]
    assert dealt(found, 7) == [["e0"], ["e1"], ["e2"], ["e3"], ["e4"], [], []]


def test_what_waits_for_one_another_stays_together(tmp_path: Path) -> None:
    """A group counts once, where its first entry stands, whichever way its arrows point."""
    found = manifest(tmp_path, [(), (), (0,), (), (5,), (), (0,), (2, 6)])
    # e0-e2-e6-e7 are the first group, e1 the second, e3 the third, e4-e5 the fourth
    assert dealt(found, 3) == [["e0", "e2", "e4", "e5", "e6", "e7"], ["e1"], ["e3"]]


def test_a_key_that_is_written_with_escapes_is_seen(tmp_path: Path) -> None:
    """JSON may write 'after' otherwise; it is the same field."""
    path = tmp_path / "m.jsonl"
    lines = [
        '{"id": "a", "task": "t"}',
        '{"id": "b", "task": "t"}',
        '{"id": "c", "task": "t", "\\u0061fter": ["a"]}',
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert dealt(read_manifest(path), 2) == [["a", "c"], ["b"]]


@st.composite
def dependencies(draw: st.DrawFn) -> list[list[int]]:
    """For each entry the places of earlier ones that it waits for."""
    count = draw(st.integers(1, 30))
    sparse = st.integers(0, 3).map(lambda n: max(0, n - 1))
    after: list[list[int]] = [[]]
    for place in range(1, count):
        size = draw(sparse)
        needed = draw(st.lists(st.integers(0, place - 1), max_size=size, unique=True))
        after.append(needed)
    return after


@given(after=dependencies(), total=st.integers(1, 9))
def test_every_entry_is_in_exactly_one_shard(after: list[list[int]], total: int) -> None:
    """No entry is lost or doubled, nobody waits for an entry of another shard, and no shard has
    two groups more than another."""
    with TemporaryDirectory() as folder:
        shares = dealt(manifest(Path(folder), after), total)
    where = {entry: number for number, share in enumerate(shares) for entry in share}
    assert sum(map(len, shares)) == len(where) == len(after)
    for place, needed in enumerate(after):
        assert {where[f"e{n}"] for n in needed} <= {where[f"e{place}"]}
    sizes = [len(_groups(share, after)) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def _groups(share: Sequence[str], after: Sequence[Sequence[int]]) -> set[str]:
    """One name for each group of entries that hang together."""
    name: Mapping[str, set[str]] = {entry: {entry} for entry in share}
    for entry in share:
        for needed in after[int(entry[1:])]:
            group = name[entry] | name[f"e{needed}"]
            name = {**name, **dict.fromkeys(group, group)}
    return {min(group) for group in name.values()}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Shard(1, 8), Shard(2, 8), False),
        (Shard(1, 8), Shard(1, 8), True),
        (Shard(1, 8), Shard(2, 4), True),
        (None, Shard(1, 8), True),
        (Shard(1, 8), None, True),
        (None, None, True),
    ],
)
def test_only_shards_of_the_same_number_are_apart(
    one: Shard | None, other: Shard | None, expected: bool
) -> None:
    """Others may have entries in common."""
    assert overlap(one, other) is expected


def test_a_shard_in_words() -> None:
    """What is parsed is written as it was."""
    shard = Shard.parse(" 2/8 ")
    assert (str(shard), shard.words) == ("2/8", "shard 2 of 8")


def timed(seconds: Mapping[str, float], total: int, found: Manifest) -> list[list[str]]:
    """The entries of each shard that is balanced by these times, in the manifest's order."""
    balance = Balance.of("run", seconds)
    shares = [entries_of(Shard(number, total, balance), found) for number in range(1, total + 1)]
    return [[entry for entry in found.ids if entry in share] for share in shares]


def test_times_balance_the_shards(tmp_path: Path) -> None:
    """The long entry has a shard for itself; a new one is taken for as long as its task is."""
    found = manifest(tmp_path, [()] * 6)
    seconds = {"e0": 1.0, "e1": 1.0, "e2": 9.0, "e3": 1.0, "e4": 1.0}
    assert timed(seconds, 2, found) == [["e2"], ["e0", "e1", "e3", "e4", "e5"]]
    assert timed({}, 2, found) == [["e0", "e2", "e4"], ["e1", "e3", "e5"]]
    assert timed(dict.fromkeys(found.ids, 0.0), 3, found) == dealt(found, 3)


def test_a_new_entry_counts_as_its_task_does(tmp_path: Path) -> None:
    """A task's mean is for its entries without a time; a new task takes the overall one."""
    path = tmp_path / "m.jsonl"
    tasks = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c": "c"}
    path.write_text("".join(f'{{"id": "{k}", "task": "{t}"}}\n' for k, t in tasks.items()), "utf-8")
    # expected: a1 and a2 10, b1 and b2 2, c 6
    assert timed({"a1": 10.0, "b1": 2.0}, 2, read_manifest(path)) == [
        ["a1", "c"],
        ["a2", "b1", "b2"],
    ]


@given(
    after=dependencies(),
    total=st.integers(1, 9),
    times=st.lists(st.floats(0, 1e6), max_size=30),
)
def test_balanced_shards_are_parts_too(
    after: list[list[int]], total: int, times: list[float]
) -> None:
    """No entry is lost or doubled, nobody waits for another shard, and whoever reads a copy of
    the file and of the times gets the same parts."""
    seconds = {f"e{place}": time for place, time in enumerate(times)}
    with TemporaryDirectory() as folder:
        found = manifest(Path(folder), after)
        shares = timed(seconds, total, found)
    where = {entry: number for number, share in enumerate(shares) for entry in share}
    assert sum(map(len, shares)) == len(where) == len(after)
    for place, needed in enumerate(after):
        assert {where[f"e{n}"] for n in needed} <= {where[f"e{place}"]}
    assert shares == dealt_again(seconds, total, after)


def dealt_again(
    seconds: Mapping[str, float], total: int, after: Sequence[Sequence[int]]
) -> list[list[str]]:
    """The same from another copy of the file, with the times in another order."""
    with TemporaryDirectory() as folder:
        shuffled = dict(sorted(seconds.items(), reverse=True))
        return timed(shuffled, total, manifest(Path(folder), after))


def test_shards_by_other_times_may_overlap() -> None:
    """What a ledger notes is enough to tell them apart."""
    one, same = (Shard(n, 8, Balance.of("r1", {"e": 1.0})) for n in (1, 2))
    other = Shard(2, 8, Balance.of("r1", {"e": 2.0}))
    assert not overlap(one, same)
    assert overlap(one, other)
    assert overlap(one, Shard(2, 8))
    noted = Shard.from_note(one.note)
    assert noted == one
    assert (str(noted), noted.part) == ("1/8@r1", "1/8")
    assert noted.words == "shard 1 of 8 by the times of run r1"
    assert Shard.from_note("2/8") == Shard(2, 8)
