"""What may be sent with the money that is left, and why no more is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.errors import DispatchError
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.send_queue import Budget, KeyLimits, refuse_beyond, without_estimate
from pytest_manifest.run.settings import FailureLimit
from pytest_manifest.schema import Entry
from tests.reasons import noted, phrase
from tests.unit.test_run_schedule import RUN, attempts, held, names


def priced(*estimates: float | None) -> list[Attempt]:
    """Attempts of entries e0, e1, ... with these estimates."""
    return [
        attempt_of(RUN, Entry(id=f"e{n}", task="t", cost=cost), 1)
        for n, cost in enumerate(estimates)
    ]


def within(budget: float, *estimates: float | None) -> Schedule:
    """A schedule of such entries that may cost so much, started."""
    schedule = Schedule(priced(*estimates), budget=Budget(budget))
    schedule.start()
    return schedule


def land(schedule: Schedule, attempt: Attempt, cost: str) -> None:
    """The attempt has passed, and cost so much."""
    assert schedule.budget is not None
    schedule.budget.charge(attempt.task_id, Decimal(cost))
    schedule.finished(attempt.entry.id, "passed")


def test_no_more_is_sent_than_the_budget_allows() -> None:
    """What is in flight counts by its estimate; what cost less leaves money for others."""
    schedule = within(1, 0.5, 0.4, 0.3, 0.2)
    first, second = schedule.take(9)
    assert not schedule.has_ready
    assert schedule.over_budget() == [], "what is in flight may yet cost less"
    land(schedule, first, "0.1")
    assert names(schedule.take(9)) == ["e2", "e3"]
    land(schedule, second, "0.4")
    assert schedule.over_budget() == []
    assert schedule.exhausted


def test_what_never_fits_is_held_when_nothing_is_in_flight() -> None:
    """The note has the cost, the budget, the next one's estimate, and how to go on."""
    schedule = within(1, 0.5, 0.75, 0.1)
    (first,) = schedule.take(9)
    land(schedule, first, "0.5")
    found = held(schedule.over_budget())
    note = (
        "the run has cost 0.5 of its budget of 1, and the next entry, with an estimate of 0.75, "
        "would go beyond it; --manifest-resume --manifest-budget=MORE sends the rest"
    )
    assert found == {"e1": note, "e2": note}
    assert phrase(schedule.closed) == note
    assert schedule.exhausted
    assert schedule.over_budget() == []


def test_a_budget_that_is_spent_holds_the_rest_at_once() -> None:
    """Although something is in flight, and also what waits for others or for the canary."""
    todo = [*priced(None, None, None), *attempts(waits="e0")]
    schedule = Schedule(todo, canary=2, budget=Budget(1))
    schedule.start()
    first, second = schedule.take(9)
    assert schedule.over_budget() == []
    land(schedule, first, "1.5")
    found = held(schedule.over_budget())
    note = (
        "the run has cost 1.5 of its budget of 1; "
        "--manifest-resume --manifest-budget=MORE sends the rest"
    )
    assert found == dict.fromkeys(("e2", "waits"), note)
    land(schedule, second, "0")
    assert schedule.exhausted


def test_what_fits_is_held_at_no_time() -> None:
    """Also where nothing is in flight that could cost less; nor what waits for its keys."""
    schedule = within(1, 0.5, 0.5)
    assert schedule.over_budget() == []
    assert names(schedule.take(9)) == ["e0", "e1"]
    first, second = (
        attempt_of(RUN, Entry(id=name, task="t", key={"tenant": "a"}), 1) for name in ("a", "b")
    )
    waiting = Schedule([second], budget=Budget(1), key_limits=KeyLimits({"tenant": 1}))
    waiting.start()
    waiting.count_in_flight([first])
    assert waiting.budget is not None
    waiting.budget.charge(first.task_id, Decimal(0))
    assert waiting.over_budget() == []
    assert not waiting.exhausted


def test_costs_are_added_up_as_they_are_written() -> None:
    """Three times 0.1 is 0.3, which the budget allows."""
    schedule = within(0.3, 0.1, 0.1, 0.1)
    for attempt in schedule.take(9):
        land(schedule, attempt, "0.1")
    assert schedule.exhausted


def test_nothing_may_cost_anything() -> None:
    """A budget of 0 lets through what is estimated at 0, and nothing of which nobody knows."""
    schedule = within(0, 0, 0, None)
    for attempt in schedule.take(9):
        land(schedule, attempt, "0")
    found = held(schedule.over_budget())
    assert list(found) == ["e2"]
    assert "the next entry, with no estimate, would go beyond it" in found["e2"]


def test_what_was_not_sent_costs_nothing() -> None:
    """What comes back from the broker takes its place again, once."""
    schedule = within(1, 1, 1)
    schedule.put_back(schedule.take(9))
    (first,) = schedule.take(9)
    assert first.entry.id == "e0"
    assert not schedule.has_ready


def test_another_attempt_needs_money_too() -> None:
    """What a crash has cost is spent, and its next attempt must fit beside it."""
    schedule = within(1, 0.75)
    (first,) = schedule.take(9)
    assert schedule.budget is not None
    schedule.budget.charge(first.task_id, Decimal("0.75"))
    again = attempt_of(RUN, first.entry, 2)
    assert schedule.add(again) is None
    assert schedule.take(9) == []
    assert list(held(schedule.over_budget())) == ["e0"]


def test_what_is_under_way_and_what_was_spent_before_count() -> None:
    """A run that is gone on with has its earlier costs, each of which may yet be corrected."""
    under_way, to_send = priced(0.5, 0.5)
    schedule = Schedule([to_send], budget=Budget(1.2, {"earlier": Decimal("0.3")}))
    schedule.start(underway=["e0"])
    schedule.count_in_flight([under_way])
    assert schedule.take(9) == []
    assert schedule.budget is not None
    schedule.budget.charge("earlier", Decimal("0.2"))
    assert names(schedule.take(9)) == ["e1"]


def test_the_first_reason_for_which_nothing_is_sent_stands() -> None:
    """More failures, and a budget that is spent, change nothing of it."""
    schedule = Schedule(priced(1.0, 1.0, 1.0), max_failed=FailureLimit(0), budget=Budget(2.0))
    schedule.start()
    first, second = schedule.take(2)
    reason = "1 of 3 entries have failed, more than --manifest-max-failed=0 allows"
    assert held(schedule.finished(first.entry.id, "failed")) == {"e2": reason}
    assert schedule.finished(second.entry.id, "failed") == []
    assert phrase(schedule.closed) == reason
    assert schedule.over_budget() == []


def test_what_comes_back_after_the_end_does_not_change_its_reason() -> None:
    """The broker refused what was on its way when sending was closed."""
    schedule = within(1, 0.5, 0.5)
    first, second = schedule.take(9)
    land(schedule, first, "2")
    assert schedule.close(noted("it was stopped")) == []
    schedule.put_back([second])
    assert schedule.over_budget() == []
    assert schedule.closed == noted("it was stopped")


def test_an_attempt_is_reserved_and_charged_once() -> None:
    """Whatever is said of it again takes the place of what was said before."""
    (entry,) = (one.entry for one in priced(0.5))
    budget = Budget(1)
    for _ in range(2):
        budget.reserve("a", entry)
    assert budget.allows(entry)
    for cost in ("0.4", "0.3", "0.2"):
        budget.charge("a", Decimal(cost))
    budget.charge("b", Decimal("0.25"))
    assert budget.spent == Decimal("0.45")
    assert not budget.has_reservations


def test_a_budget_that_is_raised_allows_more() -> None:
    """And one that is lowered less; what was spent and reserved stays."""
    (entry,) = (one.entry for one in priced(0.5))
    budget = Budget(1, {"a": Decimal("0.75")})
    assert not budget.allows(entry)
    budget.set_limit(1.3)
    assert budget.limit == Decimal("1.3")
    assert budget.allows(entry)
    budget.set_limit(0.5)
    assert budget.reached


def test_a_budget_that_is_spent_has_no_next_entry() -> None:
    """Nor has one without an entry to come."""
    (entry,) = (one.entry for one in priced(0.5))
    budget = Budget(1, {"a": Decimal("0.75")})
    assert budget.why_closed(entry).estimate == "an estimate of 0.5"
    assert budget.why_closed(None).estimate == ""
    budget.charge("a", Decimal(1))
    assert budget.why_closed(entry).estimate == ""


def test_entries_that_cost_too_much_together_are_refused() -> None:
    """Before anything is sent; what just fits is not, nor is nothing at all."""
    entries = [one.entry for one in priced(0.5, 0.25, None)]
    refuse_beyond(None, entries, "m.jsonl")
    refuse_beyond(0.75, entries, "m.jsonl")
    refuse_beyond(0.5, [], "m.jsonl", Decimal(1))
    end = (
        "send fewer (-k, or a plan with a smaller limit), or allow more with a larger "
        "--manifest-budget"
    )
    with pytest.raises(DispatchError) as caught:
        refuse_beyond(0.5, entries, "m.jsonl")
    assert str(caught.value) == (
        "m.jsonl: nothing was sent: 3 entries are estimated to cost 0.75, and --manifest-budget is "
        f"0.5; {end}"
    )
    with pytest.raises(DispatchError) as caught:
        refuse_beyond(1, entries[:1], "m.jsonl", Decimal("0.75"))
    assert str(caught.value) == (
        "m.jsonl: nothing was sent: the run has cost 0.75 already, 1 entry is estimated to cost "
        f"0.5 more, and --manifest-budget is 1; {end}"
    )


def test_entries_without_an_estimate_are_counted() -> None:
    """Where each has one, nothing is said."""
    entries = [one.entry for one in priced(0.5, None, None)]
    assert without_estimate(entries) == (
        "2 of 3 entries have no estimated cost: for the budget they count only when their receipts "
        "report a cost"
    )
    assert without_estimate(entries[:1]) is None
