"""What may be sent, and when: dependencies, the canary, the failure threshold, the budget."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.run.schedule import Schedule, Skipped
from pytest_manifest.run.send_queue import Budget
from pytest_manifest.run.settings import FailureLimit
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.verdict.problems import WaitsFor
from tests.reasons import noted
from tests.rings import examples

RUN = "20261124T150000-0123abcd"


def attempts(**after: str) -> list[Attempt]:
    """Attempts of entries by name, with the names (separated by spaces) that each waits for."""
    return [
        attempt_of(RUN, Entry(id=name, task="t", after=names.split()), 1)
        for name, names in after.items()
    ]


def plain(number: int) -> list[Attempt]:
    return [attempt_of(RUN, Entry(id=f"e{n}", task="t"), 1) for n in range(number)]


def names(taken: list[Attempt]) -> list[str]:
    return [attempt.entry.id for attempt in taken]


def held(found: list[Skipped]) -> dict[str, str]:
    return {one.attempt.entry.id: one.why.phrase() for one in found}


def test_an_entry_waits_until_all_that_it_names_have_passed() -> None:
    """Sending follows the passing of single entries, not levels of them."""
    schedule = Schedule(attempts(a="", b="", c="a", d="a b"))
    assert schedule.start() == []
    assert names(schedule.take(9)) == ["a", "b"]
    assert schedule.finished("a", "passed") == []
    assert names(schedule.take(9)) == ["c"]
    assert schedule.finished("b", "passed") == []
    assert names(schedule.take(9)) == ["d"]
    assert schedule.exhausted


def test_what_waits_for_a_failed_entry_is_held_with_the_chain() -> None:
    """The note leads from the entry to the one that did not pass; others go on."""
    schedule = Schedule(attempts(a="", b="a", c="b", other=""))
    schedule.start()
    found = held(schedule.finished("a", "crashed"))
    assert found == {
        "b": "it waits for 'a', which did not pass (crashed)",
        "c": "it waits for 'b', which waits for 'a', which did not pass (crashed)",
    }
    assert names(schedule.take(9)) == ["a", "other"]
    assert schedule.exhausted


def test_a_long_chain_is_told_by_its_ends() -> None:
    """A chain of two thousand entries makes short notes, and no deep recursion."""
    chain = {"e0": ""} | {f"e{n}": f"e{n - 1}" for n in range(1, 2_000)}
    schedule = Schedule(attempts(**chain))
    schedule.start()
    found = held(schedule.finished("e0", "failed"))
    assert len(found) == 1_999
    assert found["e1999"] == (
        "it waits for 'e1998', which waits for 'e1997', which waits (through 1995 others) "
        "for 'e1', which waits for 'e0', which did not pass (failed)"
    )


@pytest.mark.parametrize(
    ("settled", "note"),
    [
        ({}, "it waits for 'a', which was not selected and has not passed in this run"),
        ({"a": "lost"}, "it waits for 'a', which did not pass (lost)"),
    ],
)
def test_a_deselected_entry_counts_by_its_verdict_in_this_run(
    settled: Mapping[str, VerdictStatus], note: str
) -> None:
    """Without a passing verdict what waits for it is held; with one it is free."""
    schedule = Schedule(attempts(b="a", c="b"), verdicts=settled)
    assert held(schedule.start())["b"] == note
    assert schedule.exhausted
    free = Schedule(attempts(b="a"), verdicts={"a": "passed"})
    assert free.start() == []
    assert names(free.take(9)) == ["b"]


def test_an_entry_that_is_not_part_of_the_run_has_no_status() -> None:
    """Nor does a schedule that nobody has started have anything to send."""
    assert [one.why for one in Schedule(attempts(b="a")).start()] == [WaitsFor(names=("a",))]
    idle = Schedule(())
    assert (idle.has_ready, idle.exhausted, idle.take(1)) == (False, True, [])


def test_an_entry_under_way_is_waited_for() -> None:
    """When a run is gone on with, what is still queued may yet pass."""
    schedule = Schedule(attempts(b="a"))
    assert schedule.start(underway=["a"]) == []
    assert schedule.take(9) == []
    schedule.finished("a", "passed")
    assert names(schedule.take(9)) == ["b"]


def test_the_canary_goes_first_spread_over_the_manifest() -> None:
    """The others are free when every one of the canary has passed."""
    schedule = Schedule(plain(10), canary=2)
    schedule.start()
    assert names(schedule.take(9)) == ["e0", "e5"]
    assert not schedule.has_ready
    assert not schedule.exhausted
    schedule.finished("e0", "passed")
    assert not schedule.has_ready
    schedule.finished("e5", "passed")
    assert names(schedule.take(99)) == ["e1", "e2", "e3", "e4", "e6", "e7", "e8", "e9"]


def test_what_is_queued_when_the_canary_has_passed_goes_first() -> None:
    """As what could not be sent, and whose end came all the same."""
    schedule = Schedule(plain(6), canary=2)
    schedule.start()
    schedule.put_back(schedule.take(9))
    for name in ("e0", "e3"):
        schedule.finished(name, "passed")
    assert names(schedule.take(9)) == ["e0", "e3", "e1", "e2", "e4", "e5"]


def test_a_failed_canary_holds_everything_else() -> None:
    """Also when it fails first and passes after; the note names who failed."""
    schedule = Schedule(plain(4), canary=2)
    schedule.start()
    schedule.take(9)
    assert schedule.finished("e0", "failed") == []
    found = held(schedule.finished("e2", "passed"))
    assert found == dict.fromkeys(["e1", "e3"], "the canary failed: 'e0' did not pass")
    assert schedule.exhausted


@pytest.mark.parametrize(("limit", "words"), [(FailureLimit(1), "1"), (FailureLimit(0.25), "25%")])
def test_more_failures_than_allowed_end_the_sending(limit: FailureLimit, words: str) -> None:
    """The first failure too many holds what is left; what was not run does not count as one."""
    schedule = Schedule(plain(5), max_failed=limit)
    schedule.start()
    schedule.take(4)
    schedule.finished("e0", "failed")
    schedule.finished("e1", "skipped")
    schedule.finished("e2", "withdrawn")
    assert schedule.closed is None
    found = held(schedule.finished("e3", "lost"))
    assert found == {
        "e4": f"2 of 5 entries have failed, more than --manifest-max-failed={words} allows"
    }
    again = schedule.add(attempt_of(RUN, Entry(id="e0", task="t"), 2))
    assert again is not None


def test_what_could_not_be_sent_comes_first_again() -> None:
    """In its old order, before what comes after it."""
    schedule = Schedule(plain(4))
    schedule.start()
    taken = schedule.take(2)
    schedule.put_back(taken)
    assert names(schedule.take(9)) == ["e0", "e1", "e2", "e3"]


def test_what_is_withdrawn_is_not_sent() -> None:
    """What was put back may be taken out; the rest keeps its order."""
    schedule = Schedule(plain(5))
    schedule.start()
    first, second, third = schedule.take(3)
    assert schedule.withdraw({first.task_id}) == []
    schedule.put_back([first, second, third])
    assert names(schedule.withdraw({first.task_id, third.task_id})) == ["e2", "e0"]
    assert schedule.withdraw({first.task_id}) == []
    assert names(schedule.take(9)) == ["e1", "e3", "e4"]
    assert schedule.exhausted


def test_another_attempt_goes_first_as_long_as_something_is_sent() -> None:
    """After that it is held, by the reason for which nothing is sent any more."""
    schedule = Schedule(plain(3))
    schedule.start()
    (first,) = schedule.take(1)
    again = attempt_of(RUN, first.entry, 2)
    assert schedule.add(again) is None
    assert schedule.take(2)[0] == again
    stopped = noted("it was stopped")
    assert schedule.close(stopped) == [Skipped(plain(3)[2], stopped)]
    assert schedule.add(again) == Skipped(again, stopped)
    assert schedule.exhausted


def test_what_is_cancelled_is_returned_wherever_it_waits() -> None:
    """For its turn, for the canary, for another entry."""
    schedule = Schedule(attempts(a="", b="", c="b", d="c", e=""), canary=1)
    schedule.start()
    assert names(schedule.cancel(["c", "b", "unknown"])) == ["b", "c"]
    assert schedule.unsent() == {"a", "d", "e"}
    assert names(schedule.cancel(["a", "d"])) == ["a", "d"]
    assert schedule.unsent() == {"e"}


def test_what_is_sent_again_waits_for_what_it_names() -> None:
    """For all of it, beside what waits for that already; its failure of before counts no more."""
    schedule = Schedule(attempts(a="", b="", c="a b", d="a"), max_failed=FailureLimit(1))
    schedule.start()
    a, _ = schedule.take(9)
    assert names([one.attempt for one in schedule.finished("a", "failed")]) == ["c", "d"]
    c, d = (attempt_of(RUN, Entry(id=name, task="t"), 1) for name in "cd")
    schedule.send_again(a, ())
    schedule.send_again(c, ["a", "b"])
    schedule.send_again(d, ["a"])
    assert schedule.take(9) == [a]
    assert schedule.unsent() == {"c", "d"}
    assert schedule.finished("a", "passed") == []
    assert schedule.take(9) == [d]
    assert schedule.finished("d", "failed") == []
    assert schedule.closed is None
    assert schedule.finished("b", "passed") == []
    assert schedule.take(9) == [c]


def test_a_canary_is_never_larger_than_what_is_free() -> None:
    """Entries that wait are none of it; and where all is closed its failure holds nothing more."""
    schedule = Schedule(attempts(a="", b="", c="a"), canary=9)
    schedule.start()
    assert names(schedule.take(9)) == ["a", "b"]
    schedule.finished("a", "passed")
    assert not schedule.has_ready, "the canary has not passed"
    schedule.finished("b", "passed")
    assert names(schedule.take(9)) == ["c"]
    closed = Schedule(plain(4), canary=1)
    closed.start()
    closed.take(1)
    closed.close(noted("it was stopped"))
    assert closed.finished("e0", "failed") == []
    assert closed.closed == noted("it was stopped")


def test_what_waits_for_several_is_held_by_the_first_that_fails() -> None:
    """And the pass of another one does not free it then; nor is it held twice."""
    schedule = Schedule(attempts(a="", b="", c="a b", d="c b", e="b"))
    schedule.start()
    schedule.take(9)
    assert list(held(schedule.finished("a", "failed"))) == ["c", "d"]
    assert schedule.finished("b", "passed") == []
    assert names(schedule.take(9)) == ["e"]
    assert schedule.exhausted
    both = Schedule(attempts(a="", b="", c="a b"))
    both.start()
    both.take(9)
    assert list(held(both.finished("a", "failed"))) == ["c"]
    assert both.finished("b", "failed") == []


def test_all_that_can_never_be_sent_is_known_at_once() -> None:
    """Whatever it waits for; and what waits for nothing any more keeps its place."""
    schedule = Schedule(
        attempts(a="gone", b="", c="lost", d="done", e=""), verdicts={"done": "passed"}
    )
    assert list(held(schedule.start())) == ["a", "c"]
    assert names(schedule.take(9)) == ["b", "d", "e"]
    assert schedule.over_budget() == []


def test_many_that_failed_are_counted() -> None:
    """Three of a canary are named; and what has no end yet is no failure."""
    schedule = Schedule(plain(5), canary=4, max_failed=FailureLimit(3))
    schedule.start()
    taken = names(schedule.take(9))
    held_back = [one for name in taken for one in schedule.finished(name, "pending")]
    ((_, reason),) = held(held_back).items()
    assert reason == "the canary failed: 'e0', 'e1', 'e2' and 1 more did not pass"


KINDS: tuple[VerdictStatus, ...] = ("passed", "failed", "lost", "skipped")


@st.composite
def graphs(draw: st.DrawFn) -> list[Attempt]:
    size = draw(st.integers(1, 12))
    made = []
    for n in range(size):
        after = draw(st.sets(st.integers(0, max(n - 1, 0)), max_size=3)) if n else set()
        cost = draw(st.sampled_from((None, 0.0, 0.1, 0.5, 2.0)))
        entry = Entry(id=f"e{n}", task="t", cost=cost, after=[f"e{m}" for m in sorted(after)])
        made.append(attempt_of(RUN, entry, 1))
    return made


@settings(max_examples=examples(200))
@given(
    todo=graphs(),
    verdicts=st.data(),
    canary=st.integers(0, 4),
    limit=st.none() | st.integers(0, 3).map(lambda n: FailureLimit(n)),
    money=st.none() | st.sampled_from((0.0, 0.3, 1.0, 5.0)),
)
def test_every_entry_is_sent_once_or_held_once(
    todo: list[Attempt],
    verdicts: st.DataObject,
    canary: int,
    limit: FailureLimit | None,
    money: float | None,
) -> None:
    """Whatever passes and fails, and whatever it costs: it ends, nothing is forgotten, nothing goes
    before its time, and nothing that the budget does not allow."""
    budget = None if money is None else Budget(money)
    schedule = Schedule(todo, canary=canary, max_failed=limit, budget=budget)
    estimates = {attempt.entry.id: attempt.entry.cost or 0.0 for attempt in todo}
    task_ids = {attempt.entry.id: attempt.task_id for attempt in todo}
    spent = 0.0
    after = {attempt.entry.id: attempt.entry.after for attempt in todo}
    out: dict[str, str] = dict.fromkeys((h.attempt.entry.id for h in schedule.start()), "held")
    kinds: dict[str, VerdictStatus] = {}
    flying: list[str] = []
    while not schedule.exhausted or flying:
        for one in schedule.over_budget():
            assert one.attempt.entry.id not in out
            out[one.attempt.entry.id] = "held"
        if schedule.exhausted and not flying:
            break
        for name in names(schedule.take(verdicts.draw(st.integers(1, 4)))):
            assert name not in out
            assert all(kinds.get(one) == "passed" for one in after[name])
            out[name] = "sent"
            flying.append(name)
            likely = spent + sum(estimates[one] for one in flying)
            assert money is None or likely <= money + 1e-9
        assert flying, "nothing is in flight and something is left: it would wait for ever"
        done = flying.pop(verdicts.draw(st.integers(0, len(flying) - 1)))
        kinds[done] = verdicts.draw(st.sampled_from(KINDS))
        if budget is not None:
            cost = verdicts.draw(st.sampled_from(("0", "0.1", "0.5", "3")))
            budget.charge(task_ids[done], Decimal(cost))
            spent += float(cost)
        for one in schedule.finished(done, kinds[done]):
            assert one.attempt.entry.id not in out
            out[one.attempt.entry.id] = "held"
    assert set(out) == {attempt.entry.id for attempt in todo}
