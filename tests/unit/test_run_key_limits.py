"""At most so many in flight of each value of a key: what is sent, in which order, what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.manifest import read_manifest
from pytest_manifest.run.pressure import KeyRates, Pair
from pytest_manifest.run.schedule import Schedule
from pytest_manifest.run.send_queue import SPARE, Budget, FirstAttempts, KeyLimits
from pytest_manifest.run.settings import Rate
from pytest_manifest.schema import Entry, VerdictStatus
from tests.reasons import noted
from tests.unit.run_rig import Plan, rig
from tests.unit.test_run_schedule import RUN, held, names


def keyed(keys: Sequence[Mapping[str, str]], **after: str) -> list[Attempt]:
    """Attempts of entries e0, e1, ... with these keys; ``after`` names what each waits for."""
    return [
        attempt_of(
            RUN, Entry(id=f"e{n}", task="t", key=dict(key), after=after.get(f"e{n}", "").split()), 1
        )
        for n, key in enumerate(keys)
    ]


def of_tenants(letters: str) -> list[Attempt]:
    """Attempts of entries of these tenants; a dot stands for an entry without a key."""
    return keyed([{} if one == "." else {"tenant": one} for one in letters])


class Sending:
    """A schedule, and what is in flight by it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.in_flight: dict[str, Attempt] = {}
        schedule.start()

    def send(self, number: int = 99) -> list[str]:
        """Send up to so many; return the entries."""
        self.schedule.forget_ended(self.in_flight.__contains__)
        taken = self.schedule.take(number)
        self.in_flight |= {one.task_id: one for one in taken}
        return names(taken)

    def end(self, entry: str, status: VerdictStatus = "passed") -> None:
        """The entry has got its verdict."""
        (attempt,) = [one for one in self.in_flight.values() if one.entry.id == entry]
        del self.in_flight[attempt.task_id]
        self.schedule.finished(entry, status)


def limited(attempts: Sequence[Attempt], **limits: int) -> Sending:
    return Sending(Schedule(attempts, key_limits=KeyLimits(limits)))


def test_an_entry_whose_key_is_full_lets_the_others_pass() -> None:
    """Each value has its own limit; entries without the key have none."""
    sending = limited(of_tenants("aaab.a"), tenant=2)
    assert sending.send() == ["e0", "e1", "e3", "e4"]
    assert not sending.schedule.has_ready
    assert not sending.schedule.exhausted
    sending.end("e3")
    assert sending.send() == [], "another tenant's end makes no room"
    sending.end("e1", "failed")
    assert sending.send() == ["e2"]
    sending.end("e0")
    assert sending.send() == ["e5"]
    assert sending.schedule.exhausted


def test_an_entry_with_two_limited_keys_waits_for_both() -> None:
    """It is not counted where it waits, and holds up nobody else."""
    both, tenant, host = {"tenant": "a", "host": "h"}, {"tenant": "a"}, {"host": "h"}
    sending = limited(keyed([tenant, host, both, tenant, host]), tenant=1, host=1)
    assert sending.send() == ["e0", "e1"]
    sending.end("e0")
    assert sending.send() == ["e3"], "the host of e2 is full still"
    sending.end("e1")
    assert sending.send() == ["e4"], "now its tenant is"
    sending.end("e3")
    sending.end("e4")
    assert sending.send() == ["e2"]


def test_all_that_wait_for_one_key_go_where_it_has_room() -> None:
    """However many lanes they wait in: none waits for another look."""
    lanes = [{"tenant": "a", "host": host} for host in "xyzxyz"]
    sending = limited(keyed(lanes), tenant=3, host=9)
    assert sending.send() == ["e0", "e1", "e2"]
    assert sending.send() == []
    for entry in ("e0", "e1", "e2"):
        sending.end(entry)
    assert sending.send() == ["e3", "e4", "e5"]


def test_what_has_ended_is_looked_up_once_and_only_where_it_makes_room() -> None:
    """Each look asks for all that are in flight of that value."""
    asked: list[str] = []

    def is_awaited(task_id: str) -> bool:
        asked.append(task_id)
        return True

    first, second = of_tenants("aa")
    limits, pair = KeyLimits({"tenant": 2}), ("tenant", "a")
    limits.cancel(first.task_id, first.entry)  # which was never counted
    limits.reserve(first.task_id, first.entry)
    limits.forget_ended(is_awaited)
    assert limits.has_room(pair)
    assert asked == []
    limits.reserve(second.task_id, second.entry)
    assert not limits.has_room(pair)
    assert not limits.has_room(pair)
    assert asked == [first.task_id], "the other is new"


class NotedRates(KeyRates):
    """Rates that note what is counted."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        super().__init__(rates)
        self.taken: list[tuple[Pair, int]] = []

    def take(self, pair: Pair, number: int = 1) -> None:
        """Note it."""
        self.taken.append((pair, number))
        super().take(pair, number)


def test_what_is_not_sent_after_all_counts_towards_no_rate() -> None:
    """One message each, by each of its keys; a key that has a rate alone needs no limit."""
    rates = NotedRates({"host": Rate(1.0, "h")})
    limits = KeyLimits({"tenant": 2}, rates)
    (attempt,) = keyed([{"tenant": "a", "host": "h"}])
    pairs = limits.pairs_of(attempt.entry)
    assert pairs == (("host", "h"), ("tenant", "a"))
    assert limits.has_room(("host", "h"))
    limits.sent(attempt.entry)
    assert not limits.has_room(("host", "h"))
    assert limits.has_room(("tenant", "a"))
    limits.cancel(attempt.task_id, attempt.entry)
    assert limits.has_room(("host", "h"))
    assert rates.taken == [*((pair, 1) for pair in pairs), *((pair, -1) for pair in pairs)]


def test_very_many_values_are_looked_through_where_they_have_doubled() -> None:
    """Else each that ever came would be kept, or all be looked at again and again."""
    limits, kept = KeyLimits({"tenant": 1}), {str(n) for n in range(10)}
    values = iter(range(9 * SPARE))

    def fill(number: int) -> None:
        for _ in range(number - len(limits)):
            one = Entry(id="e", task="t", key={"tenant": str(next(values))})
            limits.reserve(one.key["tenant"], one)

    fill(SPARE)
    limits.forget_ended(kept.__contains__)
    assert len(limits) == SPARE
    fill(SPARE + 1)
    limits.forget_ended(kept.__contains__)
    assert len(limits) == 10
    fill(SPARE + 20)
    limits.forget_ended(kept.__contains__)
    assert len(limits) == SPARE + 20
    fill(SPARE + 21)
    limits.forget_ended(kept.__contains__)
    assert len(limits) == 10


def test_a_key_that_nobody_limits_counts_nothing() -> None:
    """Its entries go in the file's order."""
    sending = limited(keyed([{"host": "h"}] * 3), tenant=1)
    assert sending.send() == ["e0", "e1", "e2"]


def test_what_was_in_flight_before_counts() -> None:
    """A run that is resumed sends no more until enough of that has ended."""
    before, after = of_tenants("aaaa")[:2], of_tenants("aaaa")[2:]
    sending = limited(after, tenant=2)
    sending.in_flight = {one.task_id: one for one in before}
    sending.schedule.count_in_flight(before)
    assert sending.send() == []
    sending.end("e0")
    assert sending.send() == ["e2"]


def test_what_was_not_sent_after_all_makes_room_and_comes_first() -> None:
    """Of its tenant it goes before the others, as it would have."""
    sending = limited(of_tenants("aab"), tenant=1)
    (first, other) = sending.schedule.take(9)
    sending.schedule.put_back([first, other])
    assert names(list(sending.schedule._ready)) == ["e0", "e2", "e1"]
    again = sending.schedule.take(9)
    assert names(again) == ["e0", "e2"]
    sending.schedule.put_back(again)
    assert sending.send() == ["e0", "e2"]


def test_another_attempt_of_an_entry_takes_the_place_of_the_first() -> None:
    """It comes before what has waited for the same key."""
    sending = limited(of_tenants("aa"), tenant=1)
    assert sending.send() == ["e0"]
    (first,) = sending.in_flight.values()
    sending.schedule.add(attempt_of(RUN, first.entry, 2))
    assert sending.send() == [], "the first attempt is there still"
    sending.in_flight.clear()
    assert sending.send() == ["e0"]
    assert next(iter(sending.in_flight.values())).number == 2


def test_what_waits_for_its_key_can_be_withdrawn() -> None:
    """An overdue entry leaves its place, wherever it waits."""
    sending = limited(of_tenants("aaa"), tenant=1)
    first = sending.schedule.take(9)
    sending.schedule.put_back(first)
    assert sending.schedule.withdraw({first[0].task_id}) == first
    assert sending.send() == ["e1"]
    sending.end("e1")
    assert sending.send() == ["e2"]
    assert sending.schedule.exhausted


def test_a_closed_schedule_returns_what_waited_for_its_key() -> None:
    """Nothing is forgotten, and nothing is sent any more."""
    sending = limited(of_tenants("aab"), tenant=1)
    assert sending.send(1) == ["e0"]
    assert held(sending.schedule.close(noted("over"))) == {"e1": "over", "e2": "over"}
    assert sending.send() == []
    assert sending.schedule.exhausted


def test_a_canary_keeps_to_the_limits_too() -> None:
    """The others are free when every one of the canary has passed, and then wait as ever."""
    schedule = Schedule(of_tenants("aaaa"), canary=2, key_limits=KeyLimits({"tenant": 1}))
    sending = Sending(schedule)
    assert sending.send() == ["e0"]
    sending.end("e0")
    assert sending.send() == ["e2"]
    sending.end("e2")
    assert sending.send() == ["e1"]
    sending.end("e1")
    assert sending.send() == ["e3"]


def test_what_waited_for_other_entries_waits_for_its_key() -> None:
    """``after`` frees it, and then its key must have room."""
    attempts = keyed([{"tenant": "a"}, {"tenant": "a"}, {"tenant": "b"}], e1="e2")
    sending = limited(attempts, tenant=1)
    assert sending.send() == ["e0", "e2"]
    sending.end("e2")
    assert sending.send() == []
    sending.end("e0")
    assert sending.send() == ["e1"]


def test_a_full_key_is_no_lack_of_money() -> None:
    """A budget closes a run for what would go beyond it, not for what has to wait."""
    schedule = Schedule(of_tenants("aa"), budget=Budget(1), key_limits=KeyLimits({"tenant": 1}))
    sending = Sending(schedule)
    assert sending.send() == ["e0"]
    assert schedule.budget is not None
    (first,) = sending.in_flight.values()
    schedule.budget.cancel(first.task_id)
    assert schedule.over_budget() == []
    sending.end("e0")
    assert sending.send() == ["e1"]


def test_what_has_ended_is_not_kept() -> None:
    """Of ten thousand tenants with a job each none is ever full, and all are forgotten."""
    known = KeyLimits({"tenant": 5})
    in_flight: set[str] = set()
    for number in range(10_000):
        entry = Entry(id=f"e{number}", task="t", key={"tenant": str(number)})
        known.reserve(entry.id, entry)
        in_flight = {entry.id}
        known.forget_ended(in_flight.__contains__)
    assert len(known) <= SPARE + 3


keys = st.fixed_dictionaries(
    {}, optional={"tenant": st.sampled_from("abc"), "host": st.sampled_from("xy")}
)
limits = st.fixed_dictionaries(
    {}, optional={"tenant": st.integers(1, 3), "host": st.integers(1, 3)}
)
turns = st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), max_size=3), st.booleans())


@example([{"host": "x"}] * 3, {"host": 2}, [(1, [0], False)])
@given(st.lists(keys, max_size=12), limits, st.lists(turns, max_size=20))
def test_the_first_that_has_room_is_the_next(
    given_keys: list[dict[str, str]],
    given_limits: dict[str, int],
    program: list[tuple[int, list[int], bool]],
) -> None:
    """Whatever is sent, ends and comes back: as a search through the whole list from its start."""
    attempts = keyed(given_keys)
    sending = limited(attempts, **given_limits)
    waiting = list(attempts)

    def expected(number: int) -> list[str]:
        found: list[str] = []
        going = Counter(
            pair for one in sending.in_flight.values() for pair in one.entry.key.items()
        )
        for one in list(waiting):
            pairs = one.entry.key.items()
            if len(found) < number and all(
                going[pair] < given_limits.get(pair[0], 99) for pair in pairs
            ):
                going.update(pairs)
                found.append(one.entry.id)
        return found

    for number, ends, comes_back in [*program, *[(99, list(range(12)), False)] * 24]:
        wanted = expected(number)
        sent = sending.send(number)
        assert sent == wanted
        waiting = [one for one in waiting if one.entry.id not in sent]
        if comes_back and sent:
            back = [one for one in sending.in_flight.values() if one.entry.id in sent]
            for one in back:
                del sending.in_flight[one.task_id]
            sending.schedule.put_back(back)
            waiting = back + waiting
        going = list(sending.in_flight.values())
        for place in dict.fromkeys(place for place in ends if place < len(going)):
            sending.end(going[place].entry.id)
    assert sending.schedule.exhausted
    assert not waiting


def test_attempts_on_disk_wait_as_those_in_memory_do(tmp_path: Path) -> None:
    """They are read when their turn comes, in any order."""
    rows = [
        f'{{"id": "e{n}", "task": "t", "key": {{"tenant": "{t}"}}}}\n'
        for n, t in enumerate("aaabab")
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(rows), "utf-8")
    sending = limited(FirstAttempts(RUN, read_manifest(path), range(6)), tenant=1)
    assert sending.send() == ["e0", "e3"]
    sending.end("e0")
    assert sending.send() == ["e1"]
    sending.end("e3")
    sending.end("e1")
    assert sending.send() == ["e2", "e5"]


@pytest.mark.parametrize("window", [1, 10])
def test_an_engine_keeps_to_the_limit_and_sends_everything(window: int) -> None:
    """The rig refuses what goes out beyond the limit; here every entry passes all the same."""
    plan = Plan(
        tuple(one.entry for one in of_tenants("aaaabbb.")),
        window=window,
        key_limits={"tenant": 2},
    )
    with rig(plan) as made:
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert len(made.order) == len(plan.entries)
        if window > 1:
            assert made.order[:5] == ["e0", "e1", "e4", "e5", "e7"]


def test_a_lost_message_that_is_sent_again_counts_once() -> None:
    """Its tenant has room for one: the message that got lost on its way, then its repetition."""
    plan = Plan(tuple(one.entry for one in of_tenants("aa")), key_limits={"tenant": 1})
    with rig(plan) as made:
        made.world.uncertain.append(1)
        made.step()
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
