"""Retries: what is asked again, how long is waited, and what is counted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.text_model import failures
from tasks.text_model.base import TextAnswer, TextRequest
from tasks.text_model.failures import ModelFailure, Stopped
from tasks.text_model.limits import Limiter, NoLimit
from tasks.text_model.retrying import CallCounts, RetryPolicy, call
from tests.text_requests import text_request

AT_ONCE = RetryPolicy(attempts=4, first_wait=0.0, longest_wait=1.0)
REQUEST = text_request({"k": "A text."})
ANSWER = TextAnswer('{"items": []}', 11, 7, "scripted-1")


class Scripted:
    """Fails as told, call by call, then answers."""

    provider = "scripted"
    name = "scripted-1"

    def __init__(self, *raised: Exception) -> None:
        self.raised = list(raised)

    def generate(self, request: TextRequest) -> TextAnswer:
        if self.raised:
            raise self.raised.pop(0)
        return ANSWER

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
) -> TextAnswer:
    return call(
        model,
        REQUEST,
        policy=policy,
        limiter=limiter or NoLimit(),
        counts=counts,
        stop=stop or threading.Event(),
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
        failures.ServerFailed("odd", tokens_in=100, tokens_out=10),
        failures.Unavailable("away"),
    )
    assert ask(model, counts) is ANSWER
    assert (counts.calls, counts.retries) == (4, 3)
    assert counts.failures == {"unavailable": 2, "server_failed": 1}
    assert (counts.tokens_in, counts.tokens_out) == (111, 17)
    assert len(counts.latencies) == 4


def test_attempts_have_an_end() -> None:
    """The last failure itself is raised, and no retry is counted that was not made."""
    counts = CallCounts()
    last = failures.ServerFailed("the fourth")
    model = Scripted(*[failures.ServerFailed("early")] * 3, last, failures.ServerFailed("too many"))
    with pytest.raises(failures.ServerFailed) as caught:
        ask(model, counts)
    assert caught.value is last
    assert (counts.calls, counts.retries, len(model.raised)) == (4, 3, 1)


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
        ask(Scripted(kind("no", tokens_in=5)), counts)
    assert (counts.calls, counts.retries, counts.tokens_in) == (1, 0, 5)
    assert counts.failures == {kind.kind: 1}


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
    told = failures.RateLimited("slow down", retry_after=3600.0, tokens_in=3)
    with pytest.raises(
        failures.RateLimited, match=r"3600 s.*TEXT_MODEL_LONGEST_WAIT.*\(1 s\)"
    ) as no:
        ask(Scripted(told), counts, stop=stop)
    assert (no.value.retry_after, no.value.tokens_in, no.value.__context__) == (3600.0, 3, None)
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

    def close(self) -> None: ...


def test_every_attempt_waits_for_its_turn() -> None:
    """With the tokens that the request is estimated at; the seconds are counted."""
    gate, counts = Gate(seconds=2.5), CallCounts()
    ask(Scripted(failures.Unavailable("away")), counts, limiter=gate)
    assert gate.asked == [REQUEST.estimated_tokens] * 2
    assert 5.0 <= counts.waited < 6.0


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
            pool.submit(ask, Scripted(failures.Unavailable("away", tokens_in=1)), counts)
    assert (counts.calls, counts.retries, counts.tokens_in) == (400, 200, 200 * 12)
    assert counts.failures == {"unavailable": 200}
