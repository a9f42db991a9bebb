"""Properties of the judge, whatever the facts: what depends on their order, and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import facts as f
from pytest_manifest.schema import run_facts as r
from pytest_manifest.schema.facts import REPORTS
from pytest_manifest.verdict.judge import Judgement
from pytest_manifest.verdict.judging import Judging
from tests.unit.judge_world import (
    BEGAN,
    CRASHES,
    FINISHES,
    IS_LATE,
    IS_REVOKED,
    OTHER_CODE,
    REPEATABLE,
    Step,
    World,
    an_entry,
    announced,
    closed,
    elsewhere,
    ended,
    gone,
    handed_on,
    later,
    moved,
    node,
    nowhere,
    of_root,
    other_place,
    play,
    recalled,
    resent,
    run_over,
    search,
    seen,
    segment,
    sent,
    several,
    spawned,
    started,
    store,
    stored,
    taken_up,
    time_over,
    unreadable,
    unsent,
)
from tests.unit.written_worlds import written

EXECUTIONS = ("x1", "x2", "x3")
STATES = ("succeeded", "failed", "crashed", "revoked", "rejected", "expired", "timed_out")
ENTRIES = (
    an_entry(),
    an_entry(expect={"executions": 2}),
    an_entry(expect={"descendants": "succeeded"}),
    *(CRASHES, IS_LATE, IS_REVOKED, REPEATABLE, FINISHES),
)


def begins(number: int, turn: int, pid: int) -> Step:
    where = {"retries": turn, "redelivered": pid > 11}
    moment = BEGAN + timedelta(seconds=number)
    return started(f"x{number}", pid, started_at=moment, **where)


reports = st.one_of(
    st.builds(begins, st.integers(1, 3), st.integers(0, 1), st.integers(11, 12)),
    st.builds(handed_on, st.sampled_from(["retry", "lost", "canvas"]), st.sampled_from(EXECUTIONS)),
    st.builds(ended, st.sampled_from(STATES), st.sampled_from([*EXECUTIONS, None])),
    st.sampled_from(
        [
            ended("succeeded", "x1", result=2),
            ended("succeeded", "x1", code=OTHER_CODE),
            ended("succeeded", "x2", retries=1, args_sha256="0" * 64),
            ended("failed", "x1", entry="e2"),
            ended("succeeded", "x1", fault="it is not signed"),
            *(stored(), stored("failed"), stored("revoked"), unreadable()),
            *(announced("k"), announced("k", is_off=True), closed("k")),
        ]
    ),
)
of_child = st.sampled_from(
    [
        *(unsent(), elsewhere(), started("y1"), ended("succeeded", "y1"), ended("failed", "y1")),
        *(handed_on("canvas", "y1"), stored(), started("y2", pid=12, redelivered=True)),
    ]
)
milestones = st.one_of(
    st.builds(gone, st.sampled_from(EXECUTIONS)),
    st.builds(time_over, st.sampled_from(["timeout", "deadline"])),
    st.builds(
        recalled,
        st.sampled_from(["stop", "time", "max_failed", "poison"]),
        st.sampled_from(["asked", "heard", "withdrawn"]),
    ),
    st.builds(moved, st.sampled_from(["put_back", "taken_out", "left"])),
    st.builds(seen, st.sampled_from(["queue", "worker", "unacked"])),
    st.builds(run_over, st.sampled_from(["deadline", "nobody", "gave_up", "ended"])),
    st.sampled_from(
        [
            *(search(), nowhere(), several(search(), nowhere()), taken_up(), other_place()),
            *(store("emptied"), store("intact"), store("unreachable"), later(61), later(4000)),
            *(node("w2@h", "stock"), node("w2@h", "silent"), node("w2@h", "reports")),
            *(segment(kills=1), segment(kills=2), resent()),
        ]
    ),
)
of_children = st.builds(
    lambda name, steps: several(spawned(name), *steps, of_root()),
    st.sampled_from(["c1", "c2"]),
    st.lists(st.one_of(of_child, milestones.filter(lambda _: True)), max_size=3),
)
stories = st.lists(st.one_of(reports, reports, milestones, of_children), max_size=12)
worlds = st.builds(
    lambda steps, entry, is_private: play([sent(), *steps], entry, is_private=is_private),
    stories,
    st.sampled_from(ENTRIES),
    st.booleans(),
)

ended_worlds = st.builds(
    lambda steps, entry, end: play([sent(), started(), *steps, of_root(), end], entry),
    st.lists(st.one_of(reports, milestones), max_size=8),
    st.sampled_from(ENTRIES),
    st.builds(ended, st.sampled_from(STATES)),
)
doubts = st.sampled_from([store("emptied"), node("w9@h", "stock"), segment(kills=1)])


def in_short(found: Judgement) -> tuple[object, ...]:
    finding = found.finding
    mismatches = [one.model_dump() for one in finding.mismatches]
    return finding.status, finding.reason, mismatches, found.is_final


def repeated(world: World, number: int) -> bool:
    """Report something once more, after all that is known; return whether there is any."""
    known = [(job, one) for job, facts in world.of.items() for one in facts if one.kind in REPORTS]
    if not known:
        return False
    job, fact = known[number % len(known)]
    world.seq += 1
    world.of[job].append(replace(fact, seq=world.seq, at=world.now))
    return True


def shuffled(world: World, random: Random) -> None:
    """Put the reports between two milestones into another order."""
    facts = [(one, job) for job, facts in world.of.items() for one in facts]
    fixed = {one.seq for one in world.run} | {one.seq for one in world.jobs.values()}
    fixed |= {one.seq for one, _ in facts if one.kind not in REPORTS}
    between: list[tuple[r.JobFact, str]] = []
    of: dict[str, list[r.JobFact]] = {job: [] for job in world.of}

    def put() -> None:
        seqs = [one.seq for one, _ in between]
        random.shuffle(between)
        for seq, (one, job) in zip(seqs, between, strict=True):
            of[job].append(replace(one, seq=seq))
        between.clear()

    by_seq = {one.seq: (one, job) for one, job in facts}
    for seq in range(1, world.seq + 1):
        if seq in fixed:
            put()
            if seq in by_seq:
                one, job = by_seq[seq]
                of[job].append(one)
        elif seq in by_seq:
            between.append(by_seq[seq])
    put()
    world.of = of


@given(worlds, st.integers(0, 99))
def test_a_repeated_report_changes_nothing(world: World, number: int) -> None:
    before = world.judge()
    assume(repeated(world, number))
    assert in_short(world.judge()) == in_short(before)


@given(worlds, st.randoms(use_true_random=False))
def test_reports_between_two_milestones_commute(world: World, random: Random) -> None:
    before = world.judge()
    shuffled(world, random)
    assert in_short(world.judge()) == in_short(before)


@given(ended_worlds, reports)
def test_no_report_turns_a_believed_end_into_an_inferred_one(world: World, report: Step) -> None:
    """Of one job: a worker's end stands, or is forged; but for one after which its job goes on."""
    before = world.judge()
    end = before.receipt
    assume(end is not None and end.source == "worker" and before.is_final)
    assert end is not None
    report(world)
    known = world.of[world.job]
    last = known[-1]
    goes_on = {one.execution for one in known if isinstance(one, f.HandedOn)}
    ends = {one.seq: one.execution for one in known if isinstance(one, f.Ended)}
    assume(goes_on.isdisjoint({ends.get(before.end or 0, ""), ends.get(last.seq, "")}))
    assume(not isinstance(last, f.Announced | f.HandedOn))
    # One that was killed, or revoked, may have asked for a retry before: the start of that says so.
    assume(not isinstance(last, f.Started) or last.retries <= end.retries)
    after = world.judge()
    assert after.receipt is not None or after.status == "forged"


@given(worlds, st.lists(doubts, min_size=1))
def test_later_doubts_do_not_reach_back(world: World, later_doubts: Sequence[Step]) -> None:
    """What was final stays, whatever is found of the store and of workers afterwards."""
    store("intact")(world)  # which is looked at where an end is reported without its start
    before = world.judge()
    assume(before.is_final)
    for step in later_doubts:
        step(world)
    assert in_short(world.judge()) == in_short(before)


@given(worlds)
def test_what_was_judged_is_judged_so_again(world: World) -> None:
    """By the facts up to a verdict everybody says the same, whatever has come since."""
    upto, before = world.seq, world.judge()
    for step in (started("x3", 13), ended("succeeded", "x3"), store("emptied"), nowhere()):
        step(world)
    assert in_short(world.judge(upto=upto)) == in_short(before)


@given(worlds)
def test_what_memory_comes_to_its_ledger_comes_to(world: World) -> None:
    """Whoever reads a run again judges as the one who has it in memory."""
    with TemporaryDirectory() as folder:
        path, _ = written(world, Path(folder))
        with Ledger.open(path) as ledger:
            anew = Judging(ledger).of(world.entry).judgement
    assert in_short(anew) == in_short(world.judge())
