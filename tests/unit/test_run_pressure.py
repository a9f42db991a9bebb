"""What holds sending back: rates, the length of the queue, the project's health; and its facts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.analysis.throttles import throttles_in, throttles_of
from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger
from pytest_manifest.reporting.figures import slowed_phrases
from pytest_manifest.run import pressure
from pytest_manifest.run.connections import OUTAGE_LIMIT
from pytest_manifest.run.dispatch import _depth_refusals
from pytest_manifest.run.pressure import (
    BURST,
    FIRST_ANSWER,
    LOOK,
    MOST_KEYS,
    QUIET,
    SILENCE,
    Health,
)
from pytest_manifest.run.settings import Rate
from pytest_manifest.schema.run_facts import Segment, SegmentEnded, Throttled
from tests.support import eventually
from tests.unit.run_rig import Plan, Rig, in_turn, rig
from tests.unit.run_world import EPOCH
from tests.unit.test_run_key_limits import of_tenants


def entries(letters: str) -> Plan:
    """A plan of entries of these tenants; a dot: of nobody."""
    return Plan(tuple(one.entry for one in of_tenants(letters)), window=1000)


class Recorder:
    """When what was sent."""

    def __init__(self, made: Rig) -> None:
        self.sent: list[tuple[float, str]] = []
        self._clock, self._before = made.world.clock, made.world.on_publish
        made.world.on_publish = self._published

    def _published(self, attempts: Sequence[Attempt]) -> None:
        self.sent += [(self._clock.now, one.entry.id) for one in attempts]
        self._before(attempts)

    def keeps_to(self, rate: Rate, names: Callable[[str], bool] = lambda _: True) -> bool:
        """Whether no stretch of time has more of these than the rate and what may be saved up."""
        times = [at for at, name in self.sent if names(name)]
        most = 1.0 + rate.per_second * BURST
        return all(
            last - first + 1 <= (times[last] - times[first]) * rate.per_second + most + 1e-6
            for first in range(len(times))
            for last in range(first, len(times))
        )


def facts(ledger: Ledger) -> list[tuple[str, str, bool]]:
    """What held sending back, in its order: why, which key, whether it is over."""
    return [(one.why, one.key, one.is_over) for one in ledger.facts.of_kind(Throttled)]


@pytest.mark.parametrize("rate", [Rate(3), Rate(20), Rate(90, "m"), Rate(3600, "h")])
def test_no_more_is_sent_than_the_rate_allows(rate: Rate) -> None:
    """Nor much less: all of it leaves in the time that it takes."""
    with rig(replace(entries("." * 30), rates={"": rate})) as made:
        seen = Recorder(made)
        began = made.world.clock.now
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert len(seen.sent) == 30
        assert seen.keeps_to(rate)
        assert seen.sent[-1][0] - began <= 1.3 * 30 / rate.per_second
        assert facts(made.ledger) == [("rate", "", False), ("rate", "", True)]
        (one,) = throttles_in(made.ledger, made.ledger.info.read().run)
        assert one.detail == f"no more than {rate}"
        assert 0 < one.seconds <= 1.3 * 30 / rate.per_second


def test_a_key_that_waits_for_its_rate_holds_up_nobody_else() -> None:
    """Its entries keep their order, all others go at once."""
    plan = replace(entries("aabab.a"), rates={"tenant=a": Rate(1)})
    with rig(plan) as made:
        seen = Recorder(made)
        made.step()
        assert made.order == ["e0", "e2", "e4", "e5"]
        made.finish()
        made.check()
        assert made.order[4:] == ["e1", "e3", "e6"]
        assert seen.keeps_to(Rate(1), lambda name: name in ("e0", "e1", "e3", "e6"))
        assert facts(made.ledger) == [("rate", "tenant=a", False), ("rate", "tenant=a", True)]


def test_a_value_has_its_own_rate_or_that_of_each_value() -> None:
    """As the limits of keys in flight hold beside it."""
    rates = {"tenant": Rate(1), "tenant=b": Rate(8)}
    plan = replace(entries("aaabbbb"), rates=rates, key_limits={"tenant": 2})
    with rig(plan) as made:
        seen = Recorder(made)
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert seen.keeps_to(Rate(1), lambda name: name < "e3")
        assert seen.keeps_to(Rate(8), lambda name: name >= "e3")
        assert not seen.keeps_to(Rate(1), lambda name: name >= "e3")


def test_rates_of_many_keys_have_few_facts() -> None:
    """The first ones have theirs, the others of a name have theirs together."""
    letters = "".join(chr(ord("A") + n) * 2 for n in range(MOST_KEYS + 5))
    with rig(replace(entries(letters), rates={"tenant": Rate(1)})) as made:
        made.finish()
        found = facts(made.ledger)
        assert len(found) == 2 * (MOST_KEYS + 1)
        assert found.count(("rate", "tenant", False)) == 1
        assert sum(one[2] for one in found) == MOST_KEYS + 1


def test_what_was_not_sent_gives_its_part_of_the_rate_back() -> None:
    """A broker that is away takes no part of it."""
    plan = replace(entries(".a"), rates={"": Rate(1, "m"), "tenant": Rate(1, "m")})
    with rig(plan) as made:
        made.world.broker_down = made.world.clock.now + 2.0
        made.step(3)
        assert made.order == []
        made.world.clock.sleep(2.0)
        made.step(2)
        assert made.order == ["e0"], "within the first minute"


def test_a_rate_may_change_while_the_run_goes_on() -> None:
    """Of a key only where its name had one when the run began: entries are queued by it."""
    with rig(replace(entries("." * 40), rates={"": Rate(1, "h")})) as made:
        held = made.engine._context.pressure
        made.run(10)
        assert len(made.order) == 1
        held.set_rates({"": Rate(1000)})
        made.finish()
        assert len(made.order) == 40
        with pytest.raises(ValueError, match="began without a rate of the key 'tenant'"):
            held.set_rates({"tenant=a": Rate(1)})


@given(
    st.sampled_from([Rate(2), Rate(40), Rate(7, "m")]),
    st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 60)), max_size=30),
)
def test_a_bucket_never_gives_more_than_its_rate(
    rate: Rate, steps: Sequence[tuple[float, int]]
) -> None:
    """However long nobody asks, and whatever is wanted then."""
    bucket = pressure._Bucket(rate, 0.0)
    now, taken = 0.0, list[tuple[float, int]]()
    for passes, wanted in steps:
        now += passes
        got = min(wanted, int(bucket.tokens(now, 1.0)))
        bucket.take(got)
        taken.append((now, got))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            sent = sum(number for _, number in taken[first : last + 1])
            time = taken[last][0] - taken[first][0]
            assert sent <= time * rate.per_second + bucket.size + 1e-6


# The queue


def test_no_more_is_sent_while_a_queue_is_longer() -> None:
    """Messages of others count; it is asked once a second, and filled up to its depth."""
    with rig(replace(entries("." * 30), queue_depth=10)) as made:
        asked: list[float] = []
        count = made.publisher.queue_lengths

        def counted(names: Sequence[str]) -> dict[str, int]:
            asked.append(made.world.clock.now)
            return {"other": 1, **dict.fromkeys(count(names), 17)}

        made.publisher.queue_lengths = counted  # type: ignore[method-assign]  # of others
        made.run(10)
        assert made.order == []
        assert all(later - one >= LOOK for one, later in itertools.pairwise(asked))
        assert 9 <= len(asked) <= 11
        assert facts(made.ledger) == [("queue", "", False)]
        (one,) = throttles_in(made.ledger, made.ledger.info.read().run)
        assert one.detail == "17 messages in queue 'celery', of 10 at most"
        assert one.ended is None
        made.publisher.queue_lengths = count  # type: ignore[method-assign]  # they are gone
        made.world.clock.sleep(LOOK)
        made.step(2)
        assert len(made.order) == 10, "never more than is allowed"
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert facts(made.ledger) == [("queue", "", False), ("queue", "", True)]


def test_a_queue_that_cannot_be_counted_is_an_outage() -> None:
    """Nothing is sent, and the run gives up as it does where nothing can be sent."""
    with rig(replace(entries(".."), queue_depth=10)) as made:
        made.world.broker_down = float("inf")
        with pytest.raises(StackError, match="cannot be reached"):
            made.run(2 * OUTAGE_LIMIT)
        assert made.order == []


def test_what_does_not_count_its_messages_is_refused() -> None:
    """kombu says 0 of the queues of most brokers."""
    publisher = SimpleNamespace(
        transport=SimpleNamespace(counts_messages=False),
        address=SimpleNamespace(broker_url="mongodb://u:secret@box/x"),
    )
    (said,) = _depth_refusals(7, publisher)  # type: ignore[arg-type]  # as much as is asked
    assert said.startswith("--manifest-queue-depth 7: a broker at mongodb:// does not say how many")
    assert _depth_refusals(None, publisher) == []  # type: ignore[arg-type]  # as above
    publisher.transport.counts_messages = True
    assert _depth_refusals(7, publisher) == []  # type: ignore[arg-type]  # as above


# Health


def test_nothing_is_sent_until_it_says_otherwise() -> None:
    """Also where the last words are none: an error is no answer."""
    answers: list[object] = [("stop", "db\nfailover"), OSError("x"), 17, "maybe", ("slow", 3)]

    def ask() -> object:
        answer = answers.pop(0) if answers else "ok"
        if isinstance(answer, Exception):
            raise answer
        return answer

    with in_turn(), rig(replace(entries("." * 5), health=ask)) as made:
        while answers:
            made.step()
            assert made.order == []
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert facts(made.ledger) == [("health", "", False), ("health", "", True)]
        (one,) = throttles_in(made.ledger, made.ledger.info.read().run)
        assert one.detail == "stop: db failover"
        assert 20 <= one.seconds <= 26
        said = [one for one in made.findings if one.startswith("manifest_health")]
        assert said == [
            "manifest_health raised OSError: x: its last answer holds, 'stop'",
            (
                "manifest_health answered 17, which is not 'ok', 'slow' or 'stop', alone or in a "
                "pair with a reason: its last answer holds, 'stop'"
            ),
        ]


def test_slow_halves_window_and_rates() -> None:
    """A reason that changes makes another stretch."""
    answers = [("slow", "a"), ("slow", "b"), "ok"]
    plan = replace(entries("." * 60), window=20, rates={"": Rate(4)})
    with in_turn(), rig(replace(plan, health=lambda: answers.pop(0) if answers else "ok")) as made:
        seen = Recorder(made)
        made.run(9.5)
        assert seen.keeps_to(Rate(2))
        assert len(made.order) == 10, "half of the window"
        made.finish()
        assert len(made.order) == 60
        said = [one for one in facts(made.ledger) if one[0] == "health"]
        assert said == [("health", "", False), ("health", "", True)] * 2


def test_a_question_may_hang() -> None:
    """The first answer is waited for, shortly; then it is as if nobody had been asked."""
    released, asked = threading.Event(), threading.Event()

    def ask() -> object:
        asked.set()
        released.wait(30)
        return "stop"

    warnings: list[str] = []
    health = Health(ask, warnings, [])
    health.look(100.0)
    assert asked.wait(30)
    assert not health.allows(100.5)
    assert health.allows(100.0 + FIRST_ANSWER)
    for seconds in range(120):
        health.look(100.0 + seconds)
    held = "there is no answer of it that would hold, so nothing is held back"
    assert warnings == [f"manifest_health has not answered for {SILENCE:g} s: {held}"]
    assert health.is_silent
    released.set()

    def is_told() -> bool:
        health.look(220.0)
        return health.word == "stop"

    eventually(is_told, what="the answer is taken")
    assert not health.allows(300.0)


def test_a_failing_test_of_health_is_no_answer() -> None:
    """pytest.fail raises what no ``except Exception`` catches."""
    warnings: list[str] = []
    with in_turn():
        health = Health(lambda: pytest.fail("no"), warnings, [])
        health.look(1.0)
    held = "there is no answer of it that would hold, so nothing is held back"
    assert warnings == [f"manifest_health raised Failed: no: {held}"]
    assert health.allows(1.0)


# Its facts


def test_a_stop_ends_what_held_it_back() -> None:
    """The ledger says when, and nothing is left open."""
    plan = replace(entries("." * 9), health=lambda: "stop")
    with in_turn(), rig(plan) as made:
        made.step(4)
        made.stop(by_a_person=True)
        made.engine.work()
        assert facts(made.ledger) == [("health", "", False), ("health", "", True)]


def at(seconds: float, *, over: bool = False, key: str = "") -> Throttled:
    """Its rate holds it back from here on, or no longer (``over``)."""
    when = EPOCH + timedelta(seconds=seconds)
    return Throttled(seq=0, at=when, why="rate", detail=f"{seconds:g}", is_over=over, key=key)


def test_stretches_are_added_up_by_cause_and_key() -> None:
    """What a killed pytest has left open ends with the last that it recorded."""
    killed = Segment(seq=0, at=EPOCH + timedelta(seconds=90), kills=3, lifetime=1.0)
    stopped = SegmentEnded(seq=0, at=EPOCH + timedelta(seconds=110), how="stopped")
    given = [
        *(at(0), at(4, over=True), at(9, over=True), at(10), at(12, over=True)),
        *(at(20, key="a=b"), at(30), killed, at(100), stopped, at(200, key="a=b")),
    ]
    first, second = throttles_of(given)
    assert (first.why, first.key, first.times, first.seconds) == ("rate", "", 4, 16.0)
    assert first.began == EPOCH
    assert first.ended == stopped.at
    assert (second.key, second.times, second.seconds, second.ended) == ("a=b", 2, 10.0, None)
    assert list(slowed_phrases([first, second])) == [
        "slowed by its rate of a=b, 2 times, since 15:00:20 UTC: 200",
        "slowed by its rate for 16 s, 4 times, from 15:00:00 to 15:01:50 UTC: 100",
    ]
    assert list(slowed_phrases([first] * 7))[5:] == ["and slowed by 2 more keys"]


def test_what_holds_back_again_and_again_is_one_stretch() -> None:
    """It is over as of the last time, once it has not for a while."""
    with rig(replace(entries("." * 12), rates={"": Rate(2)})) as made:
        made.run(8)
        made.finish()
        begin, end = made.ledger.facts.of_kind(Throttled)
        assert (begin.is_over, end.is_over) == (False, True)
        assert QUIET < (end.at - begin.at).total_seconds() <= 1.2 * 12 / 2
