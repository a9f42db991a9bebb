"""What is yet to be sent: in order, in few bytes, and the same as if it were all held."""

from __future__ import annotations

import tracemalloc
from array import array
from collections import deque
from pathlib import Path
from typing import Any, SupportsIndex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.manifest import Manifest, read_manifest, write_manifest
from pytest_manifest.run.send_queue import (
    AT_ONCE,
    FirstAttempts,
    KeyLimits,
    SendQueue,
    dependents,
    without,
)
from pytest_manifest.schema import Entry, Header

RUN = "20261124T150000-0a1b2c3d"
COUNT = 2 * AT_ONCE + 3


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    entries = [Entry(id=f"e-{n}", task=f"t{n % 3}", args=[n]) for n in range(COUNT)]
    return write_manifest(tmp_path / "m.jsonl", Header(), entries)


def held(manifest: Manifest, places: array[int]) -> list[Attempt]:
    """The same attempts as objects."""
    entries = list(manifest)
    return [attempt_of(RUN, entries[place], 1, place) for place in places]


@pytest.mark.parametrize("step", [1, 7])
def test_attempts_are_read_when_they_are_asked_for(manifest: Manifest, step: int) -> None:
    """One by one, all in a row, some, and their names alone."""
    places = array("I", range(0, COUNT, step))
    read, expected = FirstAttempts(RUN, manifest, places), held(manifest, places)
    assert len(read) == len(expected)
    assert list(read) == expected
    assert [read[index] for index in range(len(read))] == expected
    assert [read[5], read[2], read[len(read) - 1]] == [expected[5], expected[2], expected[-1]]
    assert read[3:9] == expected[3:9]
    assert list(read.names()) == [(one.task_id, one.entry.id) for one in expected]
    done = {one.entry.id for one in expected[::2]}
    assert list(without(read, done)) == list(without(expected, done)) == expected[1::2]


def test_those_that_wait_are_found_without_parsing_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its index among those that are to be sent."""
    entries = [Entry(id="e-0", task="t"), Entry(id="e-1", task="t", args=['"after"'])]
    entries += [Entry(id=f"e-{n}", task="t", after=[f"e-{n - 2}"]) for n in range(2, 5)]
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), entries)
    parsed: list[str] = []
    parse = Manifest.parse

    def counted(self: Manifest, raw: bytes) -> Entry:
        parsed.append(parse(self, raw).id)
        return parse(self, raw)

    monkeypatch.setattr(Manifest, "parse", counted)
    read = FirstAttempts(RUN, manifest, array("I", [0, 1, 2, 4]))
    found = list(dependents(read))
    assert parsed == ["e-2", "e-4"]
    assert found == list(dependents(list(read)))
    assert [(index, one.entry.id) for index, one in found] == [(2, "e-2"), (3, "e-4")]


def test_what_is_read_is_not_kept(manifest: Manifest) -> None:
    """However many are asked for, those of one reading are there, and no more."""
    lean = read_manifest(manifest.path)
    read = FirstAttempts(RUN, lean, array("I", range(COUNT)))
    assert read[0].entry.id == "e-0"
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for index in range(COUNT):
        read[index]
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one = (kept - before) / COUNT
    assert one < 200, one  # an attempt with its entry takes some 3,000 bytes


def test_the_next_one_is_looked_at_and_stays(manifest: Manifest) -> None:
    """Be it one that was put there, or one that is read."""
    read = FirstAttempts(RUN, manifest, array("I", range(2)))
    again = attempt_of(RUN, Entry(id="e-0", task="t"), 2)
    queue = SendQueue(read, range(2))
    queue.appendleft(again)
    for expected in (again, *read):
        assert queue.next_sendable() == expected
        assert queue.popleft() == expected
    assert queue.next_sendable() is None


def numbered(*names: str, key: str = "") -> list[Attempt]:
    """Attempts of these entries, all of one tenant where a key is given."""
    keys = {"tenant": key} if key else {}
    return [attempt_of(RUN, Entry(id=name, task="t", key=keys), 1) for name in names]


@pytest.mark.parametrize("key", ["", "a"])
def test_what_is_put_before_and_behind_keeps_its_place(key: str) -> None:
    """Also what is put back twice; what was taken is none that can be removed."""
    known = numbered("e-0", "e-1", key=key)
    left, lefter, right, righter = numbered("l", "ll", "r", "rr", key=key)
    queue = SendQueue(known, range(2), KeyLimits({"tenant": 9}) if key else None)
    queue.append(right)
    queue.append(righter)
    queue.appendleft(left)
    queue.appendleft(lefter)
    assert list(queue) == [lefter, left, *known, right, righter]
    assert [queue.popleft(), queue.popleft()] == [lefter, left]
    assert queue.remove({left.task_id, right.task_id}) == [right]
    assert list(queue) == [*known, righter]


@pytest.mark.parametrize("by_keys", [False, True])
@pytest.mark.parametrize("lean", [False, True])
def test_what_is_dropped_is_never_sent(manifest: Manifest, *, lean: bool, by_keys: bool) -> None:
    """Of whatever lane, also what was put back or added; the others keep their places."""
    places = array("I", range(6))
    known = FirstAttempts(RUN, manifest, places) if lean else held(manifest, places)
    queue = SendQueue(known, range(6), KeyLimits({"tenant": 9}) if by_keys else None)
    first = queue.popleft()
    left, right, later = numbered("left") + numbered("e-3", "right", key="a")
    queue.appendleft(first)
    queue.appendleft(left)
    queue.append(right)
    queue.append(later)
    gone = queue.drop({"e-0", "e-1", "e-3", "e-4", "nobody"})
    assert sorted(one.task_id for one in gone) == sorted(
        one.task_id for one in (first, known[1], known[3], known[4], right)
    )
    assert list(queue) == [left, known[2], known[5], later]
    assert queue.drop({"e-0", "e-3"}) == []
    assert queue.remove({one.task_id for one in (left, right)}) == [left]
    assert [queue.popleft() for _ in range(3)] == [known[2], known[5], later]
    assert not queue


def test_a_lane_whose_first_is_dropped_goes_by_its_next() -> None:
    """It would stand still else, with others whose keys have room."""
    queue = SendQueue(numbered("a", "b", "c", key="x"), range(3), KeyLimits({"tenant": 9}))
    assert [one.entry.id for one in queue.drop({"a"})] == ["a"]
    assert [queue.popleft().entry.id for _ in range(2)] == ["b", "c"]
    assert queue.drop({"a", "b", "c"}) == []


class Counted(list[Attempt]):
    """Attempts that note what is read of them, and in which way."""

    asked: list[object]

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        """Return it, or them."""
        self.asked.append(index)
        return super().__getitem__(index)


def test_of_lanes_that_jump_each_entry_is_read_alone_and_once() -> None:
    """Attempts on disk read ahead where one is asked for by its number: where all go in a row."""
    known = Counted(numbered("e-0", "e-1", key="a"))
    known.asked = []
    for limits, ways in (
        (None, [0, 0, 1, 1]),
        (KeyLimits({"tenant": 9}), [slice(0, 1), slice(1, 2)]),
    ):
        queue = SendQueue(known, range(2), limits)
        known.asked.clear()
        for _ in range(2):
            assert queue.next_sendable() == queue.popleft()
        assert known.asked == ways
    with pytest.raises(IndexError, match=r"^no key has room$"):
        queue.popleft()


STEP = st.one_of(
    st.just("pop"), st.just("left"), st.just("right"), st.tuples(st.just("out"), st.integers(0, 3))
)


@example(size=0, steps=["right", "right", "pop", "left", "left", ("out", 3)], by_keys=True)
@given(st.integers(0, 6), st.lists(STEP, max_size=30), st.booleans())
def test_a_queue_is_a_queue(size: int, steps: list[object], by_keys: bool) -> None:
    """Whatever is put where: as a deque of all attempts would have it, also where keys count."""
    known = [attempt_of(RUN, Entry(id=f"e-{n}", task="t"), 1) for n in range(10)]
    new = iter(attempt_of(RUN, Entry(id=f"n-{n}", task="t"), 2) for n in range(100))
    limits = KeyLimits({"tenant": 1}) if by_keys else None  # which no entry has
    queue = SendQueue(known, range(size), limits)
    expected = deque(known[:size])
    for step in steps:
        if step == "pop" and expected:
            assert queue.next_sendable() is expected[0]
            assert queue.popleft() is expected.popleft()
        elif step == "left":
            expected.appendleft(next(new))
            queue.appendleft(expected[0])
        elif step == "right":
            expected.append(next(new))
            queue.append(expected[-1])
        elif isinstance(step, tuple):
            gone = [one for one in list(expected)[: step[1] : 2] if one not in known]
            removed = queue.remove({one.task_id for one in (*gone, *known)})
            assert sorted(one.entry.id for one in removed) == sorted(one.entry.id for one in gone)
            expected = deque(attempt for attempt in expected if attempt not in gone)
        assert list(queue) == list(expected)
        assert bool(queue) == bool(expected)
    queue.clear()
    assert not queue
    assert queue.next_sendable() is None
