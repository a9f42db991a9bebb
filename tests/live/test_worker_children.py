"""What workers tell of each task that another one starts, beside that it is started."""

from __future__ import annotations

import pytest

from pytest_manifest.results.records import Child
from tests.live.apps.tree_support import Tree, grown, plant
from tests.live.apps.worker_support import SECONDS, Bench, bench_of
from tests.live.test_worker_descendants import POOLS
from tests.support import eventually

pytestmark = pytest.mark.live
bench = bench_of(POOLS, pytest.mark.ring(1))


def children(tree: Tree) -> list[Child]:
    return [one.child for one in tree.spawned.values()]


def test_children_know_the_chords_that_wait_for_them(bench: Bench) -> None:
    """A member of an inner one its own and the outer one; a chain's first what its last is of."""
    nested = grown(bench, "nested_chords", 2)
    keys = set(nested.announced)
    told = {frozenset(one.chords or ()) for one in children(nested)}
    [outer] = [one for one in told if len(one) == 1]
    assert told == {frozenset(), outer, *(outer | {key} for key in keys - outer)}
    chains = grown(bench, "chord_of_chains", 2)
    [key] = chains.announced
    of_task = {(one.task, one.chords) for one in children(chains)}
    assert of_task == {("leaf", (key,)), ("total", ())}


def test_children_know_when_they_may_start(bench: Bench) -> None:
    """Those with a countdown, of a group, too."""
    tree = grown(bench, "delaying", 1.5)
    for one in tree.spawned.values():
        assert one.child.due is not None
        assert one.record.spawned_at is not None
        assert 0 < (one.child.due - one.record.spawned_at).total_seconds() < 2
    assert [one.due for one in children(grown(bench, "loop", 1))] == [None]


def test_a_task_that_went_to_another_broker_is_told_with_it(bench: Bench) -> None:
    """Another app with the same broker is no other broker."""
    sent = plant(bench, "to_other_apps")

    def look() -> Tree | None:
        tree = Tree(sent.task_id, bench.records(sent))
        return tree if len(tree.ends) > 1 else None

    tree = eventually(look, within=SECONDS, what="the ends of the root and of its child")
    assert tree is not None
    first, second = tree.spawned
    assert tree.ends[tree.root].elsewhere == {first: "memory://localhost//"}
    assert second in tree.ends
