"""What an entry's verdict takes of the tasks that its job has started, and they of one another."""

from __future__ import annotations

import pytest

from pytest_manifest.schema.facts import Started
from pytest_manifest.verdict.tree import ByDescendant, Tree
from tests.unit.judge_world import (
    FINISHES,
    Step,
    World,
    about,
    an_entry,
    announced,
    child_ended,
    closed,
    elsewhere,
    ended,
    gone,
    handed_on,
    later,
    nowhere,
    of_root,
    passed_with,
    placeholder,
    play,
    search,
    sent,
    several,
    spawned,
    started,
    stored,
    time_over,
    unreadable,
    unsent,
)


def status(*steps: Step) -> str:
    """Return what an entry comes to, of which each descendant is only to end, however."""
    return play(passed_with(*steps), FINISHES).judge().status


def member(name: str, *end: Step, chords: tuple[str, ...] | None = ("k",)) -> Step:
    """Start a member of a chord, and have it come to an end."""
    return several(spawned(name, chords=chords), *end)


BODY = several(announced("k"), placeholder("b", "k", "chord_body"), nowhere())
LOST = nowhere()
CRASHED = several(started("y"), gone("y"), nowhere())
LATE = several(started("y"), time_over())


@pytest.mark.parametrize(
    ("members", "is_sent"),
    [
        ([], True),
        ([member("c", started("y"), ended("succeeded", "y"))], True),
        ([member("c", started("y"), ended("failed", "y"))], True),
        ([member("c", CRASHED)], False),
        ([member("c", unsent(), LOST)], False),
        ([member("c", CRASHED, chords=("other",))], True),
        ([member("c", CRASHED, chords=("other", "k"))], False),
        ([member("c", CRASHED, chords=None)], False),
        ([member("c", unsent(), LOST, chords=None)], True),
        ([member("c", started("y"), ended("failed", "y"), chords=None)], True),
        ([member("c", CRASHED, chords=()), member("d", CRASHED)], False),
    ],
)
def test_a_body_is_lost_where_its_chord_was_complete(members: list[Step], is_sent: bool) -> None:
    """Celery sends none where a member was not sent, or has no end that some worker stored."""
    assert status(*members, BODY) == ("lost" if is_sent else "passed")


@pytest.mark.parametrize(
    ("member_end", "comes_to"),
    [(LATE, "timed_out"), (several(unreadable(), nowhere()), "unknown"), (LOST, "lost")],
)
def test_what_is_worse_than_a_body_that_never_comes(member_end: Step, comes_to: str) -> None:
    """A member whose end nobody has reported is why, and no body is asked for then."""
    world = play(passed_with(member("c", member_end), BODY), FINISHES)
    reason = world.judge().finding.reason
    assert isinstance(reason, ByDescendant)
    assert (reason.ended, reason.task_id, reason.more) == (comes_to, "c", 0)


def split(*parts: Step) -> Step:
    """Start a task that hands its job on to others, and has no end of its own."""
    own = several(spawned("c", "tasks.split"), started("y"), handed_on("canvas", "y"))
    return several(own, *parts, about("c"), search(), nowhere())


@pytest.mark.parametrize(
    ("parts", "comes_to"),
    [
        ([child_ended("d"), child_ended("e", "failed")], "passed"),
        ([child_ended("d")], "lost"),
        ([several(spawned("d"), unreadable(), nowhere())], "lost"),
        ([child_ended("d", "revoked")], "passed"),
    ],
)
def test_a_task_that_was_split_ends_as_its_failed_part(parts: list[Step], comes_to: str) -> None:
    """Where none has failed, it is what became of its own message."""
    assert status(split(*parts)) == comes_to


def test_a_split_task_that_ended_itself_is_judged_by_its_end() -> None:
    """The last of the parts has its id, and is its end."""
    last = several(about("c"), started("z", hop=1), ended("succeeded", "z", replaced=True))
    steps = several(
        spawned("c"), started("y"), handed_on("canvas", "y"), child_ended("d", "failed")
    )
    assert status(steps, last) == "passed"


def test_what_was_handed_on_is_named_after_its_parts() -> None:
    """Also once the last of them has run under its id: what these did comes before it."""
    last = several(about("c"), started("z", hop=1), ended("failed", "z", replaced=True))
    own = several(spawned("c"), started("y"), handed_on("canvas", "y"))
    found = play(passed_with(own, later(1), child_ended("d", "failed"), last)).judge().finding
    assert isinstance(found.reason, ByDescendant)
    assert (found.reason.task_id, found.reason.more) == ("d", 1)


def test_the_first_that_failed_is_named_and_the_others_counted() -> None:
    """With what started it; what was split, and what was never sent, come last."""
    steps = [
        *(later(1), child_ended("d", "failed"), child_ended("e", parent="d")),
        *(later(1), child_ended("f", "failed", parent="e"), child_ended("a", "failed")),
        split(child_ended("g", "failed")),
        several(spawned("h"), unsent(), nowhere()),
    ]
    found = play(passed_with(*steps)).judge().finding
    reason = found.reason
    assert isinstance(reason, ByDescendant)
    named = reason.task_id, reason.task, reason.parent, reason.more, reason.total
    assert named == ("d", "tasks.part", "tasks.work", 4, 6)
    assert [(one.path, one.actual) for one in found.mismatches] == [
        ("descendants", "5 of 6 did not succeed"),
        ("descendant.state", "failed"),
    ]


def test_a_descendant_of_a_descendant_is_named_with_its_parents_task() -> None:
    """Not with its parent's id."""
    found = play(passed_with(child_ended("c"), child_ended("d", "failed", parent="c"))).judge()
    assert getattr(found.finding.reason, "parent", "") == "tasks.part"


@pytest.mark.parametrize("state", ["failed", "crashed", "revoked", "expired", "rejected"])
def test_each_end_is_an_end(state: str) -> None:
    """Where ends are all that is expected, it does not matter which."""
    steps = several(spawned("c"), ended(state, "y", pid=None, started_at=None))
    begun = several(spawned("c"), started("y"), ended(state, "y"))
    assert status(steps if state in ("revoked", "expired", "rejected") else begun) == "passed"


def test_the_end_of_a_try_is_no_end_of_a_descendant() -> None:
    """Its next try is still to come as its time is over: where ends are expected, it has none."""
    tried = several(spawned("c"), started("y"), handed_on("retry", "y"))
    assert status(tried, ended("crashed", "y", cpu=None), time_over("deadline")) == "timed_out"


def test_what_is_known_of_a_tree_changes_with_what_is_added() -> None:
    """A descendant is judged again and again, and counted once."""
    world = play([sent(), started(), announced("k", number=2), spawned("c", fulfils="k")])
    tree, of = Tree(world.root), world.attempts()[0].tree
    assert of is not None
    assert (of.is_complete(), of.open_ones, of.missing_keys()) == (False, 2, ["k"])
    assert (tree.is_complete(), bool(tree), bool(of)) == (True, False, True)
    more = several(about("c"), started("y"), ended("succeeded", "y"), child_ended("d", fulfils="k"))
    more(world)
    again = world.attempts()[0].tree
    assert again is not None
    assert (again.is_complete(), again.open_ones, again.missing_since()) == (True, 0, None)


def test_a_descendant_that_is_judged_again_is_one() -> None:
    """It may be open first, and have an end then."""
    world = play([sent(), started(), spawned("c")])
    tree = world.attempts()[0].tree
    assert tree is not None
    assert tree.open_ones == 1
    several(started("y"), ended("succeeded", "y"))(world)
    ended_tree = world.attempts()[0].tree
    assert ended_tree is not None
    for one in ended_tree.ends():
        tree.add(one)
        tree.add(one)
    assert (tree.open_ones, tree.is_complete(), len(tree.ends())) == (0, True, 1)


def fulfilled(name: str) -> Step:
    return child_ended(name, fulfils="k")


@pytest.mark.parametrize(
    ("steps", "is_open"),
    [
        ([announced("k", task_ids=("b", "c"), number=2), child_ended("b")], True),
        (
            [announced("k", task_ids=("b", "c"), number=2), child_ended("b"), child_ended("c")],
            False,
        ),
        ([announced("k", number=2, task_ids=("b",)), fulfilled("b")], True),
        (
            [
                announced("k", number=2, task_ids=("b",)),
                *(child_ended(n, fulfils="k") for n in "bc"),
            ],
            False,
        ),
        ([announced("k"), announced("k", number=2), fulfilled("b")], True),
        ([announced("k"), closed("k")], False),
        ([announced("k"), closed("other")], True),
        ([announced("k"), announced("k", is_off=True), announced("j")], True),
    ],
)
def test_what_is_announced_is_waited_for(steps: list[Step], is_open: bool) -> None:
    """Until as much is known as was announced under a key, or that no more comes."""
    found = play(passed_with(*steps)).judge()
    assert (found.status == "pending") is is_open


@pytest.mark.parametrize(
    ("expect", "number", "differs"),
    [
        ({"count": 2}, 2, []),
        ({"count": 2}, 1, [("descendants.count", "2", "1")]),
        ({"count": {"min": 2}}, 2, []),
        ({"count": {"min": 2}}, 1, [("descendants.count", "at least 2", "1")]),
        ({"count": {"min": 1, "max": 2}}, 3, [("descendants.count", "1 to 2", "3")]),
        ({"count": {"max": 2}}, 2, []),
        ({"tasks": ["tasks.part"]}, 2, []),
        ({"tasks": []}, 1, [("descendants.tasks", "none", "'tasks.part'")]),
        ({"outcome": "ignored", "count": 2}, 1, [("descendants.count", "2", "1")]),
    ],
)
def test_how_many_there_must_be_and_of_which_tasks(
    expect: dict[str, object], number: int, differs: list[tuple[str, str, str]]
) -> None:
    """Those that were never sent are none."""
    entry = an_entry(expect={"descendants": expect})
    steps = [child_ended(f"c{n}") for n in range(number)]
    never = several(spawned("u"), unsent(), nowhere()) if "count" in expect else of_root()
    found = play(passed_with(*steps, never), entry).judge().finding
    assert [(one.path, one.expected, one.actual) for one in found.mismatches] == differs
    assert found.status == ("failed" if differs else "passed")


def test_a_handler_that_is_looked_for_may_yet_start_something() -> None:
    """Only once it is nowhere there is nothing."""
    steps = [announced("k", "after"), placeholder("p", "k", "after")]
    assert play(passed_with(*steps)).judge().status == "pending"


def test_a_descendant_in_another_broker_that_has_begun_is_in_sight() -> None:
    """Then a worker has reported it."""
    found = play(passed_with(spawned("c"), elsewhere(), started("y"), nowhere())).judge()
    assert found.status == "lost"


def test_what_a_worker_says_of_a_descendant_counts_though_its_record_comes_later() -> None:
    """The record of its spawning, and a report of it, come in any order."""

    def early(world: World) -> None:
        facts = world.of["c"]
        facts[:] = [f for f in facts if not isinstance(f, Started)]
        job = world.jobs["c"]
        facts.insert(0, Started(seq=job.seq - 1, at=job.at, job="c", execution="y", pid=11))

    steps = passed_with(spawned("c"), started("y"), ended("succeeded", "y"), early)
    assert play(steps).judge().status == "passed"


def test_an_attempt_that_the_store_alone_has_ended_was_handed_on() -> None:
    """Its own end is what became of its parts."""
    steps = [sent(), started(), handed_on("canvas"), child_ended("c1", "failed"), of_root()]
    by_store = play([*steps, stored("failed")]).judge()
    by_worker = play([*steps, started("x2", hop=1), ended("failed", "x2")]).judge()
    assert [one.code for one in (by_store, by_worker)] == ["by_descendant", "raised"]
