"""What workers tell of the tasks that a manifest's jobs start, in every way that Celery has."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.live.apps.tree_support import Tree, grown
from tests.live.apps.worker_support import INCLUDE, Bench, Flavour, bench_of

pytestmark = pytest.mark.live

TREES = "tests.live.apps.worker_trees"
POOLS = [
    Flavour("prefork", TREES, (*INCLUDE, "-c", "2")),
    Flavour("threads", TREES, (*INCLUDE, "--pool=threads", "-c", "2")),
    Flavour("solo", TREES, (*INCLUDE, "--pool=solo")),
]
bench = bench_of(POOLS, pytest.mark.ring(1))


Hows = dict[tuple[str, str], int]


@pytest.mark.parametrize(
    ("task", "args", "hows"),
    [
        ("leaf", (), {}),
        ("loop", (3,), {("leaf", "call"): 3}),
        ("grouped", (3,), {("leaf", "group"): 3}),
        ("chained", (3,), {("leaf", "call"): 1, ("leaf", "chain"): 2}),
        (
            "chain_of_groups",
            (2,),
            {("leaf", "call"): 1, ("leaf", "chord"): 4, ("total", "chord_body"): 2},
        ),
        ("chorded", (3,), {("leaf", "chord"): 3, ("total", "chord_body"): 1}),
        ("nested_chords", (2,), {("leaf", "chord"): 4, ("total", "chord_body"): 3}),
        (
            "chord_then_chain",
            (2,),
            {("leaf", "chord"): 2, ("total", "chord_body"): 1, ("leaf", "chain"): 2},
        ),
        ("chord_then_group", (2,), {("leaf", "chord"): 2, ("total", "chord_body"): 3}),
        (
            "chord_of_chains",
            (2,),
            {("leaf", "call"): 2, ("leaf", "chain"): 2, ("total", "chord_body"): 1},
        ),
        ("linked", (), {("leaf", "call"): 1, ("leaf", "link"): 2}),
        ("chunked", (5,), {("celery.starmap", "group"): 3}),
        ("starmapped", (5,), {("celery.starmap", "call"): 1}),
        ("with_retries", (), {("second_try", "call"): 1}),
        ("retrying_parent", (), {("leaf", "call"): 2}),
        ("deep", (3,), {("deep", "call"): 3}),
        ("by_threads", (3,), {("leaf", "call"): 3}),
        ("by_executor", (3,), {("leaf", "call"): 3}),
        ("by_shared_executor", (3,), {("leaf", "call"): 3}),
        ("handing_headers_on", (), {("leaf", "call"): 1}),
    ],
)
def test_a_tree_is_told(bench: Bench, task: str, args: tuple[int, ...], hows: Hows) -> None:
    """Each task once, by how it was started, and all of them succeed."""
    tree = grown(bench, task, *args)
    assert tree.hows() == Counter(hows)
    assert tree.states() == {"succeeded": 1 + sum(hows.values())}
    assert tree.unsent() == set()


def test_children_know_their_queue(bench: Bench) -> None:
    """As far as the message says."""
    tree = grown(bench, "loop", 1)
    tree_of_group = grown(bench, "grouped", 2)
    children = [*tree.spawned.values(), *tree_of_group.spawned.values()]
    assert [one.child.queue for one in children] == [bench.queue] * 3


@pytest.mark.parametrize(
    ("task", "hows"),
    [
        ("replaced_by_task", {}),
        ("replaced_by_chain", {("leaf", "replace"): 1, ("leaf", "chain"): 1}),
        ("replaced_by_group", {("leaf", "replace"): 3}),
        ("replaced_by_chord", {("leaf", "replace"): 3}),
    ],
)
def test_a_replaced_root(bench: Bench, task: str, hows: Hows) -> None:
    """The job itself goes on under its own id; what helps it are its children."""
    tree = grown(bench, task)
    assert tree.hows() == Counter(hows)
    assert tree.ends[tree.root].receipt["replaced"] is True
    assert tree.announced == {}


@pytest.mark.parametrize("how", ["task", "chain", "group", "chord"])
def test_a_replaced_descendant(bench: Bench, how: str) -> None:
    """In the middle of a chain, which goes on after it."""
    tree = grown(bench, "replaced_below", how)
    replaced = [one for one in tree.spawned.values() if one.child.task == f"replaced_by_{how}"]
    assert [one.child.how for one in replaced] == ["chain"]
    end = tree.ends[replaced[0].child.task_id]
    assert (end.receipt["state"], end.receipt["replaced"]) == ("succeeded", True)
    last = [one for one in tree.spawned.values() if one.record.parent == replaced[0].child.task_id]
    assert ("leaf", "chain") in [(one.child.task, one.child.how) for one in last]


def test_a_chord_with_a_failing_member(bench: Bench) -> None:
    """Its body is off, and its errback, which the last member sends, is announced."""
    tree = grown(bench, "failing_chord", 2)
    assert tree.hows() == Counter(
        {("leaf", "chord"): 2, ("boom", "chord"): 1, ("told_by_id", "errback"): 1}
    )
    assert {one.how: one.is_off for one in tree.announced.values()} == {
        "chord_body": True,
        "errback": False,
    }


def test_a_chord_in_a_chord_with_a_failing_member(bench: Bench) -> None:
    """Neither body is sent."""
    tree = grown(bench, "nested_failing_chord", 2)
    assert tree.hows() == Counter({("leaf", "chord"): 3, ("boom", "chord"): 1})
    assert [one.is_off for one in tree.announced.values()] == [True, True]


def test_a_member_of_a_chord_that_is_replaced_by_a_chord(bench: Bench) -> None:
    """The body of the latter is the member, under its own id."""
    tree = grown(bench, "chord_of_replaced", 2)
    assert tree.states() == {"succeeded": 8}
    replaced = [one for one in tree.spawned.values() if one.child.task == "replaced_by_chord"]
    assert tree.ends[replaced[0].child.task_id].receipt["result"] == 3


def test_a_chord_of_chains_with_one_that_fails(bench: Bench) -> None:
    """The member that never runs is the chain's last; its chord is off all the same."""
    tree = grown(bench, "chord_of_failing_chains", 2)
    assert tree.hows() == Counter({("leaf", "chord"): 2, ("boom", "call"): 1})
    assert [one.is_off for one in tree.announced.values()] == [True]


@pytest.mark.parametrize(("task", "errbacks"), [("errback_by_id", 2), ("errback_in_place", 0)])
def test_errbacks(bench: Bench, task: str, errbacks: int) -> None:
    """Those that Celery sends are announced with the failure; others run within it."""
    check_errbacks(grown(bench, task), "boom", errbacks)


@pytest.mark.parametrize("bench", POOLS[:1], ids=["prefork"], indirect=True)
def test_errbacks_of_a_task_that_ends_its_process(bench: Bench) -> None:
    """The worker's main process sends them; in other pools the worker ends with the task."""
    check_errbacks(grown(bench, "errback_of_dying"), "dying", 1)


def check_errbacks(tree: Tree, failed: str, errbacks: int) -> None:
    expected = Counter({(failed, "call"): 1, ("told_by_id", "errback"): errbacks})
    assert tree.hows() == +expected
    assert [one.count for one in tree.announced.values()] == [errbacks] * bool(errbacks)


@pytest.mark.parametrize("bench", POOLS[:2], ids=["prefork", "threads"], indirect=True)
def test_a_task_that_waits_for_its_children(bench: Bench) -> None:
    """It gets their results as ever; a solo worker could not run them meanwhile."""
    tree = grown(bench, "joining", 3)
    assert tree.hows() == {("leaf", "call"): 3}
    assert tree.ends[tree.root].receipt["result"] == 3


@pytest.mark.ring(2)
def test_a_message_that_no_broker_took(bench: Bench) -> None:
    """Its task was told of before; the end of its parent says that it was not sent."""
    tree = grown(bench, "unsent")
    assert tree.hows() == {("leaf", "call"): 2}
    (missing,) = tree.ends[tree.root].unsent
    assert missing in tree.spawned
    assert missing not in tree.ends


def test_a_job_that_is_not_asked_for_its_tree(bench: Bench) -> None:
    """Of a dispatcher that knows nothing of it: nothing is told, and children run as ever."""
    sent = bench.send("loop", 2)
    assert bench.receipt(sent).children is None
    bench.settle_with("leaf")
    assert Tree(sent.task_id, bench.records(sent)).spawned == {}


@pytest.mark.ring(2)
def test_no_warnings_of_our_own(bench: Bench) -> None:
    """Nothing of all that makes a signal handler of ours fail."""
    bench.settle_with("leaf")
    log = bench.log.read_text()
    assert "Signal handler" not in log
    assert "could not be" not in log
    assert "one by one" not in log
