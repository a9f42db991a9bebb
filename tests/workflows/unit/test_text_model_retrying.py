"""Retries: what is asked again, how long is waited, and what is counted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from tasks.text_model import failures
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import FLEX, Billed, TextAnswer, TextRequest
from tasks.text_model.failures import ModelFailure, Stopped
from tasks.text_model.limits import Limiter, NoLimit, Slot
from tasks.text_model.retrying import CallCounts, Fallback, RetryPolicy, call
from tests.workflows.text_requests import text_request

AT_ONCE = RetryPolicy(attempts=4, first_wait=0.0, longest_wait=1.0)
REQUEST = text_request({"k": "A text."})
ANSWER = TextAnswer('{"items": []}', 11, 7, "scripted-1")


class Scripted:
    """Fails as told, or answers under another name, call by call; then answers."""

    provider = "scripted"
    name = "scripted-1"

    def __init__(self, *told: Exception | str) -> None:
        self.told = list(told)
        self.asked: list[tuple[str, float]] = []

    def generate(self, request: TextRequest) -> TextAnswer:
        self.asked.append((request.tier, request.timeout))
        told = self.told.pop(0) if self.told else ANSWER
        if isinstance(told, Exception):
            raise told
        return replace(ANSWER, model=told) if isinstance(told, str) else told

    def close(self) -> None: ...


class Noted(threading.Event):
    """Notes how long is waited for it, and lets no time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


def ask(
    model: Scripted,
    counts: CallCounts,
    *,
    policy: RetryPolicy = AT_ONCE,
    limiter: Limiter | None = None,
    stop: threading.Event | None = None,
    accepted: Accepted | None = None,
    fallback: Fallback | None = None,
    request: TextRequest = REQUEST,
) -> TextAnswer:
    return call(
        model,
        request,
        policy=policy,
        limiter=limiter or NoLimit(),
        counts=counts,
        stop=stop or threading.Event(),
        accepted=accepted,
        fallback=fallback,
    )


def test_an_answer_is_asked_for_once() -> None:
    """And its tokens and latency are counted."""
    counts = CallCounts()
    assert ask(Scripted(), counts) is ANSWER
    assert (counts.calls, counts.retries, counts.tokens_in, counts.tokens_out) == (1, 0, 11, 7)
    assert len(counts.latencies) == 1
    assert not counts.failures


def test_what_may_pass_is_asked_again_and_counted() -> None:
    """Each failure by its kind, and what it was billed besides the answer."""
    counts = CallCounts()
    model = Scripted(
        failures.Unavailable("away"),
        failures.ServerFailed("odd", billed=Billed(100, 10)),
        failures.Unavailable("away"),
    )
    assert ask(model, counts) is ANSWER
    assert (counts.calls, counts.retries) == (4, 3)
    assert counts.failures == {"unavailable": 2, "server_failed": 1}
    assert (counts.tokens_in, counts.tokens_out) == (111, 17)
    assert len(counts.latencies) == 4


def test_calls_that_may_have_been_billed_are_counted() -> None:
    """Those that nobody has told of: timed out, broken off, not to be read, or under way."""
    counts, seen = CallCounts(), list[int]()

    class Watched(Scripted):
        def generate(self, request: TextRequest) -> TextAnswer:
            seen.append(counts.so_far().unknown_bills)
            return super().generate(request)

    slow, cut = failures.ModelTimeout("slow"), failures.ConnectionFailed("cut")
    assert ask(Watched(slow, cut, failures.ServerFailed("odd")), counts) is ANSWER
    assert seen == [1, 2, 3, 3]
    assert (counts.calls, counts.unknown_bills) == (4, 2)
    known = CallCounts()
    with pytest.raises(failures.MalformedAnswer):
        ask(Scripted(failures.UnreadableAnswer("odd", billed=Billed(5))), known)
    assert known.unknown_bills == 0
    with pytest.raises(ZeroDivisionError):
        ask(Scripted(ZeroDivisionError()), known)
    assert known.unknown_bills == 1


def test_attempts_have_an_end() -> None:
    """The last failure itself is raised, and no retry is counted that was not made."""
    counts = CallCounts()
    last = failures.ServerFailed("the fourth")
    model = Scripted(*[failures.ServerFailed("early")] * 3, last, failures.ServerFailed("too many"))
    with pytest.raises(failures.ServerFailed) as caught:
        ask(model, counts)
    assert caught.value is last
    assert (counts.calls, counts.retries, len(model.told)) == (4, 3, 1)


@pytest.mark.parametrize(
    "kind",
    [
        failures.QuotaExhausted,
        failures.PromptBlocked,
        failures.AnswerBlocked,
        failures.AnswerCutOff,
        failures.Unauthorized,
        failures.ModelNotFound,
        failures.BadRequest,
        failures.TooLong,
    ],
)
def test_what_cannot_pass_is_not_asked_again(kind: type[ModelFailure]) -> None:
    """It is counted once, with what it was billed."""
    counts = CallCounts()
    with pytest.raises(kind):
        ask(Scripted(kind("no", billed=Billed(5))), counts)
    assert (counts.calls, counts.retries, counts.tokens_in) == (1, 0, 5)
    assert counts.failures == {kind.kind: 1}


@pytest.mark.parametrize("name", ["scripted-2", ""])
def test_an_answer_of_another_model_is_paid_once_and_ends_the_call(name: str) -> None:
    """It is not asked again, as each of its answers is paid; the bill names it."""
    counts = CallCounts()
    with pytest.raises(failures.OtherModel, match="answered, and scripted-1 was asked"):
        ask(Scripted(name, name), counts)
    assert counts.failures == {"other_model": 1}
    assert [bill.model for bill in counts.bills] == [name]
    assert (counts.retries, counts.calls) == (0, 1)


def test_a_failure_of_another_model_is_no_failure_of_ours() -> None:
    """What it has blocked or cut off says nothing of the planned one."""
    billed, counts = Billed(9, 0, "scripted-2"), CallCounts()
    with pytest.raises(failures.OtherModel):
        ask(Scripted(failures.PromptBlocked("no", billed=billed)), counts)
    assert counts.failures == {"other_model": 1}
    assert counts.bills == [billed]


def test_another_model_answers_where_it_is_accepted() -> None:
    """And is named as what has answered."""
    accepted = Accepted("scripted-1", ("scripted-2",))
    counts = CallCounts()
    assert ask(Scripted("scripted-2"), counts, accepted=accepted).model == "scripted-2"
    assert not counts.failures


FLEX_REQUEST = replace(REQUEST, tier=FLEX, timeout=900.0)
FALLBACK = Fallback(replace(AT_ONCE, attempts=2), 60.0)


@pytest.mark.parametrize(
    "failure",
    [failures.Shed("no room"), failures.ModelTimeout("too slow"), failures.ServerFailed("odd")],
)
def test_a_flex_call_that_is_not_taken_goes_on_as_a_standard_one(failure: ModelFailure) -> None:
    """After all its attempts, with the patience of the standard tier, and it is counted."""
    counts, model = CallCounts(), Scripted(*[failure] * 4, failures.Unavailable("away"))
    assert ask(model, counts, fallback=FALLBACK, request=FLEX_REQUEST) is ANSWER
    assert model.asked == [("flex", 900.0)] * 4 + [("standard", 60.0)] * 2
    assert counts.fallbacks == 1
    assert [bill.tier for bill in counts.bills] == ["flex"] * 4 + ["standard"] * 2
    assert counts.failures == {failure.kind: 4, "unavailable": 1}


def test_a_flex_call_is_not_bought_at_the_whole_price_unasked() -> None:
    counts, model = CallCounts(), Scripted(*[failures.Shed("no room")] * 9)
    with pytest.raises(failures.Shed):
        ask(model, counts, request=FLEX_REQUEST)
    assert model.asked == [("flex", 900.0)] * 4
    assert counts.fallbacks == 0


@pytest.mark.parametrize(
    "kind", [failures.OtherModel, failures.AnswerBlocked, failures.QuotaExhausted]
)
def test_what_flex_is_not_to_blame_for_does_not_fall_back(kind: type[ModelFailure]) -> None:
    """The standard tier would fail alike, or be answered by another model as well."""
    counts = CallCounts()
    with pytest.raises(kind):
        ask(Scripted(*[kind("no")] * 9), counts, fallback=FALLBACK, request=FLEX_REQUEST)
    assert (counts.fallbacks, {bill.tier for bill in counts.bills}) == (0, {"flex"})


def test_a_standard_call_has_nothing_to_fall_back_to() -> None:
    counts = CallCounts()
    with pytest.raises(failures.ModelTimeout):
        ask(Scripted(*[failures.ModelTimeout("slow")] * 9), counts, fallback=FALLBACK)
    assert (counts.calls, counts.fallbacks) == (4, 0)


def test_a_shed_call_that_is_to_wait_too_long_falls_back_at_once() -> None:
    """It is not given up, and not waited for."""
    counts = CallCounts()
    told = failures.Shed("no room", retry_after=3600.0)
    assert ask(Scripted(told), counts, fallback=FALLBACK, request=FLEX_REQUEST) is ANSWER
    assert (counts.calls, counts.retries, counts.fallbacks) == (2, 0, 1)


def test_an_error_of_another_kind_is_not_hidden() -> None:
    """A bug of a model is no failure of a service."""
    with pytest.raises(ZeroDivisionError):
        ask(Scripted(ZeroDivisionError()), CallCounts())


def test_waits_are_random_and_grow_up_to_the_longest() -> None:
    """Each is between nothing and a bound that doubles."""
    stop = Noted()
    policy = RetryPolicy(attempts=8, first_wait=1.0, longest_wait=10.0)
    ask(Scripted(*[failures.Unavailable("away")] * 7), CallCounts(), policy=policy, stop=stop)
    bounds = [1, 2, 4, 8, 10, 10, 10]
    assert len(stop.waits) == 7
    assert all(0 <= (wait or 0) <= bound for wait, bound in zip(stop.waits, bounds, strict=True))
    assert len(set(stop.waits)) > 1


def test_the_service_is_given_the_time_that_it_asks_for() -> None:
    """At least; and a little more, at random, as it tells all workers the same."""
    stop = Noted()
    policy = RetryPolicy(attempts=3, first_wait=0.5, longest_wait=60.0)
    told = failures.RateLimited("slow down", retry_after=37.0)
    ask(Scripted(told, told), CallCounts(), policy=policy, stop=stop)
    assert all(37.0 <= (wait or 0) <= 37.5 for wait in stop.waits)
    assert len(set(stop.waits)) == 2


def test_a_wait_beyond_the_longest_is_not_begun() -> None:
    """The failure says so at once, and keeps what it knows."""
    stop, counts = Noted(), CallCounts()
    told = failures.RateLimited("slow down", retry_after=3600.0, billed=Billed(3))
    with pytest.raises(
        failures.RateLimited, match=r"3600 s.*TEXT_MODEL_LONGEST_WAIT.*\(1 s\)"
    ) as no:
        ask(Scripted(told), counts, stop=stop)
    assert (no.value.retry_after, no.value.billed, no.value.__context__) == (
        (3600.0, Billed(3), None)
    )
    assert stop.waits == []
    assert counts.failures == {"rate_limited": 1}


def test_a_stop_ends_a_long_wait_at_once() -> None:
    """Nothing is asked after it."""
    stop, counts = threading.Event(), CallCounts()
    policy = RetryPolicy(attempts=2, first_wait=0.0, longest_wait=7200.0)
    model = Scripted(failures.RateLimited("slow down", retry_after=3600.0))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, model, counts, policy=policy, stop=stop)
        stop.set()
        with pytest.raises(Stopped):
            asked.result(timeout=20)
    assert (counts.calls, counts.retries) in {(0, 0), (1, 0)}


def test_nothing_is_asked_when_stopped_before() -> None:
    """Not even the limiter."""
    stop, counts = threading.Event(), CallCounts()
    stop.set()
    with pytest.raises(Stopped):
        ask(Scripted(), counts, stop=stop)
    assert counts == CallCounts()


class Gate:
    """A limiter that fails as told, then lets pass after ``seconds``."""

    def __init__(self, *raised: ModelFailure, seconds: float = 0.0) -> None:
        self.raised, self.seconds = list(raised), seconds
        self.asked: list[int] = []

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        self.asked.append(tokens)
        if self.raised:
            raise self.raised.pop(0)
        return self.seconds

    def slot(self, stop: threading.Event, seconds: float) -> AbstractContextManager[Slot]:
        return nullcontext(Slot(waited=0.5, allowed=3))

    def close(self) -> None: ...


def test_every_attempt_waits_for_its_turn() -> None:
    """With the tokens that the request is estimated at; the seconds are counted."""
    gate, counts = Gate(seconds=2.5), CallCounts()
    ask(Scripted(failures.Unavailable("away")), counts, limiter=gate)
    assert gate.asked == [REQUEST.estimated_tokens] * 2
    assert 6.0 <= counts.waited < 7.0
    assert [most for _, most in counts.allowed] == [3, 3]
    ((moment, one),) = counts.refused
    assert one == 1
    assert counts.allowed[0][0] <= moment <= counts.allowed[1][0]


def test_limits_that_are_away_are_retried_and_then_told() -> None:
    """The model is not asked meanwhile: never without a limit in silence."""
    away = failures.LimitsUnreachable("away")
    counts = CallCounts()
    assert ask(Scripted(), counts, limiter=Gate(away, away)) is ANSWER
    assert (counts.calls, counts.retries) == (1, 2)
    assert counts.failures == {"limits_unreachable": 2}

    counts = CallCounts()
    with pytest.raises(failures.LimitsUnreachable):
        ask(Scripted(), counts, limiter=Gate(*[away] * 4))
    assert counts.calls == 0


def test_threads_count_together() -> None:
    """Nothing is lost."""
    counts = CallCounts()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            pool.submit(ask, Scripted(failures.Unavailable("away", billed=Billed(1))), counts)
    assert (counts.calls, counts.retries, counts.tokens_in) == (400, 200, 200 * 12)
    assert counts.failures == {"unavailable": 200}
